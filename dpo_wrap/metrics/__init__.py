"""Metrics that evaluate.load loads from their path: preference and ROUGE."""
