"""Results of a call, as frozen dataclasses."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TokenLogprob:
    """Token with its log-probability.

    Attributes:
        token_id: Id of the token.
        token: Bytes of the token, possibly only a part of a UTF-8 character.
        logprob: Natural logarithm of the probability that the model gave the token, before
            any logits processor. None at the first token of a prompt, which nothing precedes.
        top: Likeliest tokens at the same position, best first; empty unless requested with
            `Options.top_logprobs`.
    """

    token_id: int
    token: bytes
    logprob: float | None
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One continuation of a prompt.

    Attributes:
        index: Position among the candidates of the prompt, from 0.
        text: Generated text, without the stop string that ended it, unless
            `Options.include_stop_string` is set.
        token_ids: Ids of the generated tokens; empty unless requested with
            `Options.token_ids`.
        finish_reason: Reason for the end: `eos`, `stop` (string or token id), `length`,
            `constraint` (the output is complete) or `time_limit`.
        stop_string: Stop string that ended the text; empty if none did.
        cumulative_logprob: Sum of the log-probabilities of the generated tokens. None under
            a constraint, unless log-probabilities were requested.
        beam_score: Score that ranks the candidate in beam search; 0 in sampling.
        logprobs: One entry per generated token; empty unless requested with
            `Options.logprobs`.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_string: str
    cumulative_logprob: float | None
    beam_score: float
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Usage:
    """Token counts of one prompt's generation or of one scoring request.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens taken from the prefix cache.
        completion_tokens: Generated tokens, over all candidates.
        forced_tokens: Generated tokens that were the only ones the constraint allowed.
        drafted_tokens: Tokens drafted by speculative decoding.
        accepted_tokens: Drafted tokens that verification accepted.
        truncated_tokens: Tokens that `Options.truncate_prompt` left out of the prompt.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    truncated_tokens: int = 0


@dataclass(frozen=True)
class Timing:
    """Durations measured by the server, in milliseconds.

    Attributes:
        queue_ms: Arrival of the request to its first model run.
        prefill_ms: Model runs over the prompt.
        decode_ms: First generated token to the last.
        total_ms: Arrival of the request to its response.
    """

    queue_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True)
class Generation:
    """Result of one prompt.

    Attributes:
        candidates: Continuations of the prompt; best first in beam search.
        prompt_logprobs: One entry per prompt token; empty unless requested with
            `Options.prompt_logprobs`.
        usage: Token counts.
        timing: Durations on the server.
        seed: Seed of the random numbers, from the request or drawn by the server.
        model: Name of the model.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal.
        request_id: Id of the call in the server's log.
    """

    candidates: tuple[Candidate, ...]
    prompt_logprobs: tuple[TokenLogprob, ...]
    usage: Usage
    timing: Timing
    seed: int
    model: str
    fingerprint: str
    request_id: str

    @property
    def text(self) -> str:
        """Text of the first candidate."""
        return self.candidates[0].text


@dataclass(frozen=True)
class Delta:
    """New text of one candidate in a stream.

    Attributes:
        index: Index of the candidate.
        text: Text to append, always whole characters.
        token_ids: Token ids to append; empty unless requested with `Options.token_ids`.
        logprobs: Log-probabilities of the new tokens; empty unless requested with
            `Options.logprobs`.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class ContinuationScore:
    """Log-likelihood of one continuation.

    Attributes:
        tokens: Tokens of the continuation with their log-probabilities.
        total_logprob: Sum of the log-probabilities, as natural logarithms.
        perplexity: `exp(-total_logprob / len(tokens))`.
    """

    tokens: tuple[TokenLogprob, ...]
    total_logprob: float
    perplexity: float


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of the continuations of one prompt.

    Attributes:
        scores: One score per continuation, in the order of the request.
        ranking: Indices of the continuations, best first by log-likelihood per token.
        usage: Token counts.
        timing: Durations on the server.
        model: Name of the model.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal.
        request_id: Id of the call in the server's log.
    """

    scores: tuple[ContinuationScore, ...]
    ranking: tuple[int, ...]
    usage: Usage
    timing: Timing
    model: str
    fingerprint: str
    request_id: str


@dataclass(frozen=True)
class Token:
    """Token of a text and its position.

    Attributes:
        id: Id of the token.
        piece: Bytes of the token.
        start: Offset of its first byte in the UTF-8 text.
        end: Offset after its last byte.
    """

    id: int
    piece: bytes
    start: int
    end: int


@dataclass(frozen=True)
class ModelLimits:
    """Limits of the requests to one model.

    Attributes:
        context_length: Maximum number of prompt and new tokens together.
        max_sequences: Maximum number of sequences that run at the same time.
        max_queued: Maximum number of waiting requests.
        max_beams: Maximum number of beams per request.
        max_candidates: Maximum number of candidates per request.
        max_top_logprobs: Maximum number of alternatives per position.
        default_max_new_tokens: Limit of new tokens in requests that set none.
        max_message_bytes: Maximum size of a request message.
        max_prompts: Maximum number of prompts per `generate_many`.
        max_continuations: Maximum number of continuations per `score`.
        max_stop_strings: Maximum number of stop strings per request.
        max_stop_string_bytes: Maximum size of a stop string.
        max_stop_token_ids: Maximum number of stop token ids per request.
        max_bad_words: Maximum number of bad words per request.
        max_bad_word_bytes: Maximum size of a bad word.
        max_logit_biases: Maximum number of logit biases per request.
        max_choices: Maximum number of values of a `Choices` constraint.
        max_constraint_bytes: Maximum size of a schema, expression or grammar, or of all
            values of a `Choices` constraint together.
        max_grammar_ms: Maximum time to compile a constraint, in milliseconds.
        max_tokenize_bytes: Maximum size of the text of one `tokenize`, or of one that
            `Options.truncate_prompt` may truncate.
    """

    context_length: int
    max_sequences: int
    max_queued: int
    max_beams: int
    max_candidates: int
    max_top_logprobs: int
    default_max_new_tokens: int
    max_message_bytes: int
    max_prompts: int
    max_continuations: int
    max_stop_strings: int
    max_stop_string_bytes: int
    max_stop_token_ids: int
    max_bad_words: int
    max_bad_word_bytes: int
    max_logit_biases: int
    max_choices: int
    max_constraint_bytes: int
    max_grammar_ms: int
    max_tokenize_bytes: int = 0


@dataclass(frozen=True)
class Model:
    """Loaded model of a server.

    Attributes:
        name: Name of the model in requests.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal.
        profile: Export profile, such as `fp32`, `int8` or `int4`.
        parameters: Number of parameters of the checkpoint.
        vocabulary_size: Number of tokens in the vocabulary.
        limits: Limits of requests.
        quality: Quality figures of the bundle's manifest.
        recipe: Export recipe of the bundle's manifest: bits, block sizes, cache type.
        kernels: Kernels that its operators run on, such as `avx512` or `onnxruntime`.
        tokenizer: Kind of its tokenizer, such as byte-level BPE or WordPiece.
        eos_token_ids: Tokens that end a text; empty if the model has none.
        constraint_error: Reason why it takes no constraints; empty if it takes them.
        stored_choices: Names of the lists of choices that the server has read for it.
    """

    name: str
    fingerprint: str
    profile: str
    parameters: int
    vocabulary_size: int
    limits: ModelLimits
    quality: dict[str, Any]
    recipe: dict[str, Any]
    kernels: str
    tokenizer: str = ""
    eos_token_ids: tuple[int, ...] = ()
    constraint_error: str = ""
    stored_choices: tuple[str, ...] = ()
