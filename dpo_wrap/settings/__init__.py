"""YAML to Settings: keys, ranges, relations, and what the installed sources say of them."""
