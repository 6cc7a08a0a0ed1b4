"""Contract with export: the manifest, and the runner of the serving graph."""
