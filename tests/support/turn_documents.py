"""Training documents of turns, parsed without the code that writes them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_RESULTS = r"ok|asked|refused|blocked"
_DOCUMENT = re.compile(
    rf"<\|state\|>(?P<state>[a-z_ ]+)(?:<\|past\|>(?P<past>[a-z_]+ (?:{_RESULTS})"
    rf"(?:, [a-z_]+ (?:{_RESULTS}))*))?<\|(?P<source>user|event)\|>(?P<message>.+?)"
    rf"(?P<steps>(?:<\|act\|>\{{[^<]*\}}(?:<\|result\|>(?:{_RESULTS}))?)+)<\|endoftext\|>"
)
_STEP = re.compile(r"<\|act\|>(\{.*?\})(?:<\|result\|>(\w+))?(?=<)")


@dataclass(frozen=True)
class Turn:
    """Parsed document."""

    facts: frozenset[str]
    awaiting: tuple[str, str] | None
    past: tuple[tuple[str, str], ...]
    event: str | None
    message: str
    steps: tuple[tuple[str, str], ...]

    @property
    def choices(self) -> Iterator[dict[str, str | int]]:
        """The actions before `done`."""
        return (json.loads(text) for text, result in self.steps if result)

    @property
    def actions(self) -> list[str]:
        """Names of the actions before `done`."""
        return [str(choice["action"]) for choice in self.choices]

    @property
    def results(self) -> tuple[str, ...]:
        """Results of the actions."""
        return tuple(result for _, result in self.steps if result)


def parse_turn(document: str) -> Turn:
    """Parse a document, which must be well formed."""
    match = _DOCUMENT.fullmatch(document)
    assert match, document
    state, _, awaiting = match["state"].partition("awaiting ")
    event, message = (
        (None, match["message"])
        if match["source"] == "user"
        else match["message"].split(" ", maxsplit=1)
    )
    return Turn(
        frozenset(state.split()),
        _pair(awaiting) if awaiting else None,
        tuple(_pair(each) for each in match["past"].split(", ")) if match["past"] else (),
        event,
        message,
        tuple(_STEP.findall(match["steps"] + "<")),
    )


def _pair(text: str) -> tuple[str, str]:
    first, second = text.split()
    return first, second
