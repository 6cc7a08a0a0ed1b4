"""Synthetic corpus: turns of the agent's flows, generated from a seed."""
