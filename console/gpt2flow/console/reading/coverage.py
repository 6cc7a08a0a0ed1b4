"""Coverage of the flows: which actions and outcomes the shop has seen."""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import ExecutedAction
from gpt2flow.agent.wording import Language


@dataclass(frozen=True)
class OutcomeCount:
    """Outcome of an action, with how often it was seen."""

    name: str
    count: int


@dataclass(frozen=True)
class ActionCount:
    """Action of a flow.

    Attributes:
        name: Name of the action.
        count: Number of times that it was executed.
        outcomes: Its outcomes, in the order of the flow file.
        without_outcome: Number of times that it asked or was refused instead.
    """

    name: str
    count: int
    outcomes: list[OutcomeCount]
    without_outcome: int


@dataclass(frozen=True)
class FlowCoverage:
    """Coverage of one flow.

    Attributes:
        title: Title of the flow.
        actions: Its actions, in the order of the flow file.
        seen: Number of outcomes that were seen.
        total: Number of outcomes.
    """

    title: str
    actions: list[ActionCount]
    seen: int
    total: int


def coverage(db: Session, book: FlowBook, language: Language) -> list[FlowCoverage]:
    """Return the coverage of each flow.

    Args:
        db: Session on the shop.
        book: Loaded flows.
        language: Language of the titles.
    """
    query = select(ExecutedAction.action, ExecutedAction.outcome, func.count()).group_by(
        ExecutedAction.action, ExecutedAction.outcome
    )
    counts: Counter[tuple[str, str | None]] = Counter()
    for action, outcome, count in db.execute(query):
        counts[action, outcome] += count
    return [
        _flow(flow.title[language], list(flow.actions), book, counts)
        for flow in book.flows.values()
    ]


def _flow(
    title: str, actions: list[str], book: FlowBook, counts: Counter[tuple[str, str | None]]
) -> FlowCoverage:
    found = [_action(action, list(book.actions[action].outcomes), counts) for action in actions]
    outcomes = [outcome for each in found for outcome in each.outcomes]
    return FlowCoverage(
        title=title,
        actions=found,
        seen=sum(outcome.count > 0 for outcome in outcomes),
        total=len(outcomes),
    )


def _action(name: str, outcomes: list[str], counts: Counter[tuple[str, str | None]]) -> ActionCount:
    named = [OutcomeCount(outcome, counts[name, outcome]) for outcome in outcomes]
    total = sum(count for (action, _), count in counts.items() if action == name)
    return ActionCount(
        name=name,
        count=total,
        outcomes=named,
        without_outcome=total - sum(outcome.count for outcome in named),
    )
