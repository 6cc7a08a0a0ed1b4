"""Who sends a request, and what that allows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """One client of the server, as far as it can be told from others.

    Attributes:
        name: Of its token or its certificate; without these, where it calls from.
        models: What it may use; None is all models.
        max_requests: Requests that it may have unfinished at the same time; None is no limit.
        max_priority: The highest priority that it may ask for; None is no limit but that of all.
        max_new_tokens: The most that it may ask for; None is no limit but the context.
        max_candidates: Of one request, likewise; None is no limit but that of all.
        max_beams: Of one request, likewise.
    """

    name: str
    models: frozenset[str] | None = None
    max_requests: int | None = None
    max_priority: int | None = None
    max_new_tokens: int | None = None
    max_candidates: int | None = None
    max_beams: int | None = None

    def may_use(self, model: str) -> bool:
        """Returns whether a model of this name is open to it."""
        return self.models is None or model in self.models
