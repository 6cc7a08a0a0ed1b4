"""What a caller may do: models, options, and requests at the same time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gpt2flow.server.errors import FieldViolation, OverloadedError, PermissionDeniedError
from gpt2flow.server.params import BeamSearchParams, GenerationParams

_RETRY_AFTER_SECONDS = 1.0


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
        """Return whether a model of this name is open to it."""
        return self.models is None or model in self.models


def check_model(caller: Caller, name: str) -> None:
    """Check that a caller may use a model; whether there is one is not told before.

    Raises:
        PermissionDeniedError: It may not.
    """
    if not caller.may_use(name):
        allowed = ", ".join(sorted(caller.models or ()))
        raise PermissionDeniedError(f"{caller.name!r} may not use this model; allowed: {allowed}")


def permitted(caller: Caller, params: GenerationParams) -> GenerationParams:
    """Return the options as a caller may have them: defaults are lowered, wishes are refused.

    Raises:
        PermissionDeniedError: The request asks for more than its caller may; names all of it.
    """
    found = [
        FieldViolation(field, f"is {asked}, {caller.name!r} may have {most}")
        for field, asked, most in _asked(caller, params)
        if most is not None and asked is not None and asked > most
    ]
    if found:
        text = "; ".join(f"{each.field} {each.description}" for each in found)
        raise PermissionDeniedError(text, found)
    return replace(
        params,
        stopping=replace(params.stopping, ceiling=caller.max_new_tokens),
        priority=lowered(caller, params.priority),
    )


def _asked(
    caller: Caller, params: GenerationParams
) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield what a request asks for: the field, its value, and what the caller may have."""
    decoding = params.decoding
    if isinstance(decoding, BeamSearchParams):
        yield "options.beam_search.num_beams", decoding.num_beams, caller.max_beams
    else:
        yield "options.sampling.n", decoding.n, caller.max_candidates
    max_new_tokens = params.stopping.max_new_tokens
    yield "options.stopping.max_new_tokens", max_new_tokens, caller.max_new_tokens
    # Not to have asked for a priority is to have asked for 0, which is lowered.
    asked = params.priority if params.priority > 0 else None
    yield "options.priority", asked, caller.max_priority


def lowered(caller: Caller, priority: int = 0) -> int:
    """Return a priority that a caller may have; 0 stands for not having asked."""
    return priority if caller.max_priority is None else min(priority, caller.max_priority)


class UnfinishedRequests:
    """Counts what callers have unfinished, and refuses what is too much. For one thread."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextmanager
    def hold(self, caller: Caller, count: int = 1) -> Iterator[None]:
        """Count requests of a caller until exit, one for each prompt.

        Raises:
            PermissionDeniedError: It may never have so many.
            OverloadedError: It may not have so many now.
        """
        most = caller.max_requests
        if most is None:
            yield
            return
        if count > most:
            raise PermissionDeniedError(
                f"prompts are {count} requests, {caller.name!r} may have {most} unfinished"
            )
        if self._of[caller.name] + count > most:
            raise OverloadedError(
                f"{caller.name!r} would have {self._of[caller.name] + count} requests unfinished, "
                f"may have {most}",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._of[caller.name] += count
        try:
            yield
        finally:
            self._of[caller.name] -= count
            if not self._of[caller.name]:
                del self._of[caller.name]
