"""Training documents and prompts of ABCD's decisions.

    <|state|>pull_up_account<|past|>return boots wrong size<|event|>account id<|user|>ID<|act|>
    {"action":"verify_identity"}<|result|>ok<|act|>{"action":"done"}<|endoftext|>

State are the latest buttons, past is how the customer stated the problem, and the latest lines
follow. They have the tokens of the agent's turns, so that training counts the actions in the loss.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from abcd_task.dialogues import Decision, Dialogue, Line, decisions, pressed

from gpt2flow.agent.flows.prompt import (
    ACT,
    DONE,
    END,
    EVENT,
    PAST,
    STATE,
    USER,
    Choice,
    extend_prompt,
)

# Stands for the buttons in documents that state a whole procedure.
_PROCEDURE = "procedure"
# The most buttons in a state.
_STATE_BUTTONS = 6
_OPENERS = {"SYS": EVENT, "USR": USER, "ACT": PAST}
# One mark stands for all values of a kind; a thousand dialogues do not have the same value twice.
_MARKS = (
    ("EMAIL", re.compile(r"\S*@\S+")),
    ("ID", re.compile(r"\b(?:(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z\d]{9,11}|[A-Z]{10})\b")),
    ("PHONE", re.compile(r"\(?\b\d{3}\)?[ -]?\d{3}-\d{4}\b")),
    ("ORDER", re.compile(r"\b\d{9,11}\b")),
    ("USERNAME", re.compile(r"\b[A-Za-z]{2,}\d+\b")),
    ("ZIP", re.compile(r"\b\d{5}\b")),
    ("AMOUNT", re.compile(r"\$ ?\d+(?:\.\d+)?|\b\d+(?:\.\d+)? ?(?:\$|dollars?\b)")),
    ("NUMBER", re.compile(r"\d+")),
)
_MARK_NAMES = frozenset(["NAME", *(name for name, _ in _MARKS)])
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
# Left out of prompts: every word costs two tokens, and these decide no button.
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an the is are was to of and i i'm i'd i've am you your me my it it's "
        "its that this in on for with can could would will do does have has had be been "
        "please so just at or if as we our hi hello hey"
    )
)
_ACCOUNT = "Account has been pulled up for "
# Fewest dialogues with a name; fewer are slips of the hand.
_NAME_COUNT = 3


@dataclass(frozen=True)
class View:
    """Part of a dialogue that a prompt shows.

    Attributes:
        problem_words: Most words of the customer's first lines.
        recent_lines: Most lines from the end.
        recent_words: Most words of these lines.
        dropped_lines: Share of the lines that is left out, except for the last.
        dropped_words: Share of the words that is left out.
    """

    problem_words: int = 30
    recent_lines: int = 8
    recent_words: int = 48
    dropped_lines: float = 0.0
    dropped_words: float = 0.0


VIEWS = (
    View(),
    View(recent_lines=5),
    View(recent_lines=12, recent_words=60),
    View(problem_words=18),
    View(recent_lines=3),
)
"""Views that prediction may average over; the first is that of a single one."""


def sample_view(rng: random.Random) -> View:
    """Return a random view, with lines and words left out."""
    recent_lines = rng.randint(3, 12)
    return View(rng.randint(16, 34), recent_lines, 5 * recent_lines + 8, 0.1, rng.choice((0, 0.1)))


def find_names(dialogues: Iterable[Dialogue]) -> frozenset[str]:
    """Return the lower-case words of customers' names, as `pull_up_account` prints them."""
    counts: Counter[str] = Counter()
    for dialogue in dialogues:
        texts = {line.text for line in dialogue if line.text.startswith(_ACCOUNT)}
        counts.update(word for text in texts for word in _split(text.removeprefix(_ACCOUNT)))
    return frozenset(
        word
        for word, count in counts.items()
        if count >= _NAME_COUNT and word not in _MARK_NAMES | _STOP_WORDS and len(word) > 1
    )


def _split(text: str) -> list[str]:
    """Return a text's words in lower case, with marks for values."""
    for name, pattern in _MARKS:
        text = pattern.sub(f" {name} ", text)
    return [word if word in _MARK_NAMES else word.lower() for word in _WORD.findall(text)]


