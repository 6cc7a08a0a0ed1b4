"""Turns: the model chooses, code carries out, durably."""
