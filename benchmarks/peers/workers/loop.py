"""Worker loop: JSON requests on standard input, JSON answers on standard output.

Each line is one object. A peer's worker runs in the environment of that peer. It must import
neither gpt2flow nor anything else that the environment lacks. What the peer's library prints to
standard output goes to standard error.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SETTLE_SECONDS = 2.0

# Arrival times of a stream's tokens, in seconds since the start of the call.
Arrivals = list[float]


@dataclass(frozen=True)
class Setup:
    """Model and limits of an engine.

    Attributes:
        checkpoint: GPT-2 in Hugging Face's format.
        folder: Directory of converted models, shared by the engines of one environment.
        variant: Weights and mode to run, in the engine's notation.
        threads: Threads per step.
        streams: Most concurrent streams.
        capacity: Most tokens per stream.
        options: Further options, by engine.
    """

    checkpoint: Path
    folder: Path
    variant: str
    threads: int
    streams: int
    capacity: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def position_bytes(self) -> int:
        """Bytes of the position embeddings in fp32."""
        text = (self.checkpoint / "config.json").read_text(encoding="utf-8")
        config: dict[str, Any] = json.loads(text)
        return int(config["n_positions"]) * int(config["n_embd"]) * 4


class Worker:
    """Engine under measurement.

    A method that it lacks is a column without a figure.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def prepare(self) -> None:
        """Convert the checkpoint, unless it was converted before."""

    def load(self) -> dict[str, Any]:
        """Load or reload the model, and return versions."""
        raise NotImplementedError

    def unload(self) -> None:
        """Free the model, or stop its server, if there is one."""

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Continue all prompts at once, greedily and without an early end.

        Returns:
            Arrival times of each stream's tokens.
        """
        raise NotImplementedError

    def step_bytes(self) -> int:
        """Return the bytes of weights that a step of one stream reads."""
        raise NotImplementedError

    def startup(self, prompt: list[int]) -> float:
        """Load the model, and return the seconds until a first token.

        The time to unload the model before does not count.
        """
        self.unload()
        started = time.perf_counter()
        self.load()
        loaded = time.perf_counter() - started
        first = self.stream([prompt], 2)[0][0]
        # Helper processes still start. A pause would put that off into the next measurement.
        time.sleep(_SETTLE_SECONDS)
        return loaded + first

    def beside(self, prompts: list[list[int]], prompt: list[int], new_tokens: int) -> float:
        """Return the seconds until the first token beside running streams.

        Args:
            prompts: Prompts of the streams, all of which have begun when the prompt arrives.
            prompt: Prompt that arrives.
            new_tokens: Tokens of each stream.
        """
        raise NotImplementedError

    def beams(self, prompt: list[int], beams: int, new_tokens: int) -> float:
        """Run a beam search, and return its seconds."""
        raise NotImplementedError

    def turn(
        self, prompt: list[int], schema: dict[str, Any], max_new_tokens: int
    ) -> dict[str, Any]:
        """Answer a prompt under a JSON schema.

        Returns:
            `seconds`, `tokens` (generated), `cached` (prompt tokens, None if not reported) and
            `text`.
        """
        raise NotImplementedError

    def memory(self) -> int:
        """Return the resident memory of the engine's process, in bytes."""
        raise NotImplementedError


def run_worker(make: Callable[[Setup], Worker]) -> None:
    """Answer requests until standard input ends.

    Args:
        make: Creates the worker from the setup, which is the first command-line argument.
    """
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    fields: dict[str, Any] = json.loads(sys.argv[1])
    fields.update({name: Path(fields[name]) for name in ("checkpoint", "folder")})
    worker = make(Setup(**fields))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            response: dict[str, Any] = {"result": getattr(worker, request.pop("do"))(**request)}
        except Exception as error:  # noqa: BLE001 - any failure of a peer is reported as its result
            traceback.print_exc()
            response = {"error": f"{type(error).__name__}: {error}"}
        lines.write(json.dumps(response) + "\n")
        lines.flush()
