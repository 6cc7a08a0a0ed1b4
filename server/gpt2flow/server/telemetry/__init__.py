"""What the server tells about its work: log fields, metrics, traces. Knows no gRPC."""
