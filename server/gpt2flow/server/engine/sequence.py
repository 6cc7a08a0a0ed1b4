"""A request and its sequences: tokens, place, progress, finish reason."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.intp]


class FinishReason(Enum):
    """Why a sequence ended."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"
    CONSTRAINT = "constraint"
    TIME_LIMIT = "time_limit"


@dataclass(slots=True, eq=False)
class Sequence:
    """One row of work: a prompt and what was appended to it.

    Attributes:
        tokens: Ids of the prompt, then of what was produced.
        prompt_length: How many of them are the prompt.
        slot: The cache slot that holds its keys and values.
        logits_from: The first position whose logits are wanted. The logits of
            a position say what follows it. When the sequence lost its slot,
            those of the positions before were taken already.
        logit_ids: The tokens whose logits are wanted; None is all.
        drafts: Tokens that are guessed to follow, for the next run alone; what the model
            disagrees with is dropped.
        grows: Whether tokens are still to be appended.
    """

    tokens: list[int]
    prompt_length: int
    slot: int
    logits_from: int
    logit_ids: Ids | None = None
    drafts: list[int] = field(default_factory=list)
    grows: bool = True

    @property
    def new_tokens(self) -> int:
        """How many tokens were produced."""
        return len(self.tokens) - self.prompt_length

    @property
    def to_run(self) -> int:
        """How many of its tokens the model must see.

        What follows the last is of use only while the sequence grows.
        """
        return len(self.tokens) if self.grows else len(self.tokens) - 1

    @property
    def reusable(self) -> list[int]:
        """The tokens that the model need not run if the cache has them."""
        return self.tokens[: self.logits_from]


@dataclass(slots=True, eq=False)
class Request:
    """What the scheduler knows of one prompt that a client sent.

    Attributes:
        id: Unique in the engine.
        prompt: Token ids, at least one.
        slots_needed: Slots that it needs at the same time.
        arrival: When it came, in seconds of the engine's clock.
        caller: Who sent it; callers of one priority take turns.
        priority: As asked for: higher is admitted first, and may preempt lower.
        deadline: When its time is up, on the same clock; None is never.
        allow_partial: Whether it wants to wait even where it is not expected to start in time.
        all_logits: Whether the logits of the whole prompt are wanted.
        lockstep: Whether its sequences get their next tokens all at once.
        queued: Since when it has waited, on the same clock. Only waiting
            counts: time with slots before a preemption moves it on.
        admitted: When it got its slots the last time.
        effective_priority: The effective priority that got it these.
        preemptions: How often they were taken from it.
        slots: The slots reserved for it; empty while it waits.
        sequences: Those that still need the model.
        cached_tokens: How many tokens of the prompt the model need not run,
            because the cache had them; not those that it held itself before a
            preemption.
        started: When the model first ran for it.
        first_token: When the model had run over the whole prompt.
    """

    id: int
    prompt: list[int]
    slots_needed: int
    arrival: float
    caller: str = ""
    priority: int = 0
    deadline: float | None = None
    allow_partial: bool = False
    all_logits: bool = False
    lockstep: bool = False
    queued: float = field(init=False)
    admitted: float = 0.0
    effective_priority: int = 0
    preemptions: int = 0
    slots: list[int] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)
    cached_tokens: int = 0
    started: float | None = None
    first_token: float | None = None

    def __post_init__(self) -> None:
        self.queued = self.arrival

    @property
    def logits_from(self) -> int:
        """The first position of the prompt whose logits are wanted."""
        return 0 if self.all_logits else len(self.prompt) - 1

    @property
    def reusable(self) -> list[int]:
        """The tokens of the prompt that the model need not run if the cache has them."""
        return self.prompt[: self.logits_from]
