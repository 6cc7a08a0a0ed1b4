"""Schema of the flow files.

A flow is data: its actions, their slots and legal order, its policies and the
wording of its messages. Code applies the policies; the grammar enforces the order.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.files.documents import StrictModel

# Text by language.
Wording = dict[Literal["en", "zh"], str]
# Words of customers by language; `*` stands for any ending of an English one.
Words = dict[Literal["en", "zh"], list[str]]
# `unsure` asks when the model's margin is low. It is for what costs money, moves goods, changes
# an identity or cannot be undone.
Confirm = Literal["never", "unsure", "always"]


class Slot(StrictModel):
    """Typed argument of an action.

    Attributes:
        kind: Kind of value, which decides how it is found in a message.
        ask: Question to the customer when the value is missing.
        values: Allowed values of an `enum`; empty for other kinds.
        names: Names of such values for people, by value.
        words: Words by which customers name such a value, by value.
    """

    kind: SlotKind
    ask: Wording
    values: list[str] = []
    names: dict[str, Wording] = {}
    words: dict[str, Words] = {}

    @model_validator(mode="after")
    def _enum_has_values(self) -> Self:
        if (self.kind is SlotKind.ENUM) != bool(self.values):
            raise ValueError("`values` is required for kind `enum` and allowed for no other kind")
        if self.names and set(self.names) != set(self.values):
            raise ValueError(f"`names` must name each of {self.values}, and nothing else")
        if unknown := set(self.words) - set(self.values):
            raise ValueError(f"`words` names {sorted(unknown)}; add them to `values`")
        return self


class Outcome(StrictModel):
    """Possible outcome of an action.

    Attributes:
        result: Result that the model reads.
        message: Message template for the customer; None sends no message.
        offers: Action that the message offers. A plain yes accepts it, and it needs no values
            again that the customer has just given.
    """

    result: Literal["ok", "refused"]
    message: Wording | None = None
    offers: str | None = Field(None, description="Action that the message offers, if any.")


class Effects(StrictModel):
    """Facts that a successful action adds and removes."""

    add: list[str] = []
    remove: list[str] = []


class Fallback(StrictModel):
    """Alternative to an action that is not legal, or not meant.

    Attributes:
        when: Conditions under which the fallback applies.
        action: Action to take instead.
        resume: Whether the agent goes on with the original action once that is legal.
        without: Slots that the wish leaves out. Such a fallback applies to a legal action too.
    """

    when: list[str]
    action: str
    resume: bool = False
    without: list[str] = []


class Action(StrictModel):
    """Action that the model may choose.

    Attributes:
        operation: Function that carries out the action.
        event: Event that the action handles; None for a customer message.
        slots: Arguments of the action, in the order in which the model writes them.
        required: Slots that the agent asks for if the message omits them.
        when: Conditions that must all hold, each `fact` or `not fact`.
        otherwise: Fallbacks in states where the action is not legal.
        effects: Facts that change when the action succeeds.
        opens: Whether the action can only be the first of a message.
        words: Words by which customers name the action, by language; `*` stands for any ending of
            an English one. A message that says no to one of them is asked about.
        later_if_named: Whether the action follows another one in a message only if one of its
            words is there.
        confirm: When the agent asks whether the action is meant before it carries it out.
        unsure_below: Confidence below which `unsure` asks, where it is lower than the agent's own.
        question: Template of that question; its fields are those of a successful outcome.
        raises: Event that a successful action raises.
        compensation: Operation that undoes the action.
        outcomes: Possible outcomes, by name.
    """

    operation: str
    event: str | None = Field(None, description="Event that the action handles, if any.")
    slots: list[str] = []
    required: list[str] = []
    when: list[str] = []
    otherwise: list[Fallback] = []
    effects: Effects = Effects()
    opens: bool = Field(default=False, description="The action can only be the first of a message.")
    words: Words = Field({}, description="Words by which customers name the action.")
    later_if_named: bool = Field(
        default=False, description="The action follows another one only if a word names it."
    )
    confirm: Confirm = "unsure"
    unsure_below: float = Field(
        1.0, ge=0.0, le=1.0, description="Confidence below which `unsure` asks."
    )
    question: Wording | None = Field(None, description="Question before the action is carried out.")
    raises: str | None = Field(None, description="Event that a successful action raises.")
    compensation: str | None = Field(None, description="Operation that undoes the action.")
    outcomes: dict[str, Outcome]

    @model_validator(mode="after")
    def _required_slots_exist(self) -> Self:
        if unknown := set(self.required) - set(self.slots):
            raise ValueError(f"`required` names {sorted(unknown)}; add them to `slots`")
        return self


class Flow(StrictModel):
    """Business process.

    Attributes:
        flow: Name of the flow.
        title: Title for people.
        slots: Slots beside the shared ones, by name.
        policies: Limits that operations apply; the model never reads them.
        answers: Answers to questions, by topic.
        actions: Actions of the flow, by name.
    """

    flow: str
    title: Wording
    slots: dict[str, Slot] = {}
    policies: dict[str, int | str] = {}
    answers: dict[str, Wording] = {}
    actions: dict[str, Action]


class Shared(StrictModel):
    """Definitions that all flows share.

    Attributes:
        facts: Meaning of each fact, in the order in which the model reads them.
        slots: Slots that several flows use, by name.
        repeated: Template around a message that equals the one before; its field is `text`.
        deferred: Template around a message on the way to a wish that is resumed later.
    """

    facts: dict[str, str]
    slots: dict[str, Slot]
    repeated: Wording = {"en": "Once more: {text}", "zh": "再说一遍: {text}"}
    deferred: Wording = {"en": "{text}", "zh": "{text}"}
