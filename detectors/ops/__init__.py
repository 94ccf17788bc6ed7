"""Tensors in, tensors out: boxes coded and matched, and suppression."""
