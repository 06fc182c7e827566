"""The fast lane: whole columns of a flat shape at a time, where a record is a plain one.

It knows nothing of formats and rules but asks them: what a label means is probed with sentinels
in place of texts, and a row that is not plainly sound goes to the row-wise lane, which is the
definition. So it can keep a pair, but never reject one.
"""
