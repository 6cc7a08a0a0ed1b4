"""Real server with the shipped bundle."""

from tests.support.shipped_server import address

__all__ = ["address"]
