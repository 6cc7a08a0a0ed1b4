"""The only room that knows protobuf: messages to domain and back, errors to status."""

from gpt2flow.server.servicer.decoding import DecodingInterceptor
from gpt2flow.server.servicer.observer import Observer
from gpt2flow.server.servicer.security import make_security
from gpt2flow.server.servicer.services import SERVICE_NAME, Services

__all__ = ["SERVICE_NAME", "DecodingInterceptor", "Observer", "Services", "make_security"]
