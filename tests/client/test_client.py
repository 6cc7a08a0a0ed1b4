"""Tests of both clients against a real server."""

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gpt2flow.client import (
    AsyncClient,
    BeamSearch,
    Choices,
    Client,
    DeadlineExceededError,
    Delta,
    Generation,
    InvalidRequestError,
    JsonSchema,
    Lark,
    NotFoundError,
    Options,
    Prompt,
    Regex,
    Sampling,
    Scores,
    Text,
    UnavailableError,
    Usage,
)

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"
GREEDY = Options(decoding=Sampling(temperature=0.0), max_new_tokens=24)


def counted(generation: Generation) -> Usage:
    """Return the counts without those of the cache and of drafts."""
    return replace(generation.usage, cached_tokens=0, drafted_tokens=0, accepted_tokens=0)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as opened:
        yield opened


def test_streamed_chunks_join_to_the_unary_text(client: Client) -> None:
    whole = client.generate(PROMPT, GREEDY)
    *deltas, last = client.stream(PROMPT, GREEDY)
    assert isinstance(last, Generation)
    assert "".join(d.text for d in deltas if isinstance(d, Delta)) == whole.text
    assert len(deltas) > 1
    assert last.text == whole.text
    # The second request reuses the cached prefix of the first.
    assert last.usage.cached_tokens > 0
    assert counted(last) == counted(whole)
    assert last.candidates[0].finish_reason == whole.candidates[0].finish_reason


def test_async_and_sync_client_return_the_same_results(client: Client, address: str) -> None:
    async def ask() -> tuple[Generation, str, list[str], str]:
        async with AsyncClient(address) as asynchronous:
            unary = await asynchronous.generate(PROMPT, GREEDY)
            stream = [item async for item in asynchronous.stream(PROMPT, GREEDY)]
            names = [model.name for model in await asynchronous.models()]
            tokens = [token.id for token in await asynchronous.tokenize("你好, kettle")]
            text = await asynchronous.detokenize(tokens)
            assert (await asynchronous.model()).name == names[0]
            return unary, "".join(i.text for i in stream if isinstance(i, Delta)), names, text

    unary, streamed, names, text = asyncio.run(ask())
    assert unary.text == streamed == client.generate(PROMPT, GREEDY).text
    assert names == [model.name for model in client.models()]
    assert text == "你好, kettle"


def test_streamed_candidates_are_reassembled(client: Client) -> None:
    sampling = Sampling(seed=9, n=3, temperature=2.0)
    options = Options(decoding=sampling, max_new_tokens=12, token_ids=True, logprobs=True)
    whole = client.generate(PROMPT, options)
    *_, last = client.stream(PROMPT, options)
    assert isinstance(last, Generation)
    for one, other in zip(last.candidates, whole.candidates, strict=True):
        assert (one.index, one.text, one.token_ids) == (other.index, other.text, other.token_ids)
        assert [entry.token for entry in one.logprobs] == [entry.token for entry in other.logprobs]


def test_beam_search_returns_its_text_as_the_last_item(client: Client) -> None:
    options = Options(BeamSearch(num_beams=3, num_return_sequences=2), max_new_tokens=12)
    *_, last = client.stream(PROMPT, options)
    assert isinstance(last, Generation)
    assert [c.text for c in last.candidates] == [
        c.text for c in client.generate(PROMPT, options).candidates
    ]


def test_scores_match_their_log_probabilities(client: Client, address: str) -> None:
    continuations: list[Prompt] = ["green", '{"action":"add_to_cart"', [5, 6]]
    scores = client.score(PROMPT, continuations, request_id="s-1")
    assert scores.ranking[0] == 1
    assert len(scores.scores[2].tokens) == 2
    for score in scores.scores:
        logprobs = [token.logprob for token in score.tokens]
        assert None not in logprobs
        assert score.total_logprob == pytest.approx(sum(p for p in logprobs if p is not None))
        mean = score.total_logprob / len(score.tokens)
        assert score.perplexity == pytest.approx(math.exp(-mean), rel=1e-6)
    assert scores.model == client.model().name
    assert scores.fingerprint == client.model().fingerprint
    assert scores.usage.prompt_tokens > 0
    assert scores.request_id == "s-1"

    async def ask() -> Scores:
        async with AsyncClient(address) as asynchronous:
            return await asynchronous.score(PROMPT, continuations)

    again = asyncio.run(ask())
    assert again.ranking == scores.ranking
    assert again.scores[0].total_logprob == pytest.approx(scores.scores[0].total_logprob, rel=1e-3)


