"""Limits of the requests to a model."""

from dataclasses import dataclass, field

from gpt2flow.server.config.settings import RequestLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one request, from the model, its engine and the settings.

    Attributes:
        context_length: Most tokens of prompt and output together.
        vocabulary_size: Bound of the ids of tokens.
        missing_ids: Ids below it without a token.
        max_sequences: Most sequences that run at the same time.
        max_queued: Most requests that wait.
        max_top_logprobs: Most alternatives per position.
        default_max_new_tokens: Most new tokens of a request that states no number.
        requests: Limits of the settings.
    """

    context_length: int
    vocabulary_size: int
    missing_ids: frozenset[int] = frozenset()
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
    def beams_rule(self) -> str:
        """Rule for beams, as errors state it."""
        rule = f"must be in [1, {self.max_beams}]"
        if self.max_sequences >= self.requests.beams:
            return rule
        return f"{rule}: each beam takes a slot of the KV cache (--max-sequences)"

    @property
    def max_candidates(self) -> int:
        """Most candidates per request; all of them run at the same time."""
        return min(self.max_sequences, self.requests.candidates)

    @property
    def token_id_rule(self) -> str:
        """Rule for token ids, as errors state it."""
        rule = f"must be below the vocabulary size of {self.vocabulary_size}"
        return f"{rule}, and the id of a token" if self.missing_ids else rule

    def has_token(self, token_id: int) -> bool:
        """Return whether an id is that of a token."""
        return 0 <= token_id < self.vocabulary_size and token_id not in self.missing_ids
