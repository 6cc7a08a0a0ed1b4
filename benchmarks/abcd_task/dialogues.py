"""Dialogues of ABCD: reading, the button of each action, and floors.

A file has a line `SYS:` per utterance of the agent, `USR:` per utterance of the customer and `ACT:`
per button that the agent pressed, with the sentence that the button printed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gpt2flow.agent.flows.prompt import END
from gpt2flow.training.errors import CorpusError

Speaker = Literal["SYS", "USR", "ACT"]

_SEARCHES = ("boots", "jacket", "jeans", "shirt", "membership", "policy", "pricing", "timing")
# The beginning of what each button prints. Names have underscores, as the actions of flows do, so
# that the vocabulary may have each as one token.
_SENTENCES = {
    "Account has been pulled up": "pull_up_account",
    "Identity verification": "verify_identity",
    "Purchase validation": "validate_purchase",
    "Querying the system for an answer": "ask_the_oracle",
    "Querying the system for subscription status": "subscription_status",
    "Membership level of": "membership",
    "Shipping status of": "shipping_status",
    "A reason of": "record_reason",
    "Details of": "enter_details",
    "Order has been updated": "update_order",
    "Account has been updated": "update_account",
    "A purchase of": "make_purchase",
    "A refund has been made": "offer_refund",
    "A promo code has been created": "promo_code",
    "A password has been generated": "make_password",
    "A link will be sent": "send_link",
    # The buttons try-again, log-out-in and instructions print this sentence.
    "Agent is looking for solutions": "try_again",
    "Searching the FAQ pages": "search_faq",
    "FAQ answer related to": "select_faq",
    **{f"System Action: search {subject}": f"search_{subject}" for subject in _SEARCHES},
    # The team stands in the middle: "The website team has been notified."
    "The ": "notify_team",
}
BUTTONS = tuple(sorted(set(_SENTENCES.values())))
FLOORS = {"commonest": 0, "after_previous": 1, "after_previous_two": 2}
"""Earlier buttons that each floor uses, by its name."""


@dataclass(frozen=True)
class Line:
    """Line of a dialogue.

    Attributes:
        speaker: Agent (`SYS`), customer (`USR`) or pressed button (`ACT`).
        text: Utterance, or what the button printed.
        button: Name of the button; empty for an utterance.
    """

    speaker: Speaker
    text: str
    button: str = ""


Dialogue = tuple[Line, ...]


@dataclass(frozen=True)
class Decision:
    """Button that the agent pressed, with what it knew.

    Attributes:
        before: Earlier lines of the dialogue.
        button: Button that the agent pressed.
        later: Buttons that it pressed afterwards.
    """

    before: Dialogue
    button: str
    later: tuple[str, ...] = ()

    @property
    def earlier(self) -> list[str]:
        """Buttons that the agent had pressed before."""
        return pressed(self.before)


def button_of(sentence: str) -> str | None:
    """Return the button that prints a sentence, None if no button does."""
    return next((name for start, name in _SENTENCES.items() if sentence.startswith(start)), None)


def pressed(lines: Iterable[Line]) -> list[str]:
    """Return the buttons of lines, in order."""
    return [line.button for line in lines if line.button]


def read_dialogues(path: Path, limit: int | None = None) -> list[Dialogue]:
    """Read a file of dialogues.

    Args:
        path: Text file, whose dialogues end with `<|endoftext|>`.
        limit: Most dialogues to read; None reads all.

    Raises:
        CorpusError: The file is not text, has no action, or a line is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text, at byte {error.start}") from error
    dialogues: list[Dialogue] = []
    number = 1
    for part in text.split(END):
        numbered = enumerate(part.split("\n"), number)
        lines = tuple(_parse(path, where, line.strip()) for where, line in numbered if line.strip())
        number += part.count("\n")
        if lines:
            dialogues.append(lines)
    dialogues = dialogues[:limit]
    if not any(pressed(dialogue) for dialogue in dialogues):
        raise CorpusError(f"{path}: no action found, expected lines that start with ACT:")
    return dialogues


def _parse(path: Path, number: int, text: str) -> Line:
    for speaker in get_args(Speaker):
        if text.startswith(f"{speaker}:"):
            break
    else:
        raise CorpusError(f"{path}:{number}: {text[:40]!r} starts with none of SYS:, USR:, ACT:")
    said = text.removeprefix(f"{speaker}:").strip()
    if speaker != "ACT":
        return Line(speaker, said)
    button = button_of(said)
    if button is None:
        raise CorpusError(f"{path}:{number}: {said[:40]!r} is printed by none of the buttons")
    return Line(speaker, said, button)


def decisions(dialogues: Iterable[Dialogue]) -> Iterator[Decision]:
    """Yield each action of the dialogues with the lines before it."""
    for dialogue in dialogues:
        for position, line in enumerate(dialogue):
            if line.button:
                later = tuple(pressed(dialogue[position + 1 :]))
                yield Decision(dialogue[:position], line.button, later)


def fit_floor(train: Iterable[Decision], known: int) -> Callable[[Decision], str]:
    """Return a predictor that uses the latest `known` buttons alone.

    It chooses the button that follows them most often. Where the training set lacks them, it goes
    by fewer.
    """
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for decision in train:
        for length in range(known + 1):
            counts[_latest(decision, length)][decision.button] += 1

    def predict(decision: Decision) -> str:
        seen = (_latest(decision, length) for length in range(known, -1, -1))
        return counts[next(key for key in seen if key in counts)].most_common(1)[0][0]

    return predict


def _latest(decision: Decision, length: int) -> tuple[str, ...]:
    """Return the latest buttons, with empty ones before the first."""
    return tuple(["", "", *decision.earlier][-length:]) if length else ()


def recalls(test: Sequence[Decision], predicted: Sequence[str]) -> dict[str, float]:
    """Return the share of right predictions, by the button that was pressed."""
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for decision, button in zip(test, predicted, strict=True):
        count[decision.button] += 1
        right[decision.button] += button == decision.button
    return {button: right[button] / count[button] for button in sorted(count)}
