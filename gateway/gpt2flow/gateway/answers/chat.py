"""Answers of chat completions, whole and in chunks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt2flow.client import Candidate, Delta, Generation, TokenLogprob
from gpt2flow.gateway.answers.envelope import Envelope, ending, write_json
from gpt2flow.gateway.answers.logprobs import chat_logprobs
from gpt2flow.gateway.chat.tools import AnswerReader, AnswerText
from gpt2flow.gateway.plan.plan import Plan


@dataclass
class _Stream:
    """State of one choice in a stream."""

    reader: AnswerReader
    has_started: bool = False
    # Log-probabilities of text that is held back.
    logprobs: list[TokenLogprob] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


class ChatWriter:
    """Writer of one answer.

    Args:
        envelope: Identity of the answer.
        plan: Plan of the request.
        starts: Text that every call of a tool starts with, by its name.
    """

    def __init__(self, envelope: Envelope, plan: Plan, starts: Mapping[str, str]) -> None:
        self.envelope = envelope
        self._plan = plan
        self._starts = dict(starts)
        self._head, self._tail = envelope.chunk_parts()
        self._streams: dict[int, _Stream] = defaultdict(lambda: _Stream(self._reader()))

    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """Return the answer."""
        [generation] = generations
        choices = [self._choice(generation, each) for each in generation.candidates]
        return self.envelope.whole(choices, generations)

    def delta(self, _prompt: int, delta: Delta) -> bytes:
        """Return the chunk of new text; empty while it is held back."""
        stream = self._streams[delta.index]
        new = stream.reader.feed(delta.text)
        stream.logprobs += delta.logprobs
        stream.token_ids += delta.token_ids
        return self._chunk(delta.index, stream, new) if new else b""

    def end(self, _prompt: int, generation: Generation) -> bytes:
        """Return the last chunks."""
        chunks = []
        for candidate in generation.candidates:
            stream = self._streams[candidate.index]
            if self._plan.is_whole:
                stream.logprobs, stream.token_ids = (
                    list(candidate.logprobs),
                    list(candidate.token_ids),
                )
                if new := stream.reader.feed(candidate.text):
                    chunks.append(self._chunk(candidate.index, stream, new))
            new = stream.reader.finish(candidate.finish_reason)
            if new or stream.logprobs or not stream.has_started:
                chunks.append(self._chunk(candidate.index, stream, new))
            choice = {"index": candidate.index, "delta": {}, "logprobs": None}
            choice |= self._ending(generation, candidate, stream.reader)
            chunks.append(self.envelope.last_chunk(choice, generation))
        return b"".join(chunks)

    def _reader(self) -> AnswerReader:
        return AnswerReader(self._starts)

    def _chunk(self, index: int, stream: _Stream, new: AnswerText) -> bytes:
        first = b""
        if not stream.has_started:
            stream.has_started = True
            first = self._write({"index": index, "delta": {"role": "assistant", "content": ""}})
        delta: dict[str, Any] = {"content": new.content}
        if new.name is not None or new.arguments:
            delta = {"tool_calls": [_call_delta(new)]}
        choice: dict[str, Any] = {"index": index, "delta": delta}
        if self._plan.options.logprobs:
            choice["logprobs"] = {"content": chat_logprobs(stream.logprobs), "refusal": None}
        if stream.token_ids:
            choice["token_ids"] = stream.token_ids
        stream.logprobs, stream.token_ids = [], []
        return first + self._write(choice)

    def _write(self, choice: dict[str, Any]) -> bytes:
        choice = {"logprobs": None, "finish_reason": None} | choice
        return f"{self._head}{write_json(choice)}{self._tail}".encode()

    def _choice(self, generation: Generation, candidate: Candidate) -> dict[str, Any]:
        """Return a whole choice."""
        reader = self._reader()
        parts = [reader.feed(candidate.text), reader.finish(candidate.finish_reason)]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(part.content for part in parts),
            "refusal": None,
        }
        if reader.name is not None:
            arguments = "".join(part.arguments for part in parts)
            function = {"name": reader.name, "arguments": arguments}
            call = {"id": parts[0].call_id, "type": "function", "function": function}
            message |= {"content": None, "tool_calls": [call]}
        logprobs = None
        if self._plan.options.logprobs:
            logprobs = {"content": chat_logprobs(candidate.logprobs), "refusal": None}
        choice = {"index": candidate.index, "message": message, "logprobs": logprobs}
        if self._plan.options.token_ids:
            choice["token_ids"] = candidate.token_ids
        return choice | self._ending(generation, candidate, reader)

    def _ending(
        self, generation: Generation, candidate: Candidate, reader: AnswerReader
    ) -> dict[str, Any]:
        """Return what is known of a choice at its end."""
        known = ending(self._plan, generation, candidate)
        if reader.name is not None and known["finish_reason"] == "stop":
            known["finish_reason"] = "tool_calls"
        return known


def _call_delta(new: AnswerText) -> dict[str, Any]:
    """Return new text of a call; the first piece names the tool."""
    if new.name is None:
        return {"index": 0, "function": {"arguments": new.arguments}}
    function = {"name": new.name, "arguments": new.arguments}
    return {"index": 0, "id": new.call_id, "type": "function", "function": function}
