"""The typed client of a gpt2flow server, sync and async.

It needs grpcio and protobuf alone.
"""

from gpt2flow.client.aio import AsyncClient
from gpt2flow.client.errors import (
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ServerError,
    UnavailableError,
    Violation,
)
from gpt2flow.client.options import (
    BeamSearch,
    Choices,
    JsonSchema,
    Lark,
    Options,
    Regex,
    Sampling,
)
from gpt2flow.client.results import (
    Candidate,
    Delta,
    Generation,
    Model,
    Timing,
    Token,
    TokenLogprob,
    Usage,
)
from gpt2flow.client.sync import Client

__all__ = [
    "AsyncClient",
    "BeamSearch",
    "Candidate",
    "Choices",
    "Client",
    "ClientError",
    "DeadlineExceededError",
    "Delta",
    "Generation",
    "InvalidRequestError",
    "JsonSchema",
    "Lark",
    "Model",
    "NotFoundError",
    "Options",
    "OverloadedError",
    "Regex",
    "Sampling",
    "ServerError",
    "Timing",
    "Token",
    "TokenLogprob",
    "UnavailableError",
    "Usage",
    "Violation",
]
