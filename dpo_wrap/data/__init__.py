"""Load, check, join and tokenize the data of a run."""
