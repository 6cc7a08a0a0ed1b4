"""Serving graph, and the writers that add its nodes."""
