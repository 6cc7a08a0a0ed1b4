"""Sampling of tokens from logits, in pure NumPy."""
