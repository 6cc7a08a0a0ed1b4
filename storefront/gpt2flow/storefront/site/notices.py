"""Notices that a page shows once, after a form."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Owners whose notice waits for their next page.
_MAX_WAITING: Final = 10_000


@dataclass(frozen=True)
class Notice:
    """Result of a form, for its reader.

    Attributes:
        text: Text for the reader.
        is_good: Whether what was asked for was done.
        hint: Further text; empty without one.
        typed: Fields as they were sent, for a page that asks for them again.
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
    """Notices of one process, by the owner of the form.

    Threads do not share an instance: it belongs to the event loop.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Notice] = OrderedDict()

    def put(self, owner: str, notice: Notice) -> None:
        """Keep a notice for the owner's next page."""
        self._waiting.pop(owner, None)
        self._waiting[owner] = notice
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.popitem(last=False)

    def take(self, owner: str) -> Notice | None:
        """Return the notice for an owner's page, once."""
        return self._waiting.pop(owner, None)
