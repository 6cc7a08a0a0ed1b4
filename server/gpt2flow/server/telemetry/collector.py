"""Collector of the metrics that loaded models supply at a scrape."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gpt2flow.server.engine.stats import EngineLoad, Histogram
from gpt2flow.server.models.model import Model

GAUGES: Final[dict[str, tuple[str, Callable[[EngineLoad], float]]]] = {
    "requests_running": ("Prompts that hold slots", lambda load: load.running),
    "requests_waiting": ("Prompts in the queue", lambda load: load.waiting),
    "slots_used": (
        "Slots of the KV cache that requests hold",
        lambda load: load.slots - load.free_slots,
    ),
    "slots_free": ("Free slots of the KV cache", lambda load: load.free_slots),
    "kv_cache_usage_ratio": (
        "Slots of the KV cache that requests hold, from 0 to 1: all",
        lambda load: load.usage,
    ),
    "kv_cache_positions": ("Positions of the KV cache in all slots", lambda load: load.positions),
    "kv_cache_positions_running": (
        "Positions of the KV cache that running sequences fill",
        lambda load: load.positions_running,
    ),
    "kv_cache_positions_cached": (
        "Positions of the KV cache that hold cached prefixes in free slots",
        lambda load: load.positions_cached,
    ),
}
# Gauges that autoscalers know by vLLM's names, and ours.
VLLM_GAUGES: Final = {
    "vllm:num_requests_running": "requests_running",
    "vllm:num_requests_waiting": "requests_waiting",
    "vllm:kv_cache_usage_perc": "kv_cache_usage_ratio",
}


class ModelsCollector(Collector):
    """Collector that keeps no reference to the models between scrapes."""

    def __init__(
        self, models: Callable[[], Iterable[Model]], inter_token_latency: Mapping[str, Histogram]
    ) -> None:
        """Take the sources of the metrics.

        Args:
            models: Function that returns the loaded models.
            inter_token_latency: Histograms by model.
        """
        self._models = models
        self._inter_token_latency = inter_token_latency

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registration does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of all models."""
        models = tuple(self._models())
        loaded = GaugeMetricFamily("gpt2flow_models_loaded", "Loaded models")
        loaded.add_metric((), len(models))
        yield loaded
        yield from _gauges(models)
        yield from _model_facts(models)
        yield from _runs(models)
        latency = _histograms(
            "inter_token_latency_seconds", "Time between sending two chunks of a stream"
        )
        for model in models:
            if histogram := self._inter_token_latency.get(model.name):
                _add(latency, (model.name,), histogram)
        yield latency


def _gauges(models: Iterable[Model]) -> Iterator[Metric]:
    loads = {model.name: model.engine.load for model in models}
    for name, (text, value) in GAUGES.items():
        gauge = GaugeMetricFamily(f"gpt2flow_{name}", text, labels=("model",))
        for model, load in loads.items():
            gauge.add_metric((model,), value(load))
        yield gauge
    for name, own in VLLM_GAUGES.items():
        text, value = GAUGES[own]
        gauge = GaugeMetricFamily(name, f"{text}: gpt2flow_{own}", labels=("model_name",))
        for model, load in loads.items():
            gauge.add_metric((model,), value(load))
        yield gauge
    preemptions = CounterMetricFamily(
        "gpt2flow_preemptions", "Preemptions of running requests", labels=("model",)
    )
    for model, load in loads.items():
        preemptions.add_metric((model,), load.preemptions)
    yield preemptions


def _model_facts(models: Iterable[Model]) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "gpt2flow_kv_cache_bytes", "Memory of the KV cache in bytes", labels=("model",)
    )
    info = GaugeMetricFamily(
        "gpt2flow_model_info",
        "Facts about a loaded model; always 1",
        labels=("model", "profile", "fingerprint"),
    )
    for model in models:
        memory.add_metric((model.name,), model.kv_cache_bytes)
        profile, fingerprint = model.bundle.manifest.recipe.profile, model.bundle.fingerprint
        info.add_metric((model.name, profile, fingerprint), 1)
    yield memory
    yield info


def _runs(models: Iterable[Model]) -> Iterator[Metric]:
    seconds = _histograms(
        "run_duration_seconds", "Duration of one run of the model, without sampling", "kind"
    )
    tokens = _histograms("run_tokens", "Tokens per run of the model", "kind")
    failures = CounterMetricFamily(
        "gpt2flow_run_failures",
        "Runs of the model that failed, probing runs included",
        labels=("model",),
    )
    failing = GaugeMetricFamily(
        "gpt2flow_model_failing",
        "1 if the model's last runs failed or its engine is broken, so that it is NOT_SERVING",
        labels=("model",),
    )
    for model in models:
        runs = model.engine.runs
        failures.add_metric((model.name,), runs.failures)
        failing.add_metric((model.name,), not model.engine.healthy)
        for kind in runs.seconds:
            _add(seconds, (model.name, kind), runs.seconds[kind])
            _add(tokens, (model.name, kind), runs.tokens[kind])
    yield seconds
    yield tokens
    yield failures
    yield failing


def _histograms(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"gpt2flow_{name}", text, labels=("model", *labels))


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    """Add a histogram, with cumulative counts."""
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    counts = itertools.accumulate(histogram.counts)
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.total)
