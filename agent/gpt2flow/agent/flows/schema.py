"""What a flow file may say.

A flow is data: its actions, their slots and legal order, its policies and the
wording of its messages. Policy is applied by code, order by the grammar.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gpt2flow.agent.flows.slots import SlotKind

Wording = dict[Literal["en", "zh"], str]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Slot(_Part):
    """A value that an action takes."""

    kind: SlotKind
    ask: Wording
    values: list[str] = []

    @model_validator(mode="after")
    def _enum_has_values(self) -> Self:
        if (self.kind is SlotKind.ENUM) != bool(self.values):
            raise ValueError("`values` belongs to kind `enum`, and only there")
        return self


class Outcome(_Part):
    """One way in which an action ends, and what the customer is told."""

    result: Literal["ok", "refused"]
    message: Wording | None = None


class Effects(_Part):
    """The facts that change when the action succeeds."""

    add: list[str] = []
    remove: list[str] = []


class Fallback(_Part):
    """The action that answers the wish where the wished action is not legal."""

    when: list[str]
    action: str


class Action(_Part):
    """Something the model may choose to do.

    `when` and a fallback's `when` list conditions that all must hold: a fact,
    or `not` and a fact.
    """

    operation: str
    event: str | None = Field(None, description="the event it answers; none: a message")
    slots: list[str] = []
    required: list[str] = []
    when: list[str] = []
    otherwise: list[Fallback] = []
    effects: Effects = Effects()
    raises: str | None = Field(None, description="the event that success raises")
    compensation: str | None = Field(None, description="the operation that undoes it")
    outcomes: dict[str, Outcome]

    @model_validator(mode="after")
    def _required_slots_exist(self) -> Self:
        if unknown := set(self.required) - set(self.slots):
            raise ValueError(f"`required` names {sorted(unknown)}, which `slots` does not list")
        return self


class Flow(_Part):
    """One business process."""

    flow: str
    title: Wording
    slots: dict[str, Slot] = {}
    policies: dict[str, int | str] = {}
    answers: dict[str, Wording] = {}
    actions: dict[str, Action]


class Shared(_Part):
    """What all flows share: facts with their meaning, and slots."""

    facts: dict[str, str]
    slots: dict[str, Slot]
