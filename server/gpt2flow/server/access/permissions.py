"""Permissions of a caller: models, options, and concurrent requests."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gpt2flow.server.errors import FieldViolation, OverloadedError, PermissionDeniedError
from gpt2flow.server.params import BeamSearchParams, GenerationParams

_RETRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Identity and permissions of a client.

    A limit of None leaves only the limit that applies to all callers.

    Attributes:
        name: Name of its token or certificate; without these, the address of its host.
        models: Names of the models that it may use; None is all.
        max_requests: Most unfinished requests at the same time.
        max_priority: Highest priority of a request.
        max_new_tokens: Most new tokens per candidate.
        max_candidates: Most candidates per request.
        max_beams: Most beams per request.
        manage_models: Whether it may load and unload models; None is as the settings say.
    """

    name: str
    models: frozenset[str] | None = None
    max_requests: int | None = None
    max_priority: int | None = None
    max_new_tokens: int | None = None
    max_candidates: int | None = None
    max_beams: int | None = None
    manage_models: bool | None = None

    def may_use(self, model: str) -> bool:
        """Return whether it may use a model of this name."""
        return self.models is None or model in self.models


def check_model(caller: Caller, name: str) -> None:
    """Check that a caller may use a model.

    This comes before the check that the model exists, so that the answer does not disclose it.

    Raises:
        PermissionDeniedError: It may not use it.
    """
    if not caller.may_use(name):
        allowed = ", ".join(sorted(caller.models or ()))
        raise PermissionDeniedError(f"{caller.name!r} may not use this model; allowed: {allowed}")


def check_control(caller: Caller, name: str, *, default: bool) -> None:
    """Check that a caller may load and unload a model.

    Args:
        caller: The caller.
        name: Name of the model.
        default: Whether callers without a token may.

    Raises:
        PermissionDeniedError: It may not.
    """
    check_model(caller, name)
    allowed = default if caller.manage_models is None else caller.manage_models
    if not allowed:
        remedy = "--model-control" if caller.manage_models is None else "manage_models = true"
        raise PermissionDeniedError(
            f"{caller.name!r} may not load or unload models; that takes {remedy}"
        )


def permitted(caller: Caller, params: GenerationParams) -> GenerationParams:
    """Return the options within the permissions of a caller.

    Defaults are lowered to its limits; explicit values above them are refused.

    Raises:
        PermissionDeniedError: Options exceed its limits; the error names all of them.
    """
    found = [
        FieldViolation(field, f"is {value}, {caller.name!r} may have {limit}")
        for field, value, limit in _limited_fields(caller, params)
        if limit is not None and value is not None and value > limit
    ]
    if found:
        text = "; ".join(f"{each.field} {each.description}" for each in found)
        raise PermissionDeniedError(text, found)
    return replace(
        params,
        stopping=replace(params.stopping, ceiling=caller.max_new_tokens),
        priority=lowered(caller, params.priority),
    )


def _limited_fields(
    caller: Caller, params: GenerationParams
) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield the path, the explicit value and the limit of fields."""
    decoding = params.decoding
    if isinstance(decoding, BeamSearchParams):
        yield "options.beam_search.num_beams", decoding.num_beams, caller.max_beams
    else:
        yield "options.sampling.n", decoding.n, caller.max_candidates
    max_new_tokens = params.stopping.max_new_tokens
    yield "options.stopping.max_new_tokens", max_new_tokens, caller.max_new_tokens
    # Priority 0 is the default, which is lowered.
    priority = params.priority if params.priority > 0 else None
    yield "options.priority", priority, caller.max_priority


def lowered(caller: Caller, priority: int = 0) -> int:
    """Return a priority, lowered to the limit of a caller."""
    return priority if caller.max_priority is None else min(priority, caller.max_priority)


class UnfinishedRequests:
    """Quota of unfinished requests per caller, for one thread."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextmanager
    def hold(self, caller: Caller, count: int = 1) -> Iterator[None]:
        """Count requests of a caller until the context ends, one per prompt.

        Raises:
            PermissionDeniedError: `count` alone exceeds its quota.
            OverloadedError: `count` exceeds what is left of its quota.
        """
        limit = caller.max_requests
        if limit is None:
            yield
            return
        if count > limit:
            raise PermissionDeniedError(
                f"prompts are {count} requests, {caller.name!r} may have {limit} unfinished"
            )
        unfinished = self._counts[caller.name] + count
        if unfinished > limit:
            raise OverloadedError(
                f"{caller.name!r} would have {unfinished} requests unfinished, may have {limit}",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._counts[caller.name] += count
        try:
            yield
        finally:
            self._counts[caller.name] -= count
            if not self._counts[caller.name]:
                del self._counts[caller.name]
