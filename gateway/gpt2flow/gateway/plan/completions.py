"""Plan of a completion."""

from collections.abc import Sequence
from typing import Final

from gpt2flow.client import BeamSearch, Prompt, Text
from gpt2flow.gateway.errors import invalid_field
from gpt2flow.gateway.fields.completion import CompletionRequest
from gpt2flow.gateway.plan.decoding import plan_decoding
from gpt2flow.gateway.plan.options import plan_constraint, plan_options
from gpt2flow.gateway.plan.plan import Plan

# Default of OpenAI's API.
DEFAULT_MAX_TOKENS: Final = 16
# Each prompt of a stream is a call of its own.
MAX_STREAMED_PROMPTS: Final = 64


def plan_completion(fields: CompletionRequest) -> Plan:
    """Return the plan of a completion.

    Raises:
        ApiError: Fields contradict each other.
    """
    decoding = plan_decoding(fields, fields.best_of)
    prompts = _prompts(fields)
    if fields.stream and len(prompts) > MAX_STREAMED_PROMPTS:
        raise invalid_field(
            "prompt", f"has {len(prompts)} prompts, a stream at most {MAX_STREAMED_PROMPTS}"
        )
    scored = fields.logprobs is not None
    scores_echo = scored and bool(fields.echo)
    options = plan_options(
        fields,
        decoding,
        plan_constraint(fields, {}),
        max_new_tokens=DEFAULT_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens,
        logprobs=scored,
        top_logprobs=fields.logprobs or 0,
        prompt_logprobs=scores_echo or bool(fields.prompt_logprobs),
        echo=bool(fields.echo),
    )
    names = {"top_logprobs": "logprobs"}
    if fields.num_beams is None:
        names["num_beams"] = "best_of"
    # The log-probabilities of the prompt come last, and stand first in an echo.
    is_whole = isinstance(decoding, BeamSearch) or scores_echo
    return Plan(
        fields.model,
        prompts,
        options,
        names,
        is_whole=is_whole,
        shows_prompt=bool(fields.prompt_logprobs),
    )


def _prompts(fields: CompletionRequest) -> Sequence[Prompt]:
    prompts = fields.prompts
    if fields.literal is None and fields.add_special_tokens is None:
        return prompts
    texts = []
    for prompt in prompts:
        if not isinstance(prompt, str):
            name = "literal" if fields.literal is not None else "add_special_tokens"
            raise invalid_field(name, "is about text, and the prompt is token ids")
        texts.append(Text(prompt, bool(fields.literal), fields.add_special_tokens))
    return texts
