"""Gateway with OpenAI's HTTP API, in front of a gRPC server."""
