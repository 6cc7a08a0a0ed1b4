"""Limits of the requests to a model."""

from dataclasses import dataclass, field

from gpt2flow.server.config.settings import RequestLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one request, from the model, its engine and the settings."""

    context_length: int
    vocabulary_size: int
    max_sequences: int
    max_queued: int
    max_top_logprobs: int
    default_max_new_tokens: int
    requests: RequestLimits = field(default_factory=RequestLimits)

    @property
    def max_beams(self) -> int:
        """Most beams per request; all of them run at the same time."""
        return min(self.max_sequences, self.requests.beams)

    @property
    def max_candidates(self) -> int:
        """Most candidates per request; all of them run at the same time."""
        return min(self.max_sequences, self.requests.candidates)

    @property
    def token_id_rule(self) -> str:
        """Rule for token ids, as errors state it."""
        return f"must be below the vocabulary size of {self.vocabulary_size}"
