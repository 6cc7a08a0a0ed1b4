"""Queries behind the pages."""
