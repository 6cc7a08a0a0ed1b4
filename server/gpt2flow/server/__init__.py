"""Serves model bundles over gRPC."""
