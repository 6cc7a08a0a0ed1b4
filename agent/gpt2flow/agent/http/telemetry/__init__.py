"""Health, metrics and log of the HTTP endpoint."""
