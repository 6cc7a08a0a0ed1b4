"""The text that the model reads: state, message, and the results so far.

    <|state|>member cart<|user|>two kettles please<|act|>{"action":…}<|result|>ok<|act|>…

The text of a turn only grows, so that a server can reuse the cache of what it
has read already.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from gpt2flow.agent.flows.schema import Shared

STATE, USER, EVENT, ACT, RESULT, END = (
    "<|state|>",
    "<|user|>",
    "<|event|>",
    "<|act|>",
    "<|result|>",
    "<|endoftext|>",
)
SPECIAL_TOKENS = (END, STATE, USER, EVENT, ACT, RESULT)
DONE = "done"

# What an action came to: it was done, policy refused it, or the customer was
# asked for a slot that the message left out.
Result = Literal["ok", "refused", "asked"]
Arguments = dict[str, str | int]


@dataclass(frozen=True)
class Situation:
    """What is true at the start of a turn.

    `awaiting` is the action and the slot that the agent has just asked for.
    """

    facts: frozenset[str]
    awaiting: tuple[str, str] | None = None

    def line(self, shared: Shared) -> str:
        """The state line, facts in the order of `shared`."""
        words = [fact for fact in shared.facts if fact in self.facts]
        if self.awaiting:
            words += ["awaiting", *self.awaiting]
        return " ".join(words)


@dataclass(frozen=True)
class Choice:
    """An action that the model chose, with its arguments."""

    action: str
    arguments: Arguments = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The JSON that the model writes for it."""
        return json.dumps(
            {"action": self.action, **self.arguments}, ensure_ascii=False, separators=(",", ":")
        )

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """Read what the model wrote; spans lose outer blanks, empty ones are left out."""
        data = json.loads(text)
        action = data.pop("action")
        values = {k: v.strip() if isinstance(v, str) else v for k, v in data.items()}
        return cls(action, {k: v for k, v in values.items() if v != ""})


def opening(shared: Shared, situation: Situation, message: str, event: str | None = None) -> str:
    """The prompt of a turn's first action.

    Args:
        shared: gives the order of facts.
        situation: what is true.
        message: the normalised message; what the event is about, for an event.
        event: the name of the event, if no customer speaks.
    """
    source = f"{USER}{message}" if event is None else f"{EVENT}{event} {message}"
    return f"{STATE}{situation.line(shared)}{source}{ACT}"


def continuation(choice: Choice, result: Result) -> str:
    """What one action and its result add to the prompt of the next."""
    return f"{choice.text}{RESULT}{result}{ACT}"


def document(
    shared: Shared,
    situation: Situation,
    message: str,
    steps: Collection[tuple[Choice, Result]],
    event: str | None = None,
) -> str:
    """A whole turn, as the model is trained on it."""
    text = opening(shared, situation, message, event)
    return text + "".join(continuation(*step) for step in steps) + Choice(DONE).text + END
