"""Evaluation: scenarios played with scripted customers, and the figures of the results."""
