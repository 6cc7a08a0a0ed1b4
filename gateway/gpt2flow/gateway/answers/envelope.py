"""Parts that every answer has: id, time, model, usage."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpt2flow.client import BeamSearch, Candidate, Generation
from gpt2flow.gateway.answers.logprobs import chat_logprobs
from gpt2flow.gateway.plan.plan import Plan

# Words of OpenAI for the reasons of an end.
FINISH_REASONS: Final = {
    "eos": "stop",
    "stop": "stop",
    "constraint": "stop",
    "length": "length",
    "time_limit": "length",
}


@dataclass(frozen=True)
class Envelope:
    """Identity of one answer.

    Attributes:
        id: Id of the answer.
        kind: Value of `object`.
        model: Name of the model, as the request has it.
        has_usage: Whether a stream ends with the usage.
        created: Time of the request, in seconds since 1970.
    """

    id: str
    kind: str
    model: str
    has_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(self, choices: Sequence[dict[str, Any]], fingerprint: str | None) -> dict[str, Any]:
        """Return an answer with these choices."""
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint,
            "choices": list(choices),
        }

    def whole(
        self, choices: Sequence[dict[str, Any]], generations: Sequence[Generation]
    ) -> dict[str, Any]:
        """Return the answer that does not stream."""
        answer = self.wrap(choices, generations[0].fingerprint)
        return answer | {"usage": usage(generations)}

    def chunk_parts(self) -> tuple[str, str]:
        """Return what stands before and after the choice of a chunk.

        Only the end of a stream names the fingerprint of the bundle.
        """
        head = write_json(self.wrap([], None)).removesuffix("]}")
        return f"data: {head}", '],"usage":null}\n\n' if self.has_usage else "]}\n\n"

    def last_chunk(self, choice: dict[str, Any], generation: Generation) -> bytes:
        """Return the chunk that ends a choice."""
        answer = self.wrap([choice], generation.fingerprint)
        return _event(answer | {"usage": None} if self.has_usage else answer)

    def usage_chunk(self, generations: Sequence[Generation]) -> bytes:
        """Return the chunk that has no choice but the usage."""
        return _event(self.whole([], generations))


def ending(plan: Plan, generation: Generation, candidate: Candidate) -> dict[str, Any]:
    """Return what is known of a choice at its end.

    Args:
        plan: Plan of the request.
        generation: Generation of the choice's prompt.
        candidate: Candidate that is the choice.
    """
    known: dict[str, Any] = {"finish_reason": FINISH_REASONS[candidate.finish_reason]}
    if plan.shows_prompt:
        known["prompt_logprobs"] = chat_logprobs(generation.prompt_logprobs)
    if isinstance(plan.options.decoding, BeamSearch):
        known["beam_score"] = candidate.beam_score
    return known


def usage(generations: Sequence[Generation]) -> dict[str, Any]:
    """Return the token counts of all prompts together."""
    counts = [each.usage for each in generations]
    prompt = sum(each.prompt_tokens for each in counts)
    completion = sum(each.completion_tokens for each in counts)
    details = {"cached_tokens": sum(each.cached_tokens for each in counts)}
    if truncated := sum(each.truncated_tokens for each in counts):
        details["truncated_tokens"] = truncated
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
    }


def _event(content: dict[str, Any]) -> bytes:
    """Return an object as one server-sent event."""
    return f"data: {write_json(content)}\n\n".encode()


def write_json(content: object) -> str:
    """Return JSON in ASCII, which has no other line breaks."""
    return json.dumps(content, separators=(",", ":"))
