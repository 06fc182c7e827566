"""A training run: prepare it, start or resume it, log it and finish it; and the dry run."""
