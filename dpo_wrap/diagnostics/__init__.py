"""Is the run well? What is watched, why it goes wrong, how it went."""
