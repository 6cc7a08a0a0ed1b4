"""The models of a server: loaded, replaced, unloaded."""
