"""Constraints by the name of a list, through server and client."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.running_server import RunningServer, server_config, serving

from gpt2flow.client import (
    AsyncClient,
    BeamSearch,
    Client,
    InvalidRequestError,
    Options,
    Sampling,
    StoredChoices,
)
from gpt2flow.server import ConfigError, Server

pytestmark = pytest.mark.process

NAMES = ("blue cup", "red cup", "my cup", "my new address", "order")
OPTIONS = Options(constraint=StoredChoices("articles"))


@pytest.fixture
async def stocked(bundle: Path, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """Server whose models have a stored list."""
    path = tmp_path / "articles.txt"
    path.write_text("\n".join(NAMES), encoding="utf-8")
    config = server_config(bundle)
    engine = config.engine.model_copy(update={"choices": {"articles": path}})
    async with serving(config.model_copy(update={"engine": engine})) as running:
        yield running


@pytest.fixture
async def client(stocked: RunningServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{stocked.port}") as opened:
        yield opened


async def test_a_model_names_its_lists(client: AsyncClient, running: RunningServer) -> None:
    assert (await client.model()).stored_choices == ("articles",)
    async with AsyncClient(f"127.0.0.1:{running.port}") as other:
        assert (await other.model()).stored_choices == ()


async def test_beams_rank_the_entries(client: AsyncClient) -> None:
    options = replace(OPTIONS, decoding=BeamSearch(5, num_return_sequences=5, length_penalty=0.0))
    candidates = (await client.generate("Where is", options)).candidates
    assert sorted(each.text for each in candidates) == sorted(NAMES)
    assert {each.finish_reason for each in candidates} == {"eos"}
    scores = [each.beam_score for each in candidates]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx([each.cumulative_logprob for each in candidates])


async def test_a_stream_of_an_entry_adds_up_to_it(client: AsyncClient) -> None:
    options = replace(OPTIONS, decoding=Sampling(seed=2, temperature=3.0))
    *deltas, last = [item async for item in client.stream("Where is", options)]
    assert "".join(each.text for each in deltas) == last.text
    assert last.text in NAMES


async def test_a_blocking_client_takes_a_list_too(
    client: AsyncClient, stocked: RunningServer
) -> None:
    def ask() -> str:
        with Client(f"127.0.0.1:{stocked.port}") as blocking:
            return blocking.generate("Where is", OPTIONS).text

    assert await asyncio.to_thread(ask) in NAMES
    assert (await client.generate("Where is", OPTIONS)).text in NAMES


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "options, field, description",
    [
        (
            Options(constraint=StoredChoices("towns")),
            "options.constraint.stored_choices",
            "is 'towns', must be one of the stored lists: articles",
        ),
        (
            Options(constraint=StoredChoices("")),
            "options.constraint.stored_choices",
            "is '', must be one of the stored lists: articles",
        ),
        (
            replace(OPTIONS, max_new_tokens=1),
            "options.stopping.max_new_tokens",
            "allows 1 new tokens, must allow ",
        ),
    ],
)
async def test_a_bad_request_is_refused_by_its_field(
    client: AsyncClient, options: Options, field: str, description: str, *, stream: bool
) -> None:
    async def ask() -> None:
        if stream:
            [_ async for _ in client.stream("Where is", options)]
        else:
            await client.generate("Where is", options)

    with pytest.raises(InvalidRequestError) as caught:
        await ask()
    [violation] = caught.value.violations
    assert violation.field == field
    assert violation.description.startswith(description)
    assert (await client.generate("Where is", OPTIONS)).text in NAMES


async def test_a_server_without_lists_says_so(running: RunningServer) -> None:
    async with AsyncClient(f"127.0.0.1:{running.port}") as client:
        with pytest.raises(InvalidRequestError, match="must be one of the stored lists: none"):
            await client.generate("Where is", OPTIONS)


async def test_a_server_with_a_bad_list_does_not_start(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "articles.txt"
    path.write_text("cup\ncup\n", encoding="utf-8")
    config = server_config(bundle)
    engine = config.engine.model_copy(update={"choices": {"articles": path}})
    with pytest.raises(ConfigError, match="line 2 repeats line 1: 'cup'"):
        await Server(config.model_copy(update={"engine": engine})).start()