def test_tokens_cover_the_text(client: Client) -> None:
    text = "naïve 保温杯 😀 SO-1042"
    tokens = client.tokenize(text)
    raw = text.encode()
    assert [raw[t.start : t.end] for t in tokens] == [t.piece for t in tokens]
    assert b"".join(t.piece for t in tokens) == raw
    assert client.detokenize([t.id for t in tokens]) == text
    assert client.generate([t.id for t in tokens], GREEDY).usage.prompt_tokens == len(tokens)


def test_special_tokens_are_treated_as_requested(client: Client) -> None:
    [special] = client.tokenize("<|user|>")
    literal = client.tokenize("<|user|>", literal=True)
    assert len(literal) > 1
    assert b"".join(token.piece for token in literal) == b"<|user|>"
    assert client.generate("<|user|>", GREEDY).usage.prompt_tokens == 1
    as_text = client.generate(Text("<|user|>", literal=True), GREEDY)
    assert as_text.usage.prompt_tokens == len(literal)
    ids = [special.id, literal[0].id]
    assert client.detokenize(ids) == "<|user|>" + literal[0].piece.decode()
    assert client.detokenize(ids, skip_special_tokens=True) == literal[0].piece.decode()


def test_a_model_describes_its_tokens_and_constraints(client: Client) -> None:
    model = client.model()
    assert "byte-level" in model.tokenizer
    assert model.eos_token_ids
    assert model.constraint_error == ""
    assert model.limits.max_tokenize_bytes > 0


@pytest.mark.parametrize(
    "constraint, holds",
    [
        (Choices(("yes", "no")), lambda text: text in {"yes", "no"}),
        (Regex("[0-9]{3}-[a-f]{2}"), lambda text: len(text) == 6 and text[3] == "-"),
        (Lark('start: "a" ("b" | "bb") "c"'), lambda text: text[0] == "a" and text[-1] == "c"),
        (
            JsonSchema(
                '{"type":"object","properties":{"n":{"enum":[1,2]}},"required":["n"],'
                '"additionalProperties":false}'
            ),
            lambda text: json.loads(text)["n"] in {1, 2},
        ),
    ],
)
@pytest.mark.parametrize("decoding", [Sampling(seed=3), BeamSearch(num_beams=3)])
def test_constraints_hold(
    client: Client,
    constraint: JsonSchema | Regex | Choices | Lark,
    holds: Callable[[str], bool],
    decoding: Sampling | BeamSearch,
) -> None:
    options = Options(decoding=decoding, max_new_tokens=64, constraint=constraint)
    assert holds(client.generate(PROMPT, options).text)


def test_a_seed_reproduces_different_candidates(client: Client) -> None:
    options = Options(decoding=Sampling(seed=5, n=4, temperature=3.0), max_new_tokens=16)
    once, again = client.generate(PROMPT, options), client.generate(PROMPT, options)
    assert [c.text for c in once.candidates] == [c.text for c in again.candidates]
    assert len({c.text for c in once.candidates}) > 1
    assert once.seed == 5


def test_every_invalid_field_is_named(client: Client) -> None:
    options = Options(decoding=Sampling(temperature=-1.0, top_p=2.0), max_new_tokens=0)
    with pytest.raises(InvalidRequestError) as caught:
        client.generate(PROMPT, options)
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {
        "options.sampling.temperature",
        "options.sampling.top_p",
        "options.stopping.max_new_tokens",
    }


def test_an_unknown_model_raises_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        client.model("absent")


def test_a_passed_deadline_raises_deadline_exceeded(client: Client) -> None:
    with pytest.raises(DeadlineExceededError):
        client.generate(PROMPT, Options(max_new_tokens=400, ignore_eos=True), timeout=0.005)


def test_an_unreachable_server_raises_unavailable() -> None:
    with Client("127.0.0.1:9", timeout=60) as client, pytest.raises(UnavailableError):
        client.models()


def test_the_server_still_generates_after_streams_are_closed_early(client: Client) -> None:
    for _ in range(20):
        stream = client.stream(PROMPT, Options(max_new_tokens=400, ignore_eos=True))
        next(stream)
        stream.close()
    assert client.generate(PROMPT, GREEDY).text
