"""What an engine counts: kept by its thread, read by others."""

from dataclasses import dataclass
from typing import Final

from gpt2flow.server.histogram import TOKEN_SECONDS, Histogram
from gpt2flow.server.scheduler import Chunk, Decode

RUN_KINDS: Final = ("prefill", "extend", "decode")

_TOKENS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class RunStats:
    """Runs of the model, by kind.

    A prefill is a chunk of a prompt; an extension, a chunk of what a constraint
    forced, what was guessed, or what a preempted request lost; decoding, one
    token of each running sequence.

    Attributes:
        seconds: By kind, what a run took.
        tokens: By kind, how many tokens it ran over.
    """

    def __init__(self) -> None:
        self.seconds = {kind: Histogram(TOKEN_SECONDS) for kind in RUN_KINDS}
        self.tokens = {kind: Histogram(_TOKENS) for kind in RUN_KINDS}

    def observe(self, batch: Chunk | Decode, seconds: float) -> None:
        """Counts a run."""
        if isinstance(batch, Chunk):
            kind = "prefill" if batch.start < batch.sequence.prompt_length else "extend"
            tokens = batch.stop - batch.start
        else:
            kind = "decode"
            tokens = sum([len(sequences) for _, sequences in batch.parts])
        self.seconds[kind].observe(seconds)
        self.tokens[kind].observe(tokens)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is.

    Attributes:
        running: Requests that hold slots.
        waiting: Requests in the queue.
        slots: Slots of the KV cache.
        free_slots: Those of them that no request holds.
        positions: Positions of the KV cache in all slots together.
        positions_running: Those filled by running sequences.
        positions_remembered: Those that free slots remember for the prompts to come.
        preemptions: How often a request had to give its slots up, so far.
    """

    running: int
    waiting: int
    slots: int
    free_slots: int
    positions: int
    positions_running: int
    positions_remembered: int
    preemptions: int
