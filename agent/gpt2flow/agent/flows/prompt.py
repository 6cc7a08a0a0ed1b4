"""Prompt format: state, latest actions, message and results so far.

    <|state|>member cart<|past|>find_product ok<|user|>two of those<|act|>{"action":…}<|result|>ok…

The prompt of a turn only grows, so that the server can reuse its prefix cache.
"""

import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from gpt2flow.agent.flows.schema import Shared

STATE, PAST, USER, EVENT, ACT, RESULT, END = (
    "<|state|>",
    "<|past|>",
    "<|user|>",
    "<|event|>",
    "<|act|>",
    "<|result|>",
    "<|endoftext|>",
)
SPECIAL_TOKENS = (END, STATE, PAST, USER, EVENT, ACT, RESULT)
DONE = "done"
# Stands for a slot in the question "did you mean …?".
CONFIRMATION = "confirmation"
# Earlier actions in the prompt.
MAX_PAST = 3

_WHITESPACE = re.compile(r"\s+")
# Unicode categories: control, format, surrogate and private-use characters.
_DROPPED_CATEGORIES = ("Cc", "Cf", "Cs", "Co")
# The grammar copies slot values from the message into JSON verbatim, so the
# message must not contain characters that JSON escapes.
_REPLACEMENTS = str.maketrans({'"': "'", "\\": "/"})
# Ends of a clause, which a value copied from a message may drag along.
_PUNCTUATION = " ,;:.!?，；：。！？、"

# A text in capitals: its least number of letters, and the share of capitals among them.
_MIN_SHOUTED, _SHOUTED_SHARE = 12, 0.8

# Result of an action: it succeeded, policy refused it, the agent asked the customer for a slot or
# whether the action is meant, or the action is not legal in this state.
Result = Literal["ok", "refused", "asked", "blocked"]
Arguments = dict[str, str | int]


def normalize(text: str) -> str:
    """Return `text` in NFKC on one line, without characters that JSON escapes.

    Control and format characters are removed, and each run of white space becomes
    one space. `<|` is split, so that no message can spell a special token.
    """
    text = "".join(
        c for c in text if c.isspace() or unicodedata.category(c) not in _DROPPED_CATEGORIES
    )
    text = _WHITESPACE.sub(" ", unicodedata.normalize("NFKC", text))
    return text.translate(_REPLACEMENTS).replace("<|", "< |").strip()


def calm(text: str) -> str:
    """Return a text in lower case if it shouts.

    Models know few words in capitals.
    """
    letters = [c for c in text if c.isalpha() and c.lower() != c.upper()]
    capitals = sum(map(str.isupper, letters))
    is_shouted = len(letters) >= _MIN_SHOUTED and capitals > _SHOUTED_SHARE * len(letters)
    return text.lower() if is_shouted and len(text.lower()) == len(text) else text


def language(text: str) -> str:
    """Return `zh` for text with Chinese characters, else `en`."""
    return "zh" if any("\u4e00" <= c <= "\u9fff" for c in text) else "en"


@dataclass(frozen=True)
class PromptState:
    """State at the start of a turn, as the model reads it.

    Attributes:
        facts: Facts that hold.
        awaiting: Action and slot of the agent's open question, if there is one.
        past: Actions of earlier messages with their results, oldest first.
    """

    facts: frozenset[str]
    awaiting: tuple[str, str] | None = None
    past: tuple[tuple[str, str], ...] = ()

    def line(self, shared: Shared) -> str:
        """Return the state line, with the facts in the order of `shared`."""
        words = [fact for fact in shared.facts if fact in self.facts]
        if self.awaiting:
            words += ["awaiting", *self.awaiting]
        return " ".join(words)


@dataclass(frozen=True)
class Choice:
    """Action that the model chose.

    Attributes:
        action: Name of the action, or `done`.
        arguments: Slot values, by name.
        confidence: Probability that the model gave the choice, from 0 to 1.
    """

    action: str
    arguments: Arguments = field(default_factory=dict)
    confidence: float = field(default=1.0, compare=False)

    @property
    def text(self) -> str:
        """JSON text that the model generates for the choice."""
        return json.dumps(
            {"action": self.action, **self.arguments}, ensure_ascii=False, separators=(",", ":")
        )

    def is_part_of(self, other: "Choice") -> bool:
        """Return whether `other` is the same action with at least these arguments.

        Texts may differ in case.
        """
        mine, others = _folded(self.arguments), _folded(other.arguments)
        return self.action == other.action and mine.items() <= others.items()

    @classmethod
    def parse(cls, text: str, confidence: float = 1.0) -> "Choice":
        """Parse generated JSON.

        Strings are stripped of surrounding spaces and of the punctuation that followed them in the
        message. Empty ones are dropped.
        """
        data = json.loads(text)
        action = data.pop("action")
        values = {k: _trim(v) if isinstance(v, str) else v for k, v in data.items()}
        return cls(action, {k: v for k, v in values.items() if v != ""}, confidence)


def _folded(arguments: Arguments) -> dict[str, str]:
    return {slot: str(value).casefold() for slot, value in arguments.items()}


def _trim(value: str) -> str:
    return value.strip().rstrip(_PUNCTUATION)


def first_prompt(shared: Shared, state: PromptState, message: str, event: str | None = None) -> str:
    """Return the prompt for the first action of a turn.

    Args:
        shared: Shared definitions, which give the order of the facts.
        state: State at the start of the turn.
        message: Normalized message, or the subject of the event.
        event: Name of the event; None for a customer message.
    """
    source = f"{USER}{message}" if event is None else f"{EVENT}{event} {message}"
    past = ", ".join(f"{action} {result}" for action, result in state.past[-MAX_PAST:])
    return f"{STATE}{state.line(shared)}{PAST if past else ''}{past}{source}{ACT}"


def extend_prompt(prompt: str, choice: Choice, result: Result) -> str:
    """Return the prompt extended by a choice and its result."""
    return f"{prompt}{choice.text}{RESULT}{result}{ACT}"


def document(
    shared: Shared,
    state: PromptState,
    message: str,
    steps: Collection[tuple[Choice, Result]],
    event: str | None = None,
) -> str:
    """Return a complete turn as a training document.

    Args:
        shared: Shared definitions, which give the order of the facts.
        state: State at the start of the turn.
        message: Normalized message, or the subject of the event.
        steps: Choices of the turn with their results.
        event: Name of the event; None for a customer message.
    """
    text = first_prompt(shared, state, message, event)
    for choice, result in steps:
        text = extend_prompt(text, choice, result)
    return text + Choice(DONE).text + END
