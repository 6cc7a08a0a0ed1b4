"""Fields of a completion request."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from gpt2flow.gateway.fields.generation import AtLeastOne, Count, GenerationFields

_RULE = "must be text, a list of texts, token ids or a list of these, not empty"


def _prompt_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list) or not value:
        return None
    if isinstance(value[0], str):
        return "<texts>"
    return "<lists>" if isinstance(value[0], list) else "<ids>"


PromptField = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], Tag("<texts>")]
    | Annotated[list[Count], Tag("<ids>")]
    | Annotated[list[list[Count]], Tag("<lists>")],
    Discriminator(_prompt_kind, custom_error_type="prompt", custom_error_message=_RULE),
]


class CompletionRequest(GenerationFields):
    """Fields of `POST /v1/completions`."""

    prompt: PromptField
    best_of: AtLeastOne | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None

    literal: bool | None = None
    add_special_tokens: bool | None = None

    suffix: None = None

    @property
    def prompts(self) -> Sequence[str | Sequence[int]]:
        """Prompts as texts or token ids."""
        given: Any = self.prompt
        is_one = isinstance(given, str) or isinstance(given[0], int)
        return [given] if is_one else given
