"""Reports of turns, actions and events; they serialize to JSON."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_serializer

from gpt2flow.agent.flows.prompt import Arguments, Result


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class MessageSent(_Record):
    """Message that was written to the outbox.

    Attributes:
        to: Contact of the recipient; None addresses the session.
        language: Language of the text, `en` or `zh`.
        text: Text of the message.
    """

    to: str | None
    language: str
    text: str


class RowChange(_Record):
    """Row of the shop database that an action wrote.

    Attributes:
        table: Name of the table.
        key: Primary key, by column.
        change: Kind of change.
        values: New values of the changed columns; empty for a deletion.
    """

    table: str
    key: dict[str, Any]
    change: Literal["insert", "update", "delete"]
    values: dict[str, Any]


class Timer(_Record):
    """Time of the next change of a case without a person."""

    case: int
    due: datetime


class ActionReport(_Record):
    """Report of one executed action.

    Attributes:
        action: Name of the action.
        arguments: Arguments that the model chose.
        used: Arguments that the operation ran with, defaults included.
        wish: Action that the model chose, if this one took its place because it was not legal.
        resumed: Whether the action fulfils an earlier wish.
        result: Result that the model reads.
        outcome: Outcome of the operation, by its name in the flow file.
        asked: Slot that the customer was asked for instead of running the operation, or
            `confirmation` if they were asked whether this is what they meant.
        messages: Messages that were sent.
        changes: Rows that were written.
    """

    action: str
    arguments: Arguments
    used: Arguments
    wish: str | None = None
    resumed: bool = False
    result: Result
    outcome: str | None = None
    asked: str | None = None
    messages: list[MessageSent] = []
    changes: list[RowChange] = []


class Wanted(_Record):
    """Wish of a customer that the agent still has to fulfil.

    Attributes:
        action: Action that the customer wants.
        arguments: Arguments that the model chose.
        message: Message that expressed the wish.
        confidence: Probability that the model gave the choice, from 0 to 1.
        confirmed: Whether the customer has confirmed it.
    """

    action: str
    arguments: Arguments
    message: str
    confidence: float = 1.0
    confirmed: bool = False


class CountedProduct(_Record):
    """Product that a message asks for by number and name."""

    phrase: str
    quantity: int


class Step(_Record):
    """Report of an action with the state that the turn continues from.

    Attributes:
        report: Report of the action.
        facts: Facts after the action.
        raised: Name and subject of the event that the action raised.
        timers: Timers to set.
        payments: Ids of payments to settle.
        resumable: Earlier wishes that have become legal, oldest first.
        counted: Products that the message asks for by number and name; read beside one of them.
        taken_back: Products that it takes back; read there too.
        attended_by: Person whom the message was passed on to; the action was not carried out.
    """

    report: ActionReport
    facts: frozenset[str]
    raised: tuple[str, str] | None = None
    timers: list[Timer] = []
    payments: list[int] = []
    resumable: list[Wanted] = []
    counted: list[CountedProduct] = []
    taken_back: list[str] = []
    attended_by: str | None = None

    @property
    def result(self) -> Result:
        """Result that the model reads."""
        return "blocked" if self.report.wish is not None else self.report.result

    @field_serializer("facts")
    def _sort_facts(self, facts: frozenset[str]) -> list[str]:
        return sorted(facts)


class CallReport(_Record):
    """Latency and token usage of one model call."""

    milliseconds: float
    prompt_tokens: int
    completion_tokens: int


class EventReport(_Record):
    """Report of one handled event.

    Attributes:
        event: Name of the event.
        subject: Order number that the event concerns.
        actions: Actions that handled the event.
        postponed: Error after which the event is retried; None once it is handled.
    """

    event: str
    subject: str
    actions: list[ActionReport]
    postponed: str | None = None


class TurnReport(_Record):
    """Report of one customer message and the events that it raised.

    Attributes:
        session: Id of the conversation.
        message_id: Id of the message within its session.
        message: Normalized text of the message.
        language: Language of the message, `en` or `zh`.
        actions: Actions that handled the message.
        events: Events that these actions raised.
        calls: Model calls, those for events included.
        attended_by: Person to whom the message went instead of to the model.
        milliseconds: Wall-clock time of the turn.
    """

    session: str
    message_id: str
    message: str
    language: str
    actions: list[ActionReport] = []
    events: list[EventReport] = []
    calls: list[CallReport] = []
    attended_by: str | None = None
    milliseconds: float = 0.0

    @property
    def result(self) -> Literal["handled", "attended"]:
        """Result of the turn, in log, metrics and traces."""
        return "handled" if self.attended_by is None else "attended"

    @property
    def replies(self) -> list[str]:
        """Texts of the messages to the session, in order."""
        return [sent.text for sent in self.messages if sent.to is None]

    @property
    def messages(self) -> list[MessageSent]:
        """All messages that were sent, in order."""
        event_actions = [action for event in self.events for action in event.actions]
        return [sent for action in [*self.actions, *event_actions] for sent in action.messages]
