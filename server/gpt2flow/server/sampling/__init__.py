"""From logits to a token: pure NumPy."""
