"""Record of one RPC, for the log, the metrics and the trace."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from gpt2flow.server.engine.results import Delta, Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.stats import Histogram

_TOKENS = ("prompt", "cached", "completion", "forced", "drafted", "accepted")
_TIMES = ("queue", "prefill", "decode", "total")


@dataclass(slots=True, eq=False)
class Call:
    """Record of one RPC; times are in seconds of the monotonic clock.

    Attributes:
        rpc: Name of the method, without the service.
        request_id: Unique id, for the log and the client.
        inter_token_latency: Histogram of the time between two chunks of a stream, by model.
        model: Name of the model; empty if the RPC uses none, or it is not found.
        results: Results of its prompts, so far.
        error: Code of the error that ended it, if the server raised one.
        started: Time of arrival.
        ended: Time of its end.
        load: Function that returns the load report as trailing metadata, if it was asked for.
    """

    rpc: str
    request_id: str
    inter_token_latency: Mapping[str, Histogram]
    model: str = ""
    results: list[GenerationResult | ScoreResult] = field(default_factory=list)
    error: str = ""
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    load: Callable[[], tuple[str, str | bytes]] | None = None
    _last: dict[int, float] = field(default_factory=dict)

    def end(self) -> None:
        """Record the time of its end."""
        self.ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """Duration of the RPC."""
        return self.ended - self.started

    def add_event(self, event: Event) -> None:
        """Record an event of a stream that is about to be sent."""
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
        """Return the number of candidates by finish reason."""
        return Counter(
            candidate.finish_reason.value
            for result in self.results
            if isinstance(result, GenerationResult)
            for candidate in result.candidates
        )

    def tokens(self) -> dict[str, int]:
        """Return the number of tokens of all prompts, by kind."""
        return {
            kind: sum(getattr(result.usage, f"{kind}_tokens") for result in self.results)
            for kind in _TOKENS
        }

    def fields(self) -> dict[str, Any]:
        """Return the fields of its log line.

        These are figures and names, never text or token ids. Token counts are summed over the
        prompts; each time is the longest of any prompt.
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


# Set by the interceptor that observes RPCs.
_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
set_current_call = _CURRENT.set


def current_call() -> Call:
    """Return the record of the current RPC; without interceptor, one to discard."""
    return _CURRENT.get() or Call("", "", defaultdict(lambda: Histogram(())))
