"""Load, check, join and tokenise the data of a run."""
