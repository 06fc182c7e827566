"""Checks of a training run, the explanation of its failures, and its verdict."""
