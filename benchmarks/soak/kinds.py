"""The kinds of requests that a soak sends, and which answers are right."""

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

_GRAMMARS: Final = 300

# Sends one request through a stub; returns the time of its first token, if that is known.
Send = Callable[[Any, random.Random], Awaitable[float | None]]


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        share: How often it comes, relative to the others.
        send: Sends one.
        codes: Status codes that are right. A full queue (RESOURCE_EXHAUSTED) always is.
    """

    share: int
    send: Send
    codes: frozenset[str] = frozenset({"OK"})


def _prompt(drawn: random.Random) -> pb.Prompt:
    return pb.Prompt(text=" ".join(drawn.choices(_WORDS, k=drawn.randint(4, 60))))


def _options(drawn: random.Random, **fields: Any) -> pb.GenerationOptions:
    stopping = pb.StoppingCriteria(max_new_tokens=drawn.randint(8, 96))
    return pb.GenerationOptions(stopping=stopping, priority=drawn.randint(-1, 1), **fields)


async def _read(
    stub: Any, drawn: random.Random, options: pb.GenerationOptions, most: int = 1 << 30
) -> float | None:
    """Read a stream to its end, or cancels it after so many messages."""
    request = pb.GenerateStreamRequest(prompt=_prompt(drawn), options=options)
    call, first, messages = stub.GenerateStream(request), None, 0
    async for _ in call:
        first = first or asyncio.get_running_loop().time()
        messages += 1
        if messages == most:
            call.cancel()
    return first


async def _greedy(stub: Any, drawn: random.Random) -> float | None:
    sampling = pb.SamplingParams(temperature=0)
    return await _read(stub, drawn, _options(drawn, sampling=sampling))


async def _sampled(stub: Any, drawn: random.Random) -> float | None:
    sampling = pb.SamplingParams(top_p=0.9, n=drawn.randint(1, 4))
    output = pb.OutputOptions(logprobs=True, top_logprobs=5)
    return await _read(stub, drawn, _options(drawn, sampling=sampling, output=output))


async def _constrained(stub: Any, drawn: random.Random) -> float | None:
    constraint = drawn.choice(
        [
            pb.Constraint(json_schema=_SCHEMA),
            pb.Constraint(choices=pb.Choices(values=_CHOICES)),
            # Never the same twice: every one is compiled.
            pb.Constraint(regex=_unheard_of(drawn)),
        ]
    )
    return await _read(stub, drawn, _options(drawn, constraint=constraint))


def _unheard_of(drawn: random.Random) -> str:
    return f"order {drawn.randint(0, 10**9)} [a-z]{{2,9}}"


async def fill_grammars(stub: Any) -> None:
    """Send more constraints than a server remembers, so that its memory of them is full."""
    drawn = random.Random(0)
    stopping = pb.StoppingCriteria(max_new_tokens=1)
    for _ in range(_GRAMMARS):
        constraint = pb.Constraint(regex=_unheard_of(drawn))
        options = pb.GenerationOptions(stopping=stopping, constraint=constraint)
        await stub.Generate(pb.GenerateRequest(prompts=[_prompt(drawn)], options=options))


async def _cancelled(stub: Any, drawn: random.Random) -> float | None:
    return await _read(stub, drawn, _options(drawn), most=drawn.randint(1, 20))


async def _beams(stub: Any, drawn: random.Random) -> None:
    beams = pb.BeamSearchParams(num_beams=drawn.randint(2, 4))
    options = _options(drawn, beam_search=beams)
    await stub.Generate(pb.GenerateRequest(prompts=[_prompt(drawn)], options=options))


async def _scored(stub: Any, drawn: random.Random) -> None:
    continuations = [pb.Prompt(text=f" {text}") for text in _CHOICES]
    await stub.Score(pb.ScoreRequest(prompt=_prompt(drawn), continuations=continuations))


async def _invalid(stub: Any, drawn: random.Random) -> None:
    options = drawn.choice(
        [
            _options(drawn, sampling=pb.SamplingParams(temperature=-1)),
            _options(drawn, constraint=pb.Constraint(regex="(((")),
            _options(drawn, output=pb.OutputOptions(top_logprobs=9)),
        ]
    )
    await stub.Generate(pb.GenerateRequest(prompts=[_prompt(drawn)], options=options))


async def _tokenized(stub: Any, drawn: random.Random) -> None:
    await stub.Tokenize(pb.TokenizeRequest(text=_prompt(drawn).text))


KINDS: Final = {
    "greedy": Kind(30, _greedy),
    "sampled": Kind(15, _sampled),
    "constrained": Kind(15, _constrained),
    # Some have ended before they are cancelled.
    "cancelled": Kind(10, _cancelled, frozenset({"OK", "CANCELLED"})),
    "beams": Kind(8, _beams),
    "scored": Kind(8, _scored),
    "invalid": Kind(8, _invalid, frozenset({"INVALID_ARGUMENT"})),
    "tokenized": Kind(6, _tokenized),
}
ALWAYS_RIGHT: Final = frozenset({"RESOURCE_EXHAUSTED"})
