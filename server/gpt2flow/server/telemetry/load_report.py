"""Load report of a server, for routers: Open Request Cost Aggregation (ORCA).

A router asks for it in the metadata of a call, and reads it in the trailing metadata.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Self

from gpt2flow.server.models.model import Model


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Load of a server at one moment, named as in ORCA.

    Attributes:
        application_utilization: Slots that requests hold, and requests that wait, as a share of
            the slots; above 1 with a queue.
        named_metrics: Figures by name.
    """

    application_utilization: float
    named_metrics: Mapping[str, float]

    @classmethod
    def of(cls, models: Iterable[Model], name: str) -> Self:
        """Return the load of one model; an unknown name is all together."""
        loads = {model.name: model.engine.load for model in models}
        counted = [loads[name]] if name in loads else list(loads.values())
        slots = sum(each.slots for each in counted)
        held = slots - sum(each.free_slots for each in counted)
        waiting = sum(each.waiting for each in counted)
        # Before a model is loaded, a server has no slots.
        usage, utilization = (held / slots, (held + waiting) / slots) if slots else (0.0, 0.0)
        figures = {
            "kv_cache_usage_perc": usage,
            "num_requests_running": float(sum(each.running for each in counted)),
            "num_requests_waiting": float(waiting),
        }
        return cls(utilization, figures)

    def text(self) -> str:
        """Return the report as pairs, those of `named_metrics` with this prefix."""
        pairs = {"application_utilization": self.application_utilization}
        pairs |= {f"named_metrics.{name}": value for name, value in self.named_metrics.items()}
        return "TEXT " + ", ".join(f"{name}={value:.6g}" for name, value in pairs.items())

    def json(self) -> str:
        """Return the report as JSON."""
        return "JSON " + json.dumps(asdict(self))
