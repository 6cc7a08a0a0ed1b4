"""Access to files that several programs share: atomic writes, strict documents."""
