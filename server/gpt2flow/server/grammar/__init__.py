"""Constrained output by grammars, which are compiled in a sandbox first."""
