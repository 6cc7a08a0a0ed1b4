"""Verification: the reference model, and the measures behind the quality gate."""
