"""Measurements: the requests to an engine, and the figures from its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from peers.arrivals import decode_rate, first_token_ms, whole_rate
from peers.prompts import Prompts

# One call of a worker: the method and its keyword arguments.
Request = tuple[str, dict[str, Any]]
Figures = dict[str, float]

PROMPT_TOKENS = 128
NEW_TOKENS = 128
INSTRUCTION_TOKENS = 400
QUESTION_TOKENS = 60
MAX_ANSWER_TOKENS = 160
# Mean position of the new tokens of long streams.
LONG_POSITION = 800

# Five bounded fields, so that answers end whatever the weights, after about 50 tokens.
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
    """Figure that makes a column of the table.

    Attributes:
        key: Key of the figure.
        title: Heading, with the unit.
        higher: True if higher is better.
        digits: Decimal places.
    """

    key: str
    title: str
    higher: bool
    digits: int = 0


class Measurement(Protocol):
    """Kind of request with the figures that it yields.

    Attributes:
        key: Name for `--columns`.
        fresh: True for one that runs in the last round alone, on a reloaded engine.
        columns: Figures that it yields.
    """

    key: str
    fresh: bool
    columns: list[Column]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Return the requests to send, in order."""
        ...

    def figures(self, answers: list[Any]) -> Figures:
        """Return the figures of the answers, by key.

        Raises:
            ValueError: An answer ended early, or did not end.
        """
        ...


class Burst:
    """Greedy streams that start together and do not end early."""

    fresh = False

    def __init__(self, streams: int, new_tokens: int = NEW_TOKENS) -> None:
        self.key = f"x{streams}"
        self._streams, self._new_tokens = streams, new_tokens
        rate = Column(self.key, f"×{streams} (tok/s)", higher=True)
        if streams == 1:
            self.columns = [Column("first", "first token (ms)", higher=False), rate]
        else:
            whole = Column(f"{self.key}_whole", f"×{streams} with prompts (tok/s)", higher=True)
            self.columns = [rate, whole]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Request a continuation per stream, of prompts that no cache holds."""
        texts = [prompts.take(PROMPT_TOKENS) for _ in range(self._streams)]
        return [("stream", {"prompts": texts, "new_tokens": self._new_tokens})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the rates and, for one stream, the time to first token."""
        streams = answers[0]
        expected = self._new_tokens
        if wrong := [len(stream) for stream in streams if len(stream) != expected]:
            raise ValueError(f"a stream had {wrong[0]} tokens, {expected} were requested")
        rate = {self.key: decode_rate(streams)}
        if self._streams == 1:
            return {"first": first_token_ms(streams), **rate}
        return {**rate, f"{self.key}_whole": whole_rate(streams)}


class LongBurst(Burst):
    """Streams whose tokens stand at `LONG_POSITION` in the mean."""

    def __init__(self, streams: int, new_tokens: int = NEW_TOKENS) -> None:
        super().__init__(streams, new_tokens)
        self.key = f"long{streams}"
        title = f"×{streams} at {LONG_POSITION} positions (tok/s)"
        self.columns = [Column(self.key, title, higher=True)]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Request a continuation per stream, of long prompts that no cache holds."""
        length = LONG_POSITION - self._new_tokens // 2
        texts = [prompts.take(length) for _ in range(self._streams)]
        return [("stream", {"prompts": texts, "new_tokens": self._new_tokens})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the rate."""
        return {self.key: super().figures(answers)[self.key]}


class Beside:
    """Request that arrives while streams decode."""

    fresh = False

    def __init__(self, streams: int) -> None:
        self.key = f"beside{streams}"
        self._streams = streams
        title = f"first token beside {streams} streams (ms)"
        self.columns = [Column(self.key, title, higher=False)]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Request the first token of a prompt that arrives after the others."""
        texts = [prompts.take(PROMPT_TOKENS) for _ in range(self._streams)]
        arguments = {"prompts": texts, "prompt": prompts.take(PROMPT_TOKENS)}
        return [("beside", {**arguments, "new_tokens": NEW_TOKENS})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the time to first token, in milliseconds."""
        return {self.key: answers[0] * 1e3}


