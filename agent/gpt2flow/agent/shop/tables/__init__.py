"""Tables of the shop, one subject a module."""
