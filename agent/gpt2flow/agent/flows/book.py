"""Loader of flow folders, and queries on the loaded flows."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows.case_rules import CaseRules
from gpt2flow.agent.flows.schema import Action, Fallback, Flow, Shared, Slot
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.files.documents import read_yaml

_CASES = "cases.yaml"


def holds(conditions: Iterable[str], facts: Collection[str]) -> bool:
    """Return whether the facts satisfy all conditions, each `fact` or `not fact`."""
    return all(
        c.removeprefix("not ") not in facts if c.startswith("not ") else c in facts
        for c in conditions
    )


@dataclass(frozen=True)
class FlowBook:
    """All flows of one agent.

    Attributes:
        shared: Facts and slots that all flows share.
        flows: Flows by name.
        cases: How cases are looked after.
    """

    shared: Shared
    flows: dict[str, Flow]
    cases: CaseRules

    @cached_property
    def actions(self) -> dict[str, Action]:
        """Actions of all flows, by name."""
        return {name: a for flow in self.flows.values() for name, a in flow.actions.items()}

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """Slots of all flows, by name."""
        return self.shared.slots | {
            name: s for flow in self.flows.values() for name, s in flow.slots.items()
        }

    @cached_property
    def flow_of(self) -> dict[str, Flow]:
        """Flow of each action, by the name of the action."""
        return {name: flow for flow in self.flows.values() for name in flow.actions}

    def legal(self, facts: Collection[str], event: str | None = None) -> list[str]:
        """Return the names of the actions that are legal in a state.

        Args:
            facts: Facts that hold.
            event: Event to handle; None for a customer message.
        """
        return [
            name for name, a in self.actions.items() if a.event == event and holds(a.when, facts)
        ]

    @cached_property
    def wishes(self) -> list[str]:
        """Names of the actions that a customer may wish."""
        return [name for name, action in self.actions.items() if action.event is None]

    @cached_property
    def later_wishes(self) -> list[str]:
        """Names of the wishes that may follow another in a message."""
        return [name for name in self.wishes if not self.actions[name].opens]

    @cached_property
    def outcomes(self) -> frozenset[str]:
        """Names of all outcomes, as `flow.action.outcome`."""
        return frozenset(
            f"{flow.flow}.{action}.{outcome}"
            for flow in self.flows.values()
            for action, spec in flow.actions.items()
            for outcome in spec.outcomes
        )

    def taking(self, names: Iterable[str], kind: SlotKind) -> list[str]:
        """Return the actions among `names` that take a slot of a kind."""
        return [n for n in names if any(self.slots[s].kind is kind for s in self.actions[n].slots)]

    @cached_property
    def secret_slots(self) -> frozenset[str]:
        """Slots whose values nobody but the customer may see."""
        return frozenset(name for name, s in self.slots.items() if s.kind is SlotKind.CODE)

    def fallback(
        self, action: str, facts: Collection[str], given: Collection[str] | None = None
    ) -> Fallback | None:
        """Return the fallback that applies, None for an action to carry out.

        Args:
            action: Action that the customer wishes.
            facts: Facts that hold.
            given: Slots with a value in the wish; None means all.
        """
        spec = self.actions[action]
        is_legal = holds(spec.when, facts)
        for each in spec.otherwise:
            leaves_out = given is not None and not set(each.without) & set(given)
            applies = leaves_out if each.without else not is_legal
            if applies and holds(each.when, facts):
                return each
        return None

    def resolve(self, action: str, facts: Collection[str]) -> str:
        """Return the action to take when a customer requests `action`.

        Returns:
            `action` itself if it is legal, else its first legal fallback.

        Raises:
            FlowError: No fallback is legal in this state.
        """
        spec = self.actions[action]
        if holds(spec.when, facts):
            return action
        for fallback in spec.otherwise:
            if not fallback.without and holds(fallback.when, facts):
                return self.resolve(fallback.action, facts)
        raise FlowError(f"action {action}: no fallback is legal with facts {sorted(facts)}")

    def apply(self, action: str, facts: Collection[str]) -> frozenset[str]:
        """Return the facts after the declared effects of a successful `action`."""
        effects = self.actions[action].effects
        return (frozenset(facts) - set(effects.remove)) | set(effects.add)


def load_flows(folder: Path | None = None) -> FlowBook:
    """Load `shared.yaml`, `cases.yaml` and every `*/flow.yaml` of a folder.

    A folder without `cases.yaml` has the built-in one.

    Args:
        folder: Folder of the flows; None selects the built-in flows.

    Raises:
        FlowError: A file is missing, is not YAML, or has an invalid field.
    """
    built_in = Path(__file__).parent
    folder = folder or built_in
    shared = read_yaml(folder / "shared.yaml", Shared, FlowError, typed=True)
    paths = sorted(folder.glob("*/flow.yaml"))
    if not paths:
        raise FlowError(f"{folder}: no flow found, expected */flow.yaml")
    flows = [read_yaml(path, Flow, FlowError, typed=True) for path in paths]
    has_cases = (folder / _CASES).exists()
    cases_path = (folder if has_cases else built_in) / _CASES
    cases = read_yaml(cases_path, CaseRules, FlowError, typed=True)
    book = FlowBook(shared, {flow.flow: flow for flow in flows}, cases)
    for path, flow in zip(paths, flows, strict=True):
        _check_references(path, flow, book)
    return book


def _check_references(path: Path, flow: Flow, book: FlowBook) -> None:
    """Validate that the facts, slots and actions a flow names exist."""
    facts = book.shared.facts
    for name, action in flow.actions.items():
        conditions = [*action.when, *(c for f in action.otherwise for c in f.when)]
        named = [c.removeprefix("not ") for c in conditions]
        for fact in [*named, *action.effects.add, *action.effects.remove]:
            if fact not in facts:
                raise FlowError(
                    f"{path}: action {name}: unknown fact {fact!r}, expected one of {sorted(facts)}"
                )
        for slot in action.slots:
            if slot not in book.slots:
                raise FlowError(f"{path}: action {name}: unknown slot {slot!r}")
        offers = {outcome.offers for outcome in action.outcomes.values()} - {None}
        if unknown := offers - book.actions.keys():
            raise FlowError(f"{path}: action {name}: `offers` names {sorted(map(str, unknown))}")
        _check_fallbacks(f"{path}: action {name}", action, book)
        if book.flow_of[name] is not flow:
            raise FlowError(f"{path}: action {name} is defined in another flow too; rename one")


def _check_fallbacks(where: str, action: Action, book: FlowBook) -> None:
    for fallback in action.otherwise:
        if fallback.action not in book.actions:
            raise FlowError(f"{where}: unknown fallback action {fallback.action!r}")
        if unknown := set(fallback.without) - set(action.slots):
            raise FlowError(
                f"{where}: `without` names {sorted(unknown)}, expected some of {action.slots}"
            )
