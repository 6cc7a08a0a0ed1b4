"""Hands that stop at every screen, and pictures of screens."""

import struct
import zlib
from dataclasses import dataclass, field

from tests.support.shop import CODE, Shop

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.hands.port import ScreenOutcome, ScreenTask
from gpt2flow.agent.report import Step
from gpt2flow.agent.turns.execution import Executor
from gpt2flow.agent.wording import Language

REASON = 'expected the button "Place order", found "Buy now"'


def png(shade: int = 200, width: int = 320, height: int = 240) -> bytes:
    """Return a picture of one shade of grey."""
    rows = (b"\0" + bytes([shade]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


@dataclass
class StoppingHands:
    """Hands that stop before each of some actions.

    Attributes:
        book: Loaded flows.
        actions: Names of the actions; the database carries the others out.
        picture: Picture of each stop.
        tasks: What was to be done, so far.
    """

    book: FlowBook
    actions: frozenset[str]
    picture: bytes | None = None
    tasks: list[ScreenTask] = field(default_factory=list)

    def outcomes(self, action: str, language: Language) -> frozenset[str]:
        """Return all outcomes of the actions."""
        del language
        return frozenset(self.book.actions[action].outcomes if action in self.actions else ())

    def carry_out(self, task: ScreenTask) -> ScreenOutcome:
        """Stop.

        Raises:
            ScreenStopped: In every case.
        """
        self.tasks.append(task)
        raise ScreenStopped(REASON, self.picture)

    def close(self) -> None:
        """Hold nothing."""


def stop_at(shop: Shop, *actions: str, picture: bytes | None = None) -> StoppingHands:
    """Let the shop's agent stop at the screens of some actions."""
    hands = StoppingHands(shop.book, frozenset(actions), picture)
    shop.executor = Executor(shop.book, shop.database, shop.clock, lambda: CODE, 0.5, hands=hands)
    return hands


def stopped(shop: Shop, message: str = "umbrellas please", picture: bytes | None = None) -> Step:
    """Stop at a screen in session `s`, and return the step."""
    executor = shop.executor
    stop_at(shop, "add_to_cart", picture=picture)
    step = shop.act("s", "add_to_cart", message=message, product="umbrella")
    shop.executor = executor
    return step
