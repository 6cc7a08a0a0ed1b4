"""Text to tokens and back, at once or token by token."""
