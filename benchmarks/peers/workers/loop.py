"""How a worker is asked and answers: one JSON object a line, on its standard streams.

A worker runs in the environment of one peer, so it must not import gpt2flow nor anything that this
environment lacks. What the peer's library prints to standard output goes to standard error.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Seconds from the start of a call at which each token of a stream was there.
Arrivals = list[float]


@dataclass(frozen=True)
class Setup:
    """What an engine is to run, the same for all.

    Attributes:
        checkpoint: A GPT-2 in Hugging Face's format.
        folder: Where what is made of it stays, for all engines of one environment.
        variant: Which kind of weights, in the engine's own words.
        threads: Of one step.
        streams: At most, at once.
        capacity: Tokens of one stream.
        options: More of the engine's own.
    """

    checkpoint: Path
    folder: Path
    variant: str
    threads: int
    streams: int
    capacity: int
    options: dict[str, Any] = field(default_factory=dict)


class Worker:
    """An engine. Those methods that it lacks are columns that it has no figure in."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def prepare(self) -> None:
        """Convert the checkpoint, unless that was done before."""

    def load(self) -> dict[str, Any]:
        """Load the model, anew if it was loaded; returns versions and sizes."""
        raise NotImplementedError

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Continue prompts, all at once, greedily and not ended early."""
        raise NotImplementedError

    def beams(self, prompt: list[int], beams: int, new_tokens: int) -> float:
        """Search with beams; returns seconds."""
        raise NotImplementedError

    def turn(self, prompt: list[int], schema: dict[str, Any], most: int) -> dict[str, Any]:
        """Answer under a JSON schema; returns seconds, tokens and text."""
        raise NotImplementedError

    def memory(self) -> int:
        """Return the resident bytes of the engine's process."""
        raise NotImplementedError


def answer(make: Callable[[Setup], Worker]) -> None:
    """Make a worker of the setup in the arguments and does what the lines say, until they end."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    given: dict[str, Any] = json.loads(sys.argv[1])
    given.update({name: Path(given[name]) for name in ("checkpoint", "folder")})
    worker = make(Setup(**given))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            done: dict[str, Any] = {"result": getattr(worker, request.pop("do"))(**request)}
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its figure
            traceback.print_exc()
            done = {"error": f"{type(error).__name__}: {error}"}
        lines.write(json.dumps(done) + "\n")
        lines.flush()
