"""Request kinds of the soak test, with their valid status codes."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from gpt2flow.inference.v1 import inference_pb2 as pb

_WORDS: Final = (
    "I",
    "want",
    "to",
    "return",
    "the",
    "blue",
    "cup",
    "that",
    "I",
    "ordered",
    "please",
)
_SCHEMA: Final = (
    '{"type": "object", "properties": {"amount": {"type": "integer", "maximum": 99}, '
    '"item": {"enum": ["cup", "lamp"]}}, "required": ["amount", "item"], '
    '"additionalProperties": false}'
)
_CHOICES: Final = ["refund", "exchange", "return", "question"]

_GRAMMAR_COUNT: Final = 300

# Sends one request through a stub. Returns the loop time of its first token, None if not streamed.
Send = Callable[[Any, random.Random], Awaitable[float | None]]


@dataclass(frozen=True)
class Kind:
    """Kind of request.

    Attributes:
        share: Frequency, relative to the other kinds.
        send: Function that sends one request.
        codes: Valid status codes. RESOURCE_EXHAUSTED (queue full) is always valid, too.
    """

    share: int
    send: Send
    codes: frozenset[str] = frozenset({"OK"})


def _draw_prompt(rng: random.Random) -> pb.Prompt:
    return pb.Prompt(text=" ".join(rng.choices(_WORDS, k=rng.randint(4, 60))))


def _draw_options(rng: random.Random, **fields: Any) -> pb.GenerationOptions:
    stopping = pb.StoppingCriteria(max_new_tokens=rng.randint(8, 96))
    return pb.GenerationOptions(stopping=stopping, priority=rng.randint(-1, 1), **fields)


async def _read_stream(
    stub: Any, rng: random.Random, options: pb.GenerationOptions, max_messages: int = 1 << 30
) -> float | None:
    """Read a stream to its end, or cancel it after `max_messages` messages.

    Returns:
        Loop time of the first message, None without one.
    """
    request = pb.GenerateStreamRequest(prompt=_draw_prompt(rng), options=options)
    call, first, messages = stub.GenerateStream(request), None, 0
    async for _ in call:
        first = first or asyncio.get_running_loop().time()
        messages += 1
        if messages == max_messages:
            call.cancel()
    return first


async def _send_greedy(stub: Any, rng: random.Random) -> float | None:
    sampling = pb.SamplingParams(temperature=0)
    return await _read_stream(stub, rng, _draw_options(rng, sampling=sampling))


async def _send_sampled(stub: Any, rng: random.Random) -> float | None:
    sampling = pb.SamplingParams(top_p=0.9, n=rng.randint(1, 4))
    output = pb.OutputOptions(logprobs=True, top_logprobs=5)
    return await _read_stream(stub, rng, _draw_options(rng, sampling=sampling, output=output))


async def _send_constrained(stub: Any, rng: random.Random) -> float | None:
    constraint = rng.choice(
        [
            pb.Constraint(json_schema=_SCHEMA),
            pb.Constraint(choices=pb.Choices(values=_CHOICES)),
            # Unique, so that the server compiles it.
            pb.Constraint(regex=_unique_regex(rng)),
        ]
    )
    return await _read_stream(stub, rng, _draw_options(rng, constraint=constraint))


def _unique_regex(rng: random.Random) -> str:
    return f"order {rng.randint(0, 10**9)} [a-z]{{2,9}}"


async def fill_grammars(stub: Any) -> None:
    """Send more distinct constraints than the server caches, to fill the cache."""
    rng = random.Random(0)
    stopping = pb.StoppingCriteria(max_new_tokens=1)
    for _ in range(_GRAMMAR_COUNT):
        constraint = pb.Constraint(regex=_unique_regex(rng))
        options = pb.GenerationOptions(stopping=stopping, constraint=constraint)
        await stub.Generate(pb.GenerateRequest(prompts=[_draw_prompt(rng)], options=options))


async def _send_cancelled(stub: Any, rng: random.Random) -> float | None:
    return await _read_stream(stub, rng, _draw_options(rng), max_messages=rng.randint(1, 20))


async def _send_beams(stub: Any, rng: random.Random) -> None:
    beams = pb.BeamSearchParams(num_beams=rng.randint(2, 4))
    options = _draw_options(rng, beam_search=beams)
    await stub.Generate(pb.GenerateRequest(prompts=[_draw_prompt(rng)], options=options))


async def _send_scored(stub: Any, rng: random.Random) -> None:
    continuations = [pb.Prompt(text=f" {text}") for text in _CHOICES]
    await stub.Score(pb.ScoreRequest(prompt=_draw_prompt(rng), continuations=continuations))


async def _send_invalid(stub: Any, rng: random.Random) -> None:
    options = rng.choice(
        [
            _draw_options(rng, sampling=pb.SamplingParams(temperature=-1)),
            _draw_options(rng, constraint=pb.Constraint(regex="(((")),
            _draw_options(rng, output=pb.OutputOptions(top_logprobs=9)),
        ]
    )
    await stub.Generate(pb.GenerateRequest(prompts=[_draw_prompt(rng)], options=options))


async def _send_tokenized(stub: Any, rng: random.Random) -> None:
    await stub.Tokenize(pb.TokenizeRequest(text=_draw_prompt(rng).text))


KINDS: Final = {
    "greedy": Kind(30, _send_greedy),
    "sampled": Kind(15, _send_sampled),
    "constrained": Kind(15, _send_constrained),
    # Some end before they are cancelled.
    "cancelled": Kind(10, _send_cancelled, frozenset({"OK", "CANCELLED"})),
    "beams": Kind(8, _send_beams),
    "scored": Kind(8, _send_scored),
    "invalid": Kind(8, _send_invalid, frozenset({"INVALID_ARGUMENT"})),
    "tokenized": Kind(6, _send_tokenized),
}
ALWAYS_VALID: Final = frozenset({"RESOURCE_EXHAUSTED"})
