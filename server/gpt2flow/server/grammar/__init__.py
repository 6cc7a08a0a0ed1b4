"""Constrained output: grammars, compiled in a sandbox first."""
