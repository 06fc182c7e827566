"""A training session: rehearsed, begun, gone on with, logged, saved."""
