"""Optimizers compared fairly: each at its own best learning rate, over the same tokens, in the same order, from the same weights."""
