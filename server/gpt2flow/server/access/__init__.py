"""Access control: callers, tokens, certificates."""
