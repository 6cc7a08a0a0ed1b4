"""Pages of the shop and of its back office."""
