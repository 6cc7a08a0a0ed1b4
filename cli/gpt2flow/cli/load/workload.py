"""What is sent: prompts of wanted lengths, or those of a file."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.prompts import FilePrompt, Lengths
from gpt2flow.client import AsyncClient, Options, Sampling

# Its tokens are the ones that prompts are drawn from: ordinary ones, as often
# as they are in text, and no special ones.
_PASSAGE = """\
The parcel left the warehouse on Monday and reached the town before the rain began. A woman at
the counter looked for the number, wrote 1042 on a slip of paper and asked whether anybody had
seen the blue umbrella that was ordered last week. Nobody had. So she called the driver, who
remembered a small house near the river, two children playing in the garden, and an old man who
paid with coins. "We will send another one," she said, "and the first may come back when it is
found." In the evening the office was quiet; only the clock, the printer and a radio in the next
room made any sound. Every order of the day was in the book: eleven lamps, three kettles, a box
of green tea, and one letter without a name."""


@dataclass(frozen=True)
class Request:
    """One request as it is sent: text or token ids, and what is asked for."""

    prompt: str | Sequence[int]
    options: Options


def with_length(options: Options, tokens: int, rng: Random) -> Options:
    """Return options for one request: its length, and a seed if it samples."""
    decoding = options.decoding
    if isinstance(decoding, Sampling) and decoding.temperature:
        decoding = replace(decoding, seed=rng.getrandbits(63))
    return replace(options, decoding=decoding, max_new_tokens=tokens)


async def ordinary_tokens(client: AsyncClient, model: str) -> list[int]:
    """Return token ids to make prompts of.

    Raises:
        LoadError: The model has no tokens for English text.
    """
    ids = [token.id for token in await client.tokenize(_PASSAGE, model=model)]
    if not ids:
        raise LoadError("the server's Tokenize answers English text with no token")
    return ids


def drawn_requests(
    tokens: Sequence[int],
    prompt_lengths: Lengths,
    output_lengths: Lengths,
    options: Options,
    *,
    shared_prefix: int,
    rng: Random,
) -> Iterator[Request]:
    """Yield requests without end, each with another prompt.

    The prompts are token ids, so that their lengths are exact. Each is drawn
    anew, so that no cache of prompts can help beyond the shared prefix.

    Args:
        tokens: What prompts are drawn from.
        prompt_lengths: Of prompts, without the prefix.
        output_lengths: Of outputs.
        options: What all requests ask for.
        shared_prefix: Tokens that all prompts begin with.
        rng: Draws all of it.
    """
    prefix = rng.choices(tokens, k=shared_prefix)
    while True:
        prompt = prefix + rng.choices(tokens, k=prompt_lengths.draw(rng))
        yield Request(prompt, with_length(options, output_lengths.draw(rng), rng))


def filed_requests(
    prompts: Sequence[FilePrompt], output_lengths: Lengths, options: Options, *, rng: Random
) -> Iterator[Request]:
    """Yield the prompts of a file in order, over and over."""
    for prompt in itertools.cycle(prompts):
        tokens = prompt.max_new_tokens or output_lengths.draw(rng)
        yield Request(prompt.text, with_length(options, tokens, rng))
