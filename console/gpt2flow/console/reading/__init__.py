"""Queries behind the pages, which take no write lock."""
