"""Models of a server: loading, replacing, unloading."""
