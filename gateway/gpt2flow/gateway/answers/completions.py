"""Answers of completions, whole and in chunks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt2flow.client import BeamSearch, Candidate, Delta, Generation, TokenLogprob
from gpt2flow.gateway.answers.envelope import Envelope, ending, write_json
from gpt2flow.gateway.answers.logprobs import TokenOffsets, completion_logprobs
from gpt2flow.gateway.plan.plan import Plan


@dataclass
class CompletionWriter:
    """Writer of one answer.

    Attributes:
        envelope: Identity of the answer.
        plan: Plan of the request.
        starts: Characters before the text of each prompt's choices.
    """

    envelope: Envelope
    plan: Plan
    starts: Sequence[int]
    _offsets: dict[int, TokenOffsets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write what all chunks share."""
        self._head, self._tail = self.envelope.chunk_parts()

    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """Return the answer."""
        choices = [
            self._choice(prompt, generation, candidate)
            for prompt, generation in enumerate(generations)
            for candidate in generation.candidates
        ]
        return self.envelope.whole(choices, generations)

    def delta(self, prompt: int, delta: Delta) -> bytes:
        """Return the chunk of new text."""
        index = self._index(prompt, delta.index)
        if not self.plan.options.logprobs and not delta.token_ids:
            # The usual chunk, as fast as can be.
            return (
                f'{self._head}{{"index":{index},"text":{json.dumps(delta.text)},'
                f'"logprobs":null,"finish_reason":null}}{self._tail}'
            ).encode()
        choice = self._content(prompt, delta.index, delta.text, delta.logprobs)
        if delta.token_ids:
            choice["token_ids"] = delta.token_ids
        return f"{self._head}{write_json(choice)}{self._tail}".encode()

    def end(self, prompt: int, generation: Generation) -> bytes:
        """Return the last chunks of a prompt."""
        chunks = []
        for candidate in generation.candidates:
            if self.plan.is_whole:
                choice = self._choice(prompt, generation, candidate)
            else:
                choice = self._content(prompt, candidate.index, "", ())
                choice |= ending(self.plan, generation, candidate)
            chunks.append(self.envelope.last_chunk(choice, generation))
        return b"".join(chunks)

    def _choice(self, prompt: int, generation: Generation, candidate: Candidate) -> dict[str, Any]:
        """Return a whole choice."""
        positions = candidate.logprobs
        if self.plan.options.echo:
            positions = generation.prompt_logprobs + positions
        choice = self._content(prompt, candidate.index, candidate.text, positions)
        if self.plan.options.token_ids:
            choice["token_ids"] = candidate.token_ids
        return choice | ending(self.plan, generation, candidate)

    def _content(
        self, prompt: int, candidate: int, text: str, positions: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        """Return a choice with a text that may go on."""
        index = self._index(prompt, candidate)
        logprobs = None
        if self.plan.options.logprobs:
            start = 0 if self.plan.options.echo else self.starts[prompt]
            offsets = self._offsets.setdefault(index, TokenOffsets(start))
            logprobs = completion_logprobs(positions, text, offsets)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def _index(self, prompt: int, candidate: int) -> int:
        return prompt * candidates(self.plan) + candidate


def candidates(plan: Plan) -> int:
    """Return the number of choices of each prompt."""
    decoding = plan.options.decoding
    if isinstance(decoding, BeamSearch):
        return decoding.num_return_sequences or 1
    return decoding.n or 1
