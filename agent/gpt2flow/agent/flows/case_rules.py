"""Schema of `cases.yaml`: how cases are looked after, and what people are told about them."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from gpt2flow.agent.flows.schema import Wording
from gpt2flow.files.documents import StrictModel


class Deadlines(StrictModel):
    """Minutes until a case that nobody has taken changes, each from the change before.

    Attributes:
        remind: Minutes until the staff is reminded of it.
        escalate: Minutes from then until it is escalated.
        expire: Minutes from then until it expires.
    """

    remind: int = Field(gt=0)
    escalate: int = Field(gt=0)
    expire: int = Field(gt=0)


# Messages about cases: the first six are to customers, the others to the staff.
CaseMessage = Literal[
    "approved",
    "approved_amount",
    "rejected",
    "replied",
    "taken",
    "expired",
    "due",
    "reminded",
    "escalated",
    "written",
]


class CaseRules(StrictModel):
    """How cases are looked after.

    Attributes:
        deadlines: Deadlines by status in the inbox.
        staff_language: Language of messages to the staff.
        messages: Message templates, by what happened.
    """

    deadlines: dict[Literal["open", "awaiting_approval", "due"], Deadlines]
    staff_language: Literal["en", "zh"] = "en"
    messages: dict[CaseMessage, Wording]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for name, given, needed in (
            ("deadlines", set(self.deadlines), {"open", "awaiting_approval", "due"}),
            ("messages", set(self.messages), set(get_args(CaseMessage))),
        ):
            if missing := needed - given:
                raise ValueError(f"`{name}` lacks {sorted(missing)}")
        return self