class Startup:
    """Loading, to the first token of a prompt.

    A server's time includes the start of its process; a library has been imported before.
    """

    key = "startup"
    fresh = False
    columns = [Column("startup", "load to first token (s)", higher=False, digits=2)]  # noqa: RUF012 - a protocol's attribute

    def requests(self, prompts: Prompts) -> list[Request]:
        """Request a reload and a first token."""
        return [("startup", {"prompt": prompts.take(PROMPT_TOKENS)})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the seconds."""
        return {"startup": answers[0]}


class Beams:
    """Beam search, timed by two searches of different length.

    Their difference is the time of steps 9 to 72, without prefill.
    """

    key = "beam4"
    fresh = False
    columns = [Column("beam4", "4 beams (ms/step)", higher=False, digits=1)]  # noqa: RUF012 - a protocol's attribute
    _short, _long = 8, 72

    def requests(self, prompts: Prompts) -> list[Request]:
        """Request a short search and a long one."""
        return [
            ("beams", {"prompt": prompts.take(PROMPT_TOKENS), "beams": 4, "new_tokens": tokens})
            for tokens in (self._short, self._long)
        ]

    def figures(self, answers: list[Any]) -> Figures:
        """Return milliseconds per step."""
        short, long = answers
        return {"beam4": (long - short) / (self._long - self._short) * 1e3}


class Turn:
    """Agent turn: cached instructions, a new question, an answer under a schema."""

    key = "turn"
    fresh = False
    columns = [  # noqa: RUF012 - as above
        Column("turn", "agent turn (ms)", higher=False),
        Column("turn_tokens", "its answer (tokens)", higher=False),
    ]

    def requests(self, prompts: Prompts) -> list[Request]:
        """Ask two questions after the same instructions, which the first one caches."""
        instructions = prompts.take(INSTRUCTION_TOKENS)
        return [
            (
                "turn",
                {
                    "prompt": instructions + prompts.take(QUESTION_TOKENS),
                    "schema": SCHEMA,
                    "max_new_tokens": MAX_ANSWER_TOKENS,
                },
            )
            for _ in range(2)
        ]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the time of the second turn."""
        turn: Mapping[str, Any] = answers[1]
        if turn["tokens"] >= MAX_ANSWER_TOKENS:
            raise ValueError(
                f"the answer did not end within {MAX_ANSWER_TOKENS} tokens: {turn['text']!r}"
            )
        return {"turn": turn["seconds"] * 1e3, "turn_tokens": turn["tokens"]}


class Memory:
    """Resident memory of a fresh server after every slot was filled."""

    key = "memory"
    fresh = True
    columns = [Column("memory", "16 slots full (MB)", higher=False)]  # noqa: RUF012 - as above

    def __init__(self, streams: int, capacity: int) -> None:
        self._streams = streams
        self._length = capacity - NEW_TOKENS - 1

    def requests(self, prompts: Prompts) -> list[Request]:
        """Fill all slots, then request the resident size."""
        texts = [prompts.take(self._length) for _ in range(self._streams)]
        return [("stream", {"prompts": texts, "new_tokens": NEW_TOKENS}), ("memory", {})]

    def figures(self, answers: list[Any]) -> Figures:
        """Return the resident size in 10^6 bytes."""
        return {"memory": answers[1] / 1e6}


def all_measurements(
    streams: int, capacity: int, new_tokens: int = NEW_TOKENS
) -> dict[str, Measurement]:
    """Return all measurements by key, in the table's order."""
    measurements: list[Measurement] = [Burst(count, new_tokens) for count in (1, 4, 8, 16)]
    measurements += [LongBurst(16, new_tokens), Beside(8), Beams(), Turn(), Startup()]
    measurements.append(Memory(streams, capacity))
    return {measurement.key: measurement for measurement in measurements}
