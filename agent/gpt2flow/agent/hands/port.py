"""Interface of hands: they carry an action out where people do."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.wording import Language

# Entry of a stored task with the names of what is not stored.
_WITHHELD = "withheld"


@dataclass(frozen=True)
class ScreenTask:
    """Action to carry out on the screens, with its expected outcome.

    Attributes:
        key: Idempotency key of the action.
        session: Id of the conversation.
        customer: Id of the customer who was logged in before; None if nobody was.
        language: Language of the screens.
        message: Message of the customer, or subject of the event.
        action: Name of the action.
        arguments: Arguments that the model chose.
        confidence: Confidence of the model, from 0 to 1.
        wish: Wish in whose place the action is taken; None for the wish itself.
        is_detour: Whether the action is on the way to a wish that is resumed later.
        used: Arguments to carry it out with.
        outcome: Outcome that is expected.
        is_success: Whether that outcome is a success.
        fields: Fields that its message would have.
        is_event: Whether an event asks for it, and no message.
        is_sent: Whether the shop sends that message to a contact.
        last_message: Id of the latest message in the outbox before.
    """

    key: str
    session: str
    customer: int | None
    language: Language
    message: str
    action: str
    arguments: Arguments
    confidence: float
    wish: str | None
    is_detour: bool
    used: Arguments
    outcome: str
    is_success: bool
    fields: Mapping[str, str | int]
    is_event: bool
    is_sent: bool
    last_message: int

    def to_json(self, secrets: Collection[str]) -> dict[str, Any]:
        """Return the task as JSON, without message and secret values.

        Args:
            secrets: Names of slots and fields whose values are secret.
        """
        content = asdict(self)
        del content["message"]
        for part in ("arguments", "used", "fields"):
            values = content[part].items()
            content[part] = {name: value for name, value in values if name not in secrets}
        return content | {_WITHHELD: sorted(self.used.keys() & set(secrets))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], message: str, given: Arguments) -> Self:
        """Return the task of a JSON object.

        Args:
            content: Object that `to_json` returned.
            message: Message of the customer, or subject of the event.
            given: Arguments of the request, which have the secret values.
        """
        fields = dict(content)
        withheld = {name: given[name] for name in fields.pop(_WITHHELD) if name in given}
        for part in ("arguments", "used"):
            fields[part] = fields[part] | withheld
        return cls(**fields, message=message)


@dataclass(frozen=True)
class ScreenOutcome:
    """Outcome that the screen showed.

    Attributes:
        name: Name of the outcome.
        fields: Fields of its message, as the screen showed them.
    """

    name: str
    fields: Mapping[str, str | int]


class ScreenNeededError(Exception):
    """End of a transaction: the action is for the screens.

    Args:
        task: What to do there.
    """

    def __init__(self, task: ScreenTask) -> None:
        super().__init__(task.key)
        self.task = task


class Hands(Protocol):
    """Hands of the agent outside the database."""

    def outcomes(self, action: str, language: Language) -> frozenset[str]:
        """Return the outcomes that the screens show, if any."""

    def carry_out(self, task: ScreenTask) -> ScreenOutcome:
        """Carry an action out once per key, and keep its outcome.

        Raises:
            ScreenStopped: The screens are not as expected; a person has to look.
            DatabaseError: The database failed.
        """

    def close(self) -> None:
        """Release what the hands hold."""
