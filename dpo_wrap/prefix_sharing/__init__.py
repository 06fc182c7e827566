"""One forward pass per prompt: TRL's padded batch, run as a row of its distinct tokens.

layout.py lays the batch out, attention.py lets each side of a pair see itself alone, head.py scores
answers, forward.py puts the three under TRL's fused forward. Which models take it obstacles.py
tells beforehand and agreement.py on a batch.
"""
