"""Labelled messages of real customers, from data sets beside the project.

A data set is a directory with `mapped.tsv.gz`: language, action, arguments as JSON, text, label of
the source and split, separated by tabs. Texts may hold placeholders such as `{order}`.
"""

import gzip
import hashlib
import json
import math
import random
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.training.corpus.sources.utterances import LANGUAGES, Language
from gpt2flow.training.errors import CorpusError

# Data sets of the shipped model. A missing one makes another model, so that it is named.
DATA_SETS = (
    *("banking77", "bitext-customer-support", "chitchat-en-zh", "clinc150", "crosswoz"),
    *("dstc11-intents", "ecom-intents", "ecom-intents-zh", "ecom-requests-zh", "hint3", "hwu64"),
    *("nlupp", "risawoz", "sgd", "smalltalk-en", "snips"),
    *("taskmaster4-coffee", "xsid-en-zh", "yes-no-en-zh"),
)
# Its wishes to buy are labelled as questions for a product.
_LEFT_OUT = ("product-requests-en",)
_FILE = "mapped.tsv.gz"
_COLUMNS = 6
_MAX_CHARACTERS = 300
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# Share of messages that are no wish of a shop's customer.
_MAX_CLARIFY_WEIGHT = 0.15
_CLARIFY = "clarify"
# What other businesses are asked for reads like a wish of a shop's customer.
_LIKE_A_WISH = re.compile(
    r"\b(?:how much|price|costs?|wants?|needs?|like|looking for|sell|stock|have|order|buy|add|find|"
    r"book|get|show|put|reserve|rent|list|please)\b"
    r"|多少|价|要|想|买|来|推荐|找|查|有没有|订|加|预",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """Message with the action that its writer wants.

    Attributes:
        action: Action.
        arguments: Values in the text; a placeholder stands for the value that fills it.
        text: Text, perhaps with placeholders.
    """

    action: str
    arguments: Arguments
    text: str


@dataclass
class LabelledMessages:
    """Labelled messages by language and action.

    Attributes:
        sources: SHA-256 of the file of each data set that was read, by name.
        missing: Data sets of the shipped model that are absent.
        messages: Messages by language, then by action.
    """

    sources: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    messages: dict[Language, dict[str, list[LabelledMessage]]] = field(default_factory=dict)

    def sample(self, language: Language, rng: random.Random) -> LabelledMessage | None:
        """Return a message: frequent actions more often, though less than they occur."""
        by_action = self.messages.get(language, {})
        if not by_action:
            return None
        weights = _weights(by_action)
        action = rng.choices(list(weights), list(weights.values()))[0]
        return rng.choice(by_action[action])


def load_labelled(directory: Path, book: FlowBook) -> LabelledMessages:
    """Load every data set of a directory.

    Args:
        directory: Directory with one subdirectory a data set.
        book: Flows whose actions and slots the messages name; others are left out.

    Raises:
        CorpusError: The directory has no data set, or a file is not what it should be.
    """
    found_paths = sorted(directory.glob(f"*/{_FILE}"))
    paths = [path for path in found_paths if path.parent.name not in _LEFT_OUT]
    if not paths:
        raise CorpusError(f"{directory}: no data set found, expected */{_FILE}")
    found = LabelledMessages()
    for path in paths:
        found.sources[path.parent.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        for language, message in _read(path, book):
            by_action = found.messages.setdefault(language, {})
            by_action.setdefault(message.action, []).append(message)
    found.missing = [name for name in DATA_SETS if name not in found.sources]
    return found


def _read(path: Path, book: FlowBook) -> Iterator[tuple[Language, LabelledMessage]]:
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").rstrip("\n").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise CorpusError(f"{path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if len(cells) != _COLUMNS:
            raise CorpusError(f"{path}: line {number} has {len(cells)} columns, not {_COLUMNS}")
        language, action, arguments, text = cells[:4]
        if number == 1 and language == "lang":
            continue
        known = next((each for each in LANGUAGES if each == language), None)
        message = LabelledMessage(action, _parse_arguments(path, number, arguments), text)
        if known is not None and _is_usable(message, book):
            yield known, message


def _parse_arguments(path: Path, number: int, text: str) -> Arguments:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise CorpusError(f"{path}: line {number}: arguments {text!r} are no JSON object")
    return {
        str(slot): value if isinstance(value, int) else str(value)
        for slot, value in arguments.items()
    }


def _is_usable(message: LabelledMessage, book: FlowBook) -> bool:
    """Return whether the flows have the action and its slots."""
    action = book.actions.get(message.action)
    if action is None or action.event is not None or len(message.text) > _MAX_CHARACTERS:
        return False
    if message.action == _CLARIFY and _LIKE_A_WISH.search(message.text):
        return False
    placeholders: Collection[str] = _PLACEHOLDER.findall(message.text)
    return set(message.arguments) <= set(action.slots) and all(
        name in book.slots for name in placeholders
    )


def _weights(by_action: Mapping[str, Collection[LabelledMessage]]) -> dict[str, float]:
    weights = {action: math.sqrt(len(messages)) for action, messages in by_action.items()}
    others = sum(weight for action, weight in weights.items() if action != _CLARIFY)
    if _CLARIFY in weights and others:
        share = _MAX_CLARIFY_WEIGHT / (1 - _MAX_CLARIFY_WEIGHT)
        weights[_CLARIFY] = min(weights[_CLARIFY], others * share)
    return weights
