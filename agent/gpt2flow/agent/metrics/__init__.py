"""Prometheus metrics that several processes of the agent have."""