class PromptWriter:
    """Writer of prompts and documents.

    Args:
        names: Words of customers' names, from `find_names`.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._cache: dict[str, list[str]] = {}

    def words(self, text: str) -> list[str]:
        """Return the words of an utterance that a prompt shows."""
        if text not in self._cache:
            marked = ("NAME" if word in self._names else word for word in _split(text))
            kept = (word for word in marked if word not in _STOP_WORDS)
            # "Crystal Minh" is one name.
            self._cache[text] = [word for word, _ in groupby(kept)]
        return self._cache[text]

    def prompt(
        self, before: Sequence[Line], view: View = VIEWS[0], rng: random.Random | None = None
    ) -> str:
        """Return the prompt for the button after some lines.

        Args:
            before: Earlier lines of the dialogue.
            view: Part of them to show.
            rng: Source of what the view leaves out; None leaves nothing out.
        """
        state = " ".join(pressed(before)[-_STATE_BUTTONS:])
        problem = " ".join(_thin(self._problem(before, view), view, rng))
        recent: list[str] = []
        left = view.recent_words
        for line in reversed(before[-view.recent_lines :]):
            if recent and rng and rng.random() < view.dropped_lines:
                continue
            shown = [line.button] if line.button else _thin(self.words(line.text), view, rng)[:left]
            left = max(0, left - len(shown))
            if shown:
                recent.append(f"{_OPENERS[line.speaker]}{' '.join(shown)}")
        return f"{STATE}{state}{PAST}{problem}{''.join(reversed(recent))}{ACT}"

    def document(
        self,
        decision: Decision,
        ahead: int,
        view: View = VIEWS[0],
        rng: random.Random | None = None,
    ) -> str:
        """Return a decision's prompt with its button and the next ones.

        Args:
            decision: Decision to learn.
            ahead: Most later buttons in the document.
            view: Part of the dialogue to show.
            rng: Source of what the view leaves out.
        """
        buttons = [decision.button, *decision.later]
        return _answered(self.prompt(decision.before, view, rng), buttons, ahead + 1)

    def procedure(self, dialogue: Dialogue, view: View, rng: random.Random) -> str:
        """Return a document that derives a dialogue's buttons from its problem."""
        problem = " ".join(_thin(self._problem(dialogue, view), view, rng))
        buttons = [button for button, _ in groupby(pressed(dialogue))]
        return _answered(f"{STATE}{_PROCEDURE}{PAST}{problem}{ACT}", buttons, len(buttons))

    def _problem(self, lines: Iterable[Line], view: View) -> list[str]:
        said = (line.text for line in lines if line.speaker == "USR")
        return [word for text in said for word in self.words(text)][: view.problem_words]


def _thin(words: list[str], view: View, rng: random.Random | None) -> list[str]:
    """Return words without those that the view leaves out."""
    return [word for word in words if rng is None or rng.random() >= view.dropped_words]


def _answered(prompt: str, buttons: Sequence[str], count: int) -> str:
    """Return a document of the first `count` buttons, `done` behind the last."""
    for button in buttons[: count - 1]:
        prompt = extend_prompt(prompt, Choice(button), "ok")
    if count < len(buttons):
        return f"{prompt}{Choice(buttons[count - 1]).text}{END}"
    return f"{extend_prompt(prompt, Choice(buttons[-1]), 'ok')}{Choice(DONE).text}{END}"


def training_documents(
    dialogues: Sequence[Dialogue],
    writer: PromptWriter,
    rng: random.Random,
    *,
    windows: int,
    ahead: int,
    procedures: int,
) -> Iterator[str]:
    """Yield the documents of a training set, one a view.

    Args:
        dialogues: Dialogues of the training set.
        writer: Writer with the names of the training set.
        rng: Source of the views.
        windows: Views of each decision; the first is the one of prediction.
        ahead: Most later buttons in a document.
        procedures: Documents of each dialogue that state its whole procedure.
    """
    for decision in decisions(dialogues):
        yield writer.document(decision, ahead)
        for _ in range(windows - 1):
            yield writer.document(decision, ahead, sample_view(rng), rng)
    for dialogue in dialogues:
        if pressed(dialogue):
            for _ in range(procedures):
                yield writer.procedure(dialogue, sample_view(rng), rng)
