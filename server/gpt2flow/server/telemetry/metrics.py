"""Metrics of RPCs, in a registry of the server."""

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
from gpt2flow.server.telemetry.load_report import LoadReport

# From a millisecond to five minutes.
_SECONDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0),
)
_TIMES: Final = {
    "queue": "Time from arrival to the first run of the model",
    "prefill": "Time from the first run of the model to the first token",
    "decode": "Time from the first token to the end",
}
_TOKENS: Final = {
    "prompt": "Tokens of prompts",
    "cached": "Tokens of prompts that came from the KV cache",
    "completion": "Generated tokens",
    "forced": "Generated tokens that a constraint left no choice about",
    "drafted": "Draft tokens that were verified",
    "accepted": "Draft tokens that were accepted",
}
_OK, _CANCELLED = "OK", "CANCELLED"


class Metrics:
    """Metrics of one server.

    Metrics of an RPC are recorded at its end, from the engine's results. Only the inter-token
    latency is recorded during the stream. Gauges are read by a collector at each scrape.

    Attributes:
        registry: Registry of all metrics.
        inter_token_latency: Histogram of the seconds between two chunks of a stream, by model.
    """

    def __init__(self, models: Callable[[], Iterable[Model]]) -> None:
        """Make the metrics.

        Args:
            models: Function that returns the loaded models.
        """
        self._models = models
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
            "rpc_duration_seconds", "Duration of RPCs that ended with OK", "rpc"
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Time from arrival to the first token of a prompt"
        )
        self._per_token = self._histogram(
            "time_per_output_token_seconds",
            "Time per output token of a prompt, after the first",
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
            "Prompts by result of the prefix lookup: hit or miss",
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
        """Add a gauge of the tasks of the server's event loop."""
        gauge = Gauge(
            "gpt2flow_tasks",
            "Tasks of the event loop: a few of the server, and those of each RPC",
            registry=self.registry,
        )
        gauge.set_function(lambda: len(asyncio.all_tasks(loop)))

    def load(self, model: str) -> LoadReport:
        """Return the load of one model; an unknown name is all together."""
        return LoadReport.of(self._models(), model)

    def ended(self, call: Call, code: str) -> None:
        """Record an RPC that ended with a status code of this name."""
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
        """Record the result of one prompt."""
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
