"""What is measured: what an engine is asked, and the figures that its answers come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from peers.arrivals import decode_rate, first_token_ms, whole_rate
from peers.prompts import Prompts

# One call of a worker: what it does, and with what.
Request = tuple[str, dict[str, Any]]
Figures = dict[str, float]

PROMPT = 128
NEW_TOKENS = 128
INSTRUCTIONS = 400
QUESTION = 60
MOST_ANSWER = 160

# Five fields that end within bounds whatever the weights: about 50 tokens.
SCHEMA = {
    "type": "object",
    "properties": {
        "action": {"enum": ["create_order", "cancel_order", "check_status", "refund"]},
        "priority": {"enum": ["low", "normal", "high"]},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
        "order": {"type": "integer", "minimum": 10000, "maximum": 99999},
        "note": {"type": "string", "minLength": 60, "maxLength": 80},
    },
    "required": ["action", "priority", "quantity", "order", "note"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Column:
    """A kind of figure.

    Attributes:
        key: Of the figure.
        title: With its unit.
        higher: Whether more is better.
        digits: Behind the point.
    """

    key: str
    title: str
    higher: bool
    digits: int = 0


class Measurement(Protocol):
    """One thing that engines are asked."""

    key: str
    fresh: bool
    columns: list[Column]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Return what an engine is asked, in order."""
        ...

    def figures(self, answers: list[Any]) -> Figures:
        """Return the figures of what it answered."""
        ...


class Burst:
    """Streams that start at once, greedy, not ended early."""

    fresh = False

    def __init__(self, streams: int, new_tokens: int = NEW_TOKENS) -> None:
        self.key = f"x{streams}"
        self._streams, self._new_tokens = streams, new_tokens
        rate = Column(self.key, f"×{streams} (tok/s)", higher=True)
        if streams == 1:
            self.columns = [Column("first", "prefill 128 (ms)", higher=False), rate]
        else:
            whole = Column(f"{self.key}_whole", f"×{streams} with prompts (tok/s)", higher=True)
            self.columns = [rate, whole]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Ask for new tokens after prompts that nobody has seen."""
        texts = [prompts.take(PROMPT) for _ in range(self._streams)]
        return [("stream", {"prompts": texts, "new_tokens": self._new_tokens})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return rates; for one stream, the time to the first token too."""
        streams = answers[0]
        wanted = self._new_tokens
        if wrong := [len(stream) for stream in streams if len(stream) != wanted]:
            raise ValueError(f"a stream had {wrong[0]} tokens, not {wanted}")
        rate = {self.key: decode_rate(streams)}
        if self._streams == 1:
            return {"first": first_token_ms(streams), **rate}
        return {**rate, f"{self.key}_whole": whole_rate(streams)}


class Beams:
    """Beam search: the time of steps 9 to 72, as the difference of two searches."""

    key = "beam4"
    fresh = False
    columns = [Column("beam4", "4 beams (ms/step)", higher=False, digits=1)]  # noqa: RUF012 - a protocol's attribute
    _few, _many = 8, 72

    def requests(self, prompts: Prompts) -> list[Request]:
        """Ask for a short search and a long one."""
        return [
            ("beams", {"prompt": prompts.take(PROMPT), "beams": 4, "new_tokens": tokens})
            for tokens in (self._few, self._many)
        ]

    def figures(self, answers: list[Any]) -> Figures:
        """Return milliseconds of a step."""
        few, many = answers
        return {"beam4": (many - few) / (self._many - self._few) * 1e3}


class Turn:
    """An agent's turn: instructions seen before, a new question, an answer under a schema."""

    key = "turn"
    fresh = False
    columns = [  # noqa: RUF012 - as above
        Column("turn", "agent turn (ms)", higher=False),
        Column("turn_tokens", "its answer (tokens)", higher=False),
    ]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Ask two questions after the same instructions; the first one makes them known."""
        instructions = prompts.take(INSTRUCTIONS)
        return [
            (
                "turn",
                {
                    "prompt": instructions + prompts.take(QUESTION),
                    "schema": SCHEMA,
                    "most": MOST_ANSWER,
                },
            )
            for _ in range(2)
        ]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the time of the second turn."""
        turn: Mapping[str, Any] = answers[1]
        if turn["tokens"] >= MOST_ANSWER:
            raise ValueError(f"the answer did not end: {turn['text']!r}")
        return {"turn": turn["seconds"] * 1e3, "turn_tokens": turn["tokens"]}


class Memory:
    """The resident memory of a fresh server when each of its slots has been used to its end."""

    key = "memory"
    fresh = True
    columns = [Column("memory", "16 slots full (MB)", higher=False)]  # noqa: RUF012 - as above

    def __init__(self, streams: int, capacity: int) -> None:
        self._streams = streams
        self._length = capacity - NEW_TOKENS - 1

    def requests(self, prompts: Prompts) -> list[Request]:
        """Fill all slots, then asks for the size."""
        texts = [prompts.take(self._length) for _ in range(self._streams)]
        return [("stream", {"prompts": texts, "new_tokens": NEW_TOKENS}), ("memory", {})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return megabytes."""
        return {"memory": answers[1] / 1e6}


def all_measurements(
    streams: int, capacity: int, new_tokens: int = NEW_TOKENS
) -> dict[str, Measurement]:
    """Return all of them by key, in the table's order."""
    every: list[Measurement] = [Burst(count, new_tokens) for count in (1, 4, 8, 16)]
    every += [Beams(), Turn(), Memory(streams, capacity)]
    return {each.key: each for each in every}
