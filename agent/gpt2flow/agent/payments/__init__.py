"""Payments: the port to a provider, and their settlement."""
