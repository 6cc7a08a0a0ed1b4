"""Fields that both kinds of generation have."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag
from pydantic_core import PydanticCustomError

_MAX_UINT32: Final = 2**32 - 1
_MAX_INT32: Final = 2**31 - 1

# A number of the protocol that is never negative.
Count = Annotated[int, Field(ge=0, le=_MAX_UINT32)]
AtLeastOne = Annotated[int, Field(ge=1, le=_MAX_UINT32)]

# Fields that OpenAI has not: the `openai` package sends them by `extra_body`.
EXTRA: Final = frozenset(
    {
        *("add_special_tokens", "bad_words", "choices", "early_stopping", "ignore_eos"),
        *("include_special_tokens", "include_stop_string", "json_schema", "lark", "length_penalty"),
        *("literal", "min_p", "min_tokens", "no_repeat_ngram_size", "num_beams", "priority"),
        *("prompt_logprobs", "regex", "repetition_penalty", "return_partial_on_time_limit"),
        *("stop_token_ids", "stored_choices", "time_limit_ms", "token_ids", "top_k"),
        *("truncate_prompt", "typical_p"),
    }
)
# Fields that annotate a request; they change nothing.
IGNORED: Final = frozenset(
    {
        *("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"),
        *("safety_identifier", "service_tier", "store", "user"),
    }
)
# Fields that only null may have, and why.
REFUSED: Final = {
    "audio": "the models generate text only",
    "function_call": "was replaced by tool_choice",
    "functions": "was replaced by tools",
    "moderation": "nothing is moderated",
    "prediction": "drafts come from the prompt by themselves",
    "prompt_cache_options": "prefixes are cached by themselves",
    "reasoning_effort": "the models do not reason",
    "suffix": "the models cannot insert text",
    "verbosity": "the models take no such instruction",
    "web_search_options": "nothing is searched",
}


def union_kind(value: Any) -> str:
    """Return the tag of a value of the type "text or list"."""
    return "<text>" if isinstance(value, str) else "<list>"


# Tags stand in angle brackets, so that paths of errors leave them out.
TextOrTexts = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<list>")], Discriminator(union_kind)
]
ObjectOrText = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[dict[str, Any], Tag("<list>")],
    Discriminator(union_kind),
]


def _check_token_ids(values: dict[str, float]) -> dict[str, float]:
    for key in values:
        # Longer digits could not be a token, and take long to convert.
        if not (key.isascii() and key.isdecimal()) or int(key[:11]) > _MAX_UINT32:
            raise PydanticCustomError(
                "token_id", "key {key} is no token id", {"key": repr(key[:40])}
            )
    return values


class RequestPart(BaseModel):
    """Base class of parts of a request: typed, frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StreamOptions(RequestPart):
    """Options of a stream.

    Attributes:
        include_usage: Whether a last chunk has the usage.
        include_obfuscation: Has no effect: chunks are never padded.
        continuous_usage_stats: Has no effect: the server counts at the end.
    """

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationFields(RequestPart):
    """Fields of completions and chat completions; null is the same as absent.

    docs/gateway.md describes each.
    """

    model: Annotated[str, Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    n: AtLeastOne | None = None
    # Negative seeds of other APIs are 64 bits too.
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    temperature: FiniteFloat | None = None
    top_p: FiniteFloat | None = None
    presence_penalty: FiniteFloat | None = None
    frequency_penalty: FiniteFloat | None = None
    logit_bias: Annotated[dict[str, FiniteFloat], AfterValidator(_check_token_ids)] | None = None
    stop: TextOrTexts | None = None
    max_tokens: Count | None = None

    top_k: Count | None = None
    min_p: FiniteFloat | None = None
    typical_p: FiniteFloat | None = None
    repetition_penalty: FiniteFloat | None = None
    no_repeat_ngram_size: Count | None = None
    bad_words: list[str] | None = None
    num_beams: AtLeastOne | None = None
    length_penalty: FiniteFloat | None = None
    early_stopping: Literal[True, False, "never"] | None = None

    min_tokens: Count | None = None
    stop_token_ids: list[Count] | None = None
    include_stop_string: bool | None = None
    ignore_eos: bool | None = None
    time_limit_ms: Count | None = None
    return_partial_on_time_limit: bool | None = None
    truncate_prompt: bool | None = None
    priority: Annotated[int, Field(ge=-_MAX_INT32, le=_MAX_INT32)] | None = None

    json_schema: ObjectOrText | None = None
    regex: str | None = None
    lark: str | None = None
    choices: list[str] | None = None
    stored_choices: str | None = None

    prompt_logprobs: bool | None = None
    token_ids: bool | None = None
    include_special_tokens: bool | None = None

    metadata: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    user: Any = None

    moderation: None = None
    prompt_cache_options: None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end the text."""
        if isinstance(self.stop, str):
            return (self.stop,)
        return tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
