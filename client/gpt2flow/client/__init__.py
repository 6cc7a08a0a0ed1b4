"""Typed client library for a gpt2flow server, synchronous and asynchronous.

`Client` is for synchronous code, `AsyncClient` for asyncio; both have the same methods.
It needs only the packages of the `client` extra: grpcio, grpcio-status and protobuf.
"""

from gpt2flow.client.aio import AsyncClient
from gpt2flow.client.constraints import Choices, JsonSchema, Lark, Regex, StoredChoices
from gpt2flow.client.errors import (
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ServerError,
    SettingsError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from gpt2flow.client.keepalive import Keepalive
from gpt2flow.client.options import BeamSearch, Options, Sampling
from gpt2flow.client.prompts import Prompt, Text
from gpt2flow.client.results import (
    Candidate,
    ContinuationScore,
    Delta,
    Generation,
    Model,
    ModelLimits,
    Scores,
    Timing,
    Token,
    TokenLogprob,
    Usage,
)
from gpt2flow.client.retry import Retry
from gpt2flow.client.security import Security, Tls
from gpt2flow.client.sync import Client

__all__ = [
    "AsyncClient",
    "BeamSearch",
    "Candidate",
    "Choices",
    "Client",
    "ClientError",
    "ContinuationScore",
    "DeadlineExceededError",
    "Delta",
    "Generation",
    "InvalidRequestError",
    "JsonSchema",
    "Keepalive",
    "Lark",
    "Model",
    "ModelLimits",
    "NotFoundError",
    "Options",
    "OverloadedError",
    "PermissionDeniedError",
    "Prompt",
    "Regex",
    "Retry",
    "Sampling",
    "Scores",
    "Security",
    "ServerError",
    "SettingsError",
    "StoredChoices",
    "Text",
    "Timing",
    "Tls",
    "Token",
    "TokenLogprob",
    "UnauthenticatedError",
    "UnavailableError",
    "Usage",
    "Violation",
]
