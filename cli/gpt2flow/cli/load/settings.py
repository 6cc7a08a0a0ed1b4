"""What one run of the command shall do, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2flow.cli.load.arrivals import Budget
from gpt2flow.cli.load.goodput import Limits
from gpt2flow.cli.load.lengths import Lengths
from gpt2flow.cli.load.levels import Level
from gpt2flow.cli.load.prompt_file import FilePrompt


@dataclass(frozen=True)
class Decoding:
    """How outputs are made.

    Attributes:
        temperature: 0 is greedy.
        beams: Above 1: beam search.
        json_schema: What outputs must look like, as JSON text.
    """

    temperature: float = 0.0
    beams: int = 1
    json_schema: str | None = None


@dataclass(frozen=True)
class Settings:
    """A run.

    Attributes:
        levels: Measured one after the other.
        budget: Of each level.
        warmup: Requests before each level, which are not counted.
        prompts: Of a file; None draws them.
        prompt_lengths: Of drawn prompts, without the prefix.
        shared_prefix: Tokens that all drawn prompts begin with.
        output_lengths: Of outputs, where the file does not say.
        decoding: How outputs are made.
        seconds: That one request may take, from when it was due.
        seed: Of all that is drawn.
        model: The model; empty is the server's first.
        limits: Of goodput, if wanted.
    """

    levels: Sequence[Level]
    budget: Budget
    warmup: int
    prompts: Sequence[FilePrompt] | None
    prompt_lengths: Lengths
    shared_prefix: int
    output_lengths: Lengths
    decoding: Decoding
    seconds: float
    seed: int
    model: str
    limits: Limits | None
