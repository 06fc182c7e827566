"""Figures as modules that evaluate.load takes from a path: preference, and ROUGE."""
