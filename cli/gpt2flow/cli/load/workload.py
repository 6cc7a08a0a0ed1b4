"""Requests of a run, with random prompts or those of a file."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.prompts import FilePrompt, Lengths
from gpt2flow.client import AsyncClient, Options, Sampling

# Random prompts draw from the tokens of this text: ordinary ones, at their frequency in
# English, and no special ones.
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
    """One request to send.

    Attributes:
        prompt: Text or token ids.
        options: Generation options.
    """

    prompt: str | Sequence[int]
    options: Options


def request_options(options: Options, output_tokens: int, rng: Random) -> Options:
    """Return the options of one request: its output length and sampling seed."""
    decoding = options.decoding
    if isinstance(decoding, Sampling) and decoding.temperature:
        decoding = replace(decoding, seed=rng.getrandbits(63))
    return replace(options, decoding=decoding, max_new_tokens=output_tokens)


async def fetch_token_pool(client: AsyncClient, model: str) -> list[int]:
    """Return token ids of English text to draw random prompts from.

    Raises:
        ClientError: The call failed.
        LoadError: The model encodes the text into no tokens.
    """
    ids = [token.id for token in await client.tokenize(_PASSAGE, model=model)]
    if not ids:
        raise LoadError("the server's Tokenize returns no token for English text; use --prompts")
    return ids


def random_requests(
    tokens: Sequence[int],
    prompt_lengths: Lengths,
    output_lengths: Lengths,
    options: Options,
    *,
    shared_prefix: int,
    rng: Random,
) -> Iterator[Request]:
    """Yield an unlimited number of requests with random prompts.

    The prompts are token ids, so that their lengths are exact. Each one is new, so that a
    prefix cache helps with the shared prefix only.

    Args:
        tokens: Token ids to draw prompts from.
        prompt_lengths: Distribution of prompt lengths, without the shared prefix.
        output_lengths: Distribution of output lengths.
        options: Options that all requests share.
        shared_prefix: Number of tokens that all prompts start with.
        rng: Random numbers.
    """
    prefix = rng.choices(tokens, k=shared_prefix)
    while True:
        prompt = prefix + rng.choices(tokens, k=prompt_lengths.draw(rng))
        yield Request(prompt, request_options(options, output_lengths.draw(rng), rng))


def file_requests(
    prompts: Sequence[FilePrompt], output_lengths: Lengths, options: Options, *, rng: Random
) -> Iterator[Request]:
    """Yield requests with the prompts of a file, in order and repeatedly."""
    for prompt in itertools.cycle(prompts):
        output_tokens = prompt.max_new_tokens or output_lengths.draw(rng)
        yield Request(prompt.text, request_options(options, output_tokens, rng))
