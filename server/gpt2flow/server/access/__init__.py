"""Who may do what: callers, tokens, certificates."""
