"""Notices that a page shows once, after a form."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

# Owners of a kind whose notice waits for their next page, which takes a moment as a rule.
_MAX_WAITING: Final = 2000
_MAX_CHARACTERS: Final = 1000


class Reader(Enum):
    """Kind of a notice's owner; kinds do not crowd each other out."""

    OPERATOR = "operator"
    CUSTOMER = "customer"
    STRANGER = "stranger"


@dataclass(frozen=True)
class Notice:
    """Result of a form, for its reader.

    Attributes:
        text: Text for the reader.
        is_good: Whether what was asked for was done.
        hint: Further text; empty without one.
        typed: Fields of the form that a page shows again.
    """

    text: str
    is_good: bool
    hint: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """ARIA role of the element that shows it."""
        return "status" if self.is_good else "alert"


class Notices:
    """Notices of one process, at most one for each owner of forms.

    Threads do not share an instance: it belongs to the event loop.

    Args:
        most: Most notices for readers of a kind; the oldest gives way.
    """

    def __init__(self, most: int = _MAX_WAITING) -> None:
        self._most = most
        self._waiting: dict[Reader, OrderedDict[str, Notice]] = {
            reader: OrderedDict() for reader in Reader
        }

    def put(self, owner: str, notice: Notice, reader: Reader) -> None:
        """Keep a notice for the owner's next page."""
        self.take(owner)
        waiting = self._waiting[reader]
        waiting[owner] = notice
        if len(waiting) > self._most:
            waiting.popitem(last=False)

    def take(self, owner: str) -> Notice | None:
        """Return the notice for an owner's page, once."""
        found = [waiting.pop(owner, None) for waiting in self._waiting.values()]
        return next((notice for notice in found if notice is not None), None)


def shown_again(fields: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the fields that a page shows again, each bounded.

    Args:
        fields: Fields as they were sent.
        names: Names of the fields that the page has.
    """
    return {name: fields[name][:_MAX_CHARACTERS] for name in names if name in fields}
