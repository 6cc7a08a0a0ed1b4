"""Addresses, URLs, secrets and HTTP servers of all rooms."""
