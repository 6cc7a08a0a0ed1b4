"""What is true at the moment, read from the loaded models when somebody asks."""

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

_GAUGES: Final[dict[str, tuple[str, Callable[[EngineLoad], int]]]] = {
    "requests_running": ("Prompts that hold slots", lambda load: load.running),
    "requests_waiting": ("Prompts in the queue", lambda load: load.waiting),
    "slots_used": ("Slots of the KV cache in use", lambda load: load.slots - load.free_slots),
    "slots_free": ("Slots of the KV cache that are free", lambda load: load.free_slots),
    "kv_cache_positions": ("Positions of the KV cache", lambda load: load.positions),
    "kv_cache_positions_running": (
        "Positions of the KV cache that running sequences fill",
        lambda load: load.positions_running,
    ),
    "kv_cache_positions_remembered": (
        "Positions of the KV cache that free slots remember",
        lambda load: load.positions_cached,
    ),
}


class ModelsCollector(Collector):
    """Asks for the models each time, and keeps none: one that is unloaded is gone from here."""

    def __init__(
        self, models: Callable[[], Iterable[Model]], inter_token_latency: Mapping[str, Histogram]
    ) -> None:
        """Take what tells the present models, and by name the gaps between a stream's pieces."""
        self._models = models
        self._inter_token_latency = inter_token_latency

    def describe(self) -> Iterable[Metric]:
        """Return nothing: without this, registering would ask for the models."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of all models."""
        models = tuple(self._models())
        loaded = GaugeMetricFamily("gpt2flow_models_loaded", "Models that are served")
        loaded.add_metric((), len(models))
        yield loaded
        yield from _gauges(models)
        yield from _of_models(models)
        yield from _runs(models)
        gap = _histograms(
            "inter_token_latency_seconds", "Between two pieces of a stream, as they are sent"
        )
        for model in models:
            if histogram := self._inter_token_latency.get(model.name):
                _add(gap, (model.name,), histogram)
        yield gap


def _gauges(models: Iterable[Model]) -> Iterator[Metric]:
    loads = {model.name: model.engine.load for model in models}
    for name, (text, value) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"gpt2flow_{name}", text, labels=("model",))
        for model, load in loads.items():
            gauge.add_metric((model,), value(load))
        yield gauge
    preemptions = CounterMetricFamily(
        "gpt2flow_preemptions", "Requests that gave their slots up to others", labels=("model",)
    )
    for model, load in loads.items():
        preemptions.add_metric((model,), load.preemptions)
    yield preemptions


def _of_models(models: Iterable[Model]) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "gpt2flow_kv_cache_bytes", "Memory of the KV cache", labels=("model",)
    )
    info = GaugeMetricFamily(
        "gpt2flow_model_info",
        "A loaded model; always 1",
        labels=("model", "profile", "fingerprint"),
    )
    for model in models:
        memory.add_metric((model.name,), model.kv_cache_bytes)
        profile, fingerprint = model.bundle.manifest.recipe.profile, model.bundle.fingerprint
        info.add_metric((model.name, profile, fingerprint), 1)
    yield memory
    yield info


def _runs(models: Iterable[Model]) -> Iterator[Metric]:
    seconds = _histograms("run_duration_seconds", "One run of the model, without sampling", "kind")
    tokens = _histograms("run_tokens", "Tokens in one run of the model", "kind")
    for model in models:
        runs = model.engine.runs
        for kind in runs.seconds:
            _add(seconds, (model.name, kind), runs.seconds[kind])
            _add(tokens, (model.name, kind), runs.tokens[kind])
    yield seconds
    yield tokens


def _histograms(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"gpt2flow_{name}", text, labels=("model", *labels))


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    """Add a histogram; its counts become those of all buckets up to each bound."""
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    counts = itertools.accumulate(histogram.counts)
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.total)
