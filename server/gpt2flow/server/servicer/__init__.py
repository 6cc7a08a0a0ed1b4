"""The only room that knows protobuf: messages to domain and back, errors to status."""

from gpt2flow.server.servicer.observer import Observer
from gpt2flow.server.servicer.security import make_security
from gpt2flow.server.servicer.services import Services

__all__ = ["Observer", "Services", "make_security"]
