"""Pages of the console, each with its routes."""
