"""Loads a folder of flows and answers what is legal when."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows.schema import Action, Flow, Shared, Slot

_Model = TypeVar("_Model", bound=BaseModel)
# The pure Python loader takes a fifth of a second for the shipped flows, ten
# times as long; libyaml may be missing where PyYAML was built without it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def holds(conditions: Iterable[str], facts: Collection[str]) -> bool:
    """Say whether all conditions, each `fact` or `not fact`, hold."""
    return all(
        c.removeprefix("not ") not in facts if c.startswith("not ") else c in facts
        for c in conditions
    )


@dataclass(frozen=True)
class FlowBook:
    """All flows of one agent."""

    shared: Shared
    flows: dict[str, Flow]

    @cached_property
    def actions(self) -> dict[str, Action]:
        """Every action by its name."""
        return {name: a for flow in self.flows.values() for name, a in flow.actions.items()}

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """Every slot by its name."""
        return self.shared.slots | {
            name: s for flow in self.flows.values() for name, s in flow.slots.items()
        }

    @cached_property
    def flow_of(self) -> dict[str, Flow]:
        """The flow of each action."""
        return {name: flow for flow in self.flows.values() for name in flow.actions}

    def policy(self, action: str) -> dict[str, int | str]:
        """The policies of the flow that `action` belongs to."""
        return self.flow_of[action].policies

    def legal(self, facts: Collection[str], event: str | None = None) -> list[str]:
        """The actions that may be chosen in this state, for a message or an event."""
        return [
            name for name, a in self.actions.items() if a.event == event and holds(a.when, facts)
        ]

    def resolve(self, action: str, facts: Collection[str]) -> str:
        """The action that answers a wish for `action`: itself, or its fallback."""
        spec = self.actions[action]
        if holds(spec.when, facts):
            return action
        for fallback in spec.otherwise:
            if holds(fallback.when, facts):
                return self.resolve(fallback.action, facts)
        raise FlowError(f"action {action}: no fallback for the state {sorted(facts)}")

    def apply(self, action: str, facts: Collection[str]) -> frozenset[str]:
        """The facts after `action` has succeeded, as its effects declare."""
        effects = self.actions[action].effects
        return (frozenset(facts) - set(effects.remove)) | set(effects.add)


def load_flows(folder: Path | None = None) -> FlowBook:
    """Load `shared.yaml` and every `*/flow.yaml` of a folder.

    Args:
        folder: where the flows are; None is the folder that ships.

    Raises:
        FlowError: a file is missing, is no YAML, or says something invalid.
    """
    folder = folder or Path(__file__).parent
    shared = _load(folder / "shared.yaml", Shared)
    paths = sorted(folder.glob("*/flow.yaml"))
    if not paths:
        raise FlowError(f"{folder}: no flow, expected */flow.yaml")
    flows = [_load(path, Flow) for path in paths]
    book = FlowBook(shared, {flow.flow: flow for flow in flows})
    for path, flow in zip(paths, flows, strict=True):
        _check_names(path, flow, book)
    return book


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        text = path.read_text(encoding="utf-8")
        data: Any = yaml.load(text, _Loader)  # noqa: S506 - either loader is a safe one
        return model.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FlowError(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise FlowError(f"{path}: field {field or '(all)'}: {first['msg']}") from error


def _check_names(path: Path, flow: Flow, book: FlowBook) -> None:
    """Hold that all that the flow names exists."""
    facts = book.shared.facts
    for name, action in flow.actions.items():
        conditions = [*action.when, *(c for f in action.otherwise for c in f.when)]
        named = [c.removeprefix("not ") for c in conditions]
        for fact in [*named, *action.effects.add, *action.effects.remove]:
            if fact not in facts:
                raise FlowError(f"{path}: action {name}: no fact {fact!r}, only {sorted(facts)}")
        for slot in action.slots:
            if slot not in book.slots:
                raise FlowError(f"{path}: action {name}: no slot {slot!r}")
        for fallback in action.otherwise:
            if fallback.action not in book.actions:
                raise FlowError(f"{path}: action {name}: no action {fallback.action!r}")
        if book.flow_of[name] is not flow:
            raise FlowError(f"{path}: action {name} stands in another flow too")
