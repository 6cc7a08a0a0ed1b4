"""What a turn did, as data that survives a restart and prints as JSON."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_serializer

from gpt2flow.agent.flows.prompt import Arguments, Result


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class MessageSent(_Record):
    """A message in the outbox; `to` is a contact, or None for the session."""

    to: str | None
    language: str
    text: str


class RowChange(_Record):
    """A row of the shop that an action wrote; `values` are the new ones."""

    table: str
    key: dict[str, Any]
    change: Literal["insert", "update", "delete"]
    values: dict[str, Any]


class Timer(_Record):
    """A case that a person has to take up at an instant."""

    case: int
    due: datetime


class ActionReport(_Record):
    """One action: as the model chose it (`arguments`) and as it was carried out (`used`).

    `outcome` is the flow's name for how it ended; `asked` is the slot that the
    customer was asked for instead.
    """

    action: str
    arguments: Arguments
    used: Arguments
    result: Result
    outcome: str | None = None
    asked: str | None = None
    messages: list[MessageSent] = []
    changes: list[RowChange] = []


class Step(_Record):
    """An action's report, and what the turn needs to go on after it."""

    report: ActionReport
    facts: frozenset[str]
    raised: tuple[str, str] | None = None
    timers: list[Timer] = []

    @property
    def result(self) -> Result:
        """What the model is told."""
        return self.report.result

    @field_serializer("facts")
    def _in_order(self, facts: frozenset[str]) -> list[str]:
        return sorted(facts)


class CallReport(_Record):
    """What one question to the model cost."""

    milliseconds: float
    prompt_tokens: int
    completion_tokens: int


class EventReport(_Record):
    """What followed from an event; `postponed` says why it is tried again later."""

    event: str
    subject: str
    actions: list[ActionReport]
    postponed: str | None = None


class TurnReport(_Record):
    """Everything that came of one message of a customer."""

    session: str
    message_id: str
    message: str
    language: str
    actions: list[ActionReport]
    events: list[EventReport] = []
    calls: list[CallReport]
    milliseconds: float = 0.0

    @property
    def messages(self) -> list[MessageSent]:
        """All that was sent, in order."""
        of_events = [action for event in self.events for action in event.actions]
        return [sent for action in [*self.actions, *of_events] for sent in action.messages]
