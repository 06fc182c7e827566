"""A finished run beside its reference: pairs scored, answers sampled, figures with intervals."""
