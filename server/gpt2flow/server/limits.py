"""What one request may ask for at most, whatever the model."""

from dataclasses import dataclass, field, fields

from gpt2flow.server.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Limits of one request. Sizes are in bytes, of text in UTF-8.

    Attributes:
        message_bytes: Of a message that is received.
        prompts: Of one unary call.
        continuations: Of one call that scores.
        beams: Of one request; no more than fit into the KV cache in any case.
        candidates: Of one request, likewise.
        stop_strings: How many.
        stop_string_bytes: Of each.
        stop_token_ids: How many.
        bad_words: How many.
        bad_word_bytes: Of each.
        logit_biases: How many.
        choices: How many.
        constraint_bytes: Of the source of a constraint; of choices, all together.
        grammar_seconds: How long a constraint may take to compile.
    """

    message_bytes: int = field(default=4 * 2**20, metadata={"unit": "bytes"})
    prompts: int = 256
    continuations: int = 1024
    beams: int = 1024
    candidates: int = 1024
    stop_strings: int = 32
    stop_string_bytes: int = 1024
    stop_token_ids: int = 1024
    bad_words: int = 256
    bad_word_bytes: int = 1024
    logit_biases: int = 1024
    choices: int = 4096
    constraint_bytes: int = field(default=256 * 2**10, metadata={"unit": "bytes"})
    grammar_seconds: float = 2.0

    def __post_init__(self) -> None:
        """Raise ConfigError when a limit lets nothing pass, or is absurd."""
        for each in fields(self):
            value = getattr(self, each.name)
            low, high = (0.01, 3600) if each.name == "grammar_seconds" else (1, 2**31 - 1)
            if not low <= value <= high:
                raise ConfigError(f"{each.name} is {value}, must be in [{low}, {high}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request to a model may ask for at most."""

    context_length: int
    vocabulary_size: int
    max_sequences: int
    max_queued: int
    max_top_logprobs: int
    default_max_new_tokens: int
    requests: RequestLimits = field(default_factory=RequestLimits)

    @property
    def max_beams(self) -> int:
        """Beams of one request: all of them run at the same time."""
        return min(self.max_sequences, self.requests.beams)

    @property
    def max_candidates(self) -> int:
        """Candidates of one request: all of them run at the same time."""
        return min(self.max_sequences, self.requests.candidates)
