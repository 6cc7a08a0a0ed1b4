"""One RPC as it is told about: noted on its way, and told when it ends."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from gpt2flow.server.engine.results import Delta, Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.stats import Histogram

_TOKENS = ("prompt", "cached", "completion", "forced", "drafted", "accepted")
_TIMES = ("queue", "prefill", "decode", "total")


@dataclass(slots=True, eq=False)
class Call:
    """What is known of one RPC.

    Attributes:
        rpc: The method's name, without the service.
        request_id: Tells it from others, in the log and to the client.
        inter_token_latency: By model, where the times between two pieces of a stream are counted.
        model: The name of the model that it uses; empty where it uses none, or none is found.
        results: What came of its prompts, so far.
        error: The code of the error that ended it, if the server raised one.
        started: When it came, in seconds of the monotonic clock.
        ended: When it ended, on the same clock.
    """

    rpc: str
    request_id: str
    inter_token_latency: Mapping[str, Histogram]
    model: str = ""
    results: list[GenerationResult | ScoreResult] = field(default_factory=list)
    error: str = ""
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    _last: dict[int, float] = field(default_factory=dict)

    def end(self) -> None:
        """Note that it ends now."""
        self.ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.started

    def add_event(self, event: Event) -> None:
        """Record an event that goes to the client now: a chunk of a stream, or its end."""
        content = event.content
        if isinstance(content, GenerationResult | ScoreResult):
            self.add_result(content)
        if not isinstance(content, Delta):
            return
        now = time.monotonic()
        last = self._last.get(content.index)
        if last is not None:
            self.inter_token_latency[self.model].observe(now - last)
        self._last[content.index] = now

    def add_result(self, result: GenerationResult | ScoreResult) -> None:
        """Record the result of one prompt."""
        self.results.append(result)

    def finish_reasons(self) -> Counter[str]:
        """Return how many candidates ended for which reason."""
        return Counter(
            candidate.finish_reason.value
            for result in self.results
            if isinstance(result, GenerationResult)
            for candidate in result.candidates
        )

    def tokens(self) -> dict[str, int]:
        """Return the tokens of all prompts together, by kind."""
        return {
            kind: sum(getattr(result.usage, f"{kind}_tokens") for result in self.results)
            for kind in _TOKENS
        }

    def fields(self) -> dict[str, Any]:
        """Return what the log says of it: figures and names, never text or tokens.

        Of several prompts, tokens are summed; times are the longest of any.
        """
        fields: dict[str, Any] = {"rpc": self.rpc, "model": self.model}
        if self.error:
            fields["error"] = self.error
        if self.results:
            fields |= {f"{kind}_tokens": count for kind, count in self.tokens().items()}
            for name in _TIMES:
                longest = max(getattr(result.timing, name) for result in self.results)
                fields[f"{name}_ms"] = round(longest * 1e3, 3)
            fields["finish_reasons"] = dict(self.finish_reasons())
        return fields | {"rpc_ms": round(self.seconds * 1e3, 3)}


# Set for each RPC by the interceptor that tells about it.
_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
set_current_call = _CURRENT.set


def current_call() -> Call:
    """Return the RPC that this task answers; one that nobody tells about, without interceptor."""
    return _CURRENT.get() or Call("", "", defaultdict(lambda: Histogram(())))
