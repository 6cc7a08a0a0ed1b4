"""What a caller may do: models, options, and requests at the same time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gpt2flow.server.caller import Caller
from gpt2flow.server.errors import OverloadedError, PermissionDeniedError
from gpt2flow.server.params import GenerationParams

_RETRY_AFTER_SECONDS = 1.0


def check_model(caller: Caller, name: str) -> None:
    """Checks that a caller may use a model; whether there is one is not told before.

    Raises:
        PermissionDeniedError: It may not.
    """
    if not caller.may_use(name):
        allowed = ", ".join(sorted(caller.models or ()))
        raise PermissionDeniedError(f"{caller.name!r} may not use this model; allowed: {allowed}")


def permitted(caller: Caller, params: GenerationParams) -> GenerationParams:
    """Returns the options as a caller may have them: defaults are lowered, wishes are refused.

    Raises:
        PermissionDeniedError: The request asks for more than its caller may.
    """
    if caller.max_new_tokens is None and caller.max_priority is None:
        return params
    most = caller.max_new_tokens
    asked = params.stopping.max_new_tokens
    if most is not None and asked is not None and asked > most:
        raise PermissionDeniedError(
            f"options.stopping.max_new_tokens is {asked}, {caller.name!r} may have {most}"
        )
    if caller.max_priority is not None and params.priority > max(caller.max_priority, 0):
        raise PermissionDeniedError(
            f"options.priority is {params.priority}, {caller.name!r} may have {caller.max_priority}"
        )
    return replace(
        params,
        stopping=replace(params.stopping, ceiling=most),
        priority=lowered(caller, params.priority),
    )


def lowered(caller: Caller, priority: int = 0) -> int:
    """Returns a priority that a caller may have; 0 stands for not having asked."""
    return priority if caller.max_priority is None else min(priority, caller.max_priority)


class UnfinishedRequests:
    """Counts what callers have unfinished, and refuses what is too much. For one thread."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextmanager
    def hold(self, caller: Caller, count: int = 1) -> Iterator[None]:
        """Counts requests of a caller until exit, one for each prompt.

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
