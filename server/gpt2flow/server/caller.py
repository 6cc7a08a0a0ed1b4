"""Who sends a request, and what that allows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """One client of the server, as far as it can be told from others.

    Attributes:
        name: Of its token or its certificate; without these, where it calls from.
        models: What it may use; None is all models.
        max_requests: Requests that it may have unfinished at the same time; None is no limit.
    """

    name: str
    models: frozenset[str] | None = None
    max_requests: int | None = None
