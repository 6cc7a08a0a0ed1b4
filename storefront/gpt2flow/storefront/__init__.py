"""Storefront: web shop and back office on the agent's database."""
