"""What is counted of RPCs, in a registry of this server's own."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client import Histogram as LabelledHistogram

from gpt2flow.server.engine.results import GenerationResult, ScoreResult
from gpt2flow.server.engine.stats import TOKEN_SECONDS, Histogram
from gpt2flow.server.models.model import Model
from gpt2flow.server.telemetry.call import Call
from gpt2flow.server.telemetry.collector import ModelsCollector

# From a millisecond to five minutes.
_SECONDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0),
)
_TIMES: Final = {
    "queue": "From arrival to the first run of the model",
    "prefill": "From the first run of the model to the first token",
    "decode": "From the first token to the end",
}
_TOKENS: Final = {
    "prompt": "Tokens of prompts",
    "cached": "Tokens of prompts that the KV cache held already",
    "completion": "Tokens that were produced",
    "forced": "Produced tokens that a constraint left no choice of",
    "drafted": "Tokens that were guessed ahead",
    "accepted": "Tokens that were guessed ahead and right",
}
_OK, _CANCELLED = "OK", "CANCELLED"


class Metrics:
    """The figures of one server.

    Of every RPC they are taken when it ends, from what the engine reports of
    its prompts; only the times between the pieces of a stream are taken on the
    way. What is true at the moment, a collector reads when it is asked.

    Attributes:
        registry: All of them.
        inter_token_latency: By model, the seconds between two pieces of a stream.
    """

    def __init__(self, models: Callable[[], Iterable[Model]]) -> None:
        """Take what tells the models that are loaded at present."""
        self.registry = CollectorRegistry()
        self.inter_token_latency: defaultdict[str, Histogram] = defaultdict(
            lambda: Histogram(TOKEN_SECONDS)
        )
        self._rpcs = self._counter(
            "rpcs", "RPCs that ended, by status code", "rpc", "model", "code"
        )
        self._errors = self._counter(
            "errors", "RPCs that ended with an error", "rpc", "model", "code", "reason"
        )
        self._rpc_seconds = self._histogram(
            "rpc_duration_seconds", "From the arrival of an RPC to its end, if that is OK", "rpc"
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From the arrival of a prompt to its first token"
        )
        self._per_token = self._histogram(
            "time_per_output_token_seconds",
            "Time of a prompt after its first token, by each further token",
            bounds=TOKEN_SECONDS,
        )
        self._times = {
            name: self._histogram(f"{name}_seconds", text) for name, text in _TIMES.items()
        }
        self._tokens = {
            name: self._counter(f"{name}_tokens", text, "model") for name, text in _TOKENS.items()
        }
        self._prefixes = self._counter(
            "prefix_cache_prompts",
            "Prompts, by whether the KV cache held a prefix",
            "model",
            "result",
        )
        self._finished = self._counter(
            "finished", "Candidates that ended, by reason", "model", "reason"
        )
        self.registry.register(ModelsCollector(models, self.inter_token_latency))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def observe_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell from now on how many tasks the server's event loop has."""
        gauge = Gauge(
            "gpt2flow_tasks",
            "Tasks of the event loop: a few of the server's own, and those of each RPC",
            registry=self.registry,
        )
        gauge.set_function(lambda: len(asyncio.all_tasks(loop)))

    def ended(self, call: Call, code: str) -> None:
        """Count an RPC that ended with a status code of this name."""
        self._rpcs.labels(call.rpc, call.model, code).inc()
        if code == _OK:
            self._rpc_seconds.labels(call.rpc, call.model).observe(call.seconds)
        elif code != _CANCELLED:
            reason = call.error or code.lower()
            self._errors.labels(call.rpc, call.model, code, reason).inc()
        for result in call.results:
            self._count(call.model, result)
        for reason, count in call.finish_reasons().items():
            self._finished.labels(call.model, reason).inc(count)

    def _count(self, model: str, result: GenerationResult | ScoreResult) -> None:
        """Count what came of one prompt."""
        usage, timing = result.usage, result.timing
        for name, counter in self._tokens.items():
            counter.labels(model).inc(getattr(usage, f"{name}_tokens"))
        for name, histogram in self._times.items():
            histogram.labels(model).observe(getattr(timing, name))
        self._prefixes.labels(model, "hit" if usage.cached_tokens else "miss").inc()
        if isinstance(result, GenerationResult) and usage.completion_tokens:
            self._first_token.labels(model).observe(timing.queue + timing.prefill)
            further = usage.completion_tokens - len(result.candidates)
            if further > 0:
                self._per_token.labels(model).observe(timing.decode / further)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gpt2flow_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, bounds: tuple[float, ...] = _SECONDS
    ) -> LabelledHistogram:
        return LabelledHistogram(
            f"gpt2flow_{name}", text, (*labels, "model"), registry=self.registry, buckets=bounds
        )
