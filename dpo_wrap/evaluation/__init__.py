"""Evaluation of a finished run: scored pairs, sampled answers, figures with intervals."""
