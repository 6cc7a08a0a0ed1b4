"""Telemetry of the server: log, metrics, traces; independent of gRPC."""
