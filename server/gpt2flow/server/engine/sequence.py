"""Requests and their sequences: tokens, slots, progress, finish reason."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.intp]


class FinishReason(Enum):
    """Reason why a sequence ended."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"
    CONSTRAINT = "constraint"
    TIME_LIMIT = "time_limit"


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence of tokens in one slot of the KV cache.

    Attributes:
        tokens: Token ids of the prompt, then of the output.
        prompt_length: Number of tokens of the prompt.
        slot: Cache slot that holds its keys and values.
        logits_from: First position whose logits are needed; the logits of a position predict
            the next token. Preemption moves it past the positions that were run.
        logit_ids: Token ids to restrict the logits to; None is all.
        drafts: Draft tokens to verify in the next run; rejected ones are dropped.
        grows: Whether more tokens are to be appended.
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
        """Number of tokens after the prompt."""
        return len(self.tokens) - self.prompt_length

    @property
    def to_run(self) -> int:
        """Number of tokens that the model must run.

        The last token is run only while the sequence grows.
        """
        return len(self.tokens) if self.grows else len(self.tokens) - 1

    @property
    def reusable(self) -> list[int]:
        """Leading tokens that the cache may supply instead of a run."""
        return self.tokens[: self.logits_from]


@dataclass(slots=True, eq=False)
class Request:
    """Scheduling state of one prompt; times are the engine's, in seconds.

    Attributes:
        id: Number that is unique in the engine; ids rise in the order of arrival.
        prompt: Token ids, at least one.
        slots_needed: Number of slots that it needs at the same time.
        arrival: Time of arrival.
        caller: Name of the caller; callers of one priority are served round-robin.
        priority: Priority as requested; a higher one is admitted first, and may preempt lower.
        deadline: Time by which it must have ended; None is no limit.
        allow_partial: Whether it waits until its deadline even if it cannot start in time,
            because the client accepts a partial result.
        all_logits: Whether the logits of the whole prompt are needed.
        lockstep: Whether all its sequences get their next tokens in the same run.
        queued: Start of its waiting, for aging; the time it held slots before a preemption is
            added, so that only waiting counts.
        admitted: Time of the last admission.
        effective_priority: Priority that won it its slots.
        preemptions: Number of times that its slots were taken away.
        slots: Slots that it holds; empty while it waits.
        sequences: Sequences that need more runs.
        cached_tokens: Number of prompt tokens that came from the cache instead of a run. Tokens
            of its own that it finds again after a preemption do not count.
        started: Start of the first run.
        first_token: End of the run that completed the prompt.
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
        """First position of the prompt whose logits are needed."""
        return 0 if self.all_logits else len(self.prompt) - 1

    @property
    def reusable(self) -> list[int]:
        """Leading tokens of the prompt that the cache may supply."""
        return self.prompt[: self.logits_from]
