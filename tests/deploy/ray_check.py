"""Replicas behind Ray's gRPC proxy, for `make ray`.

pytest does not collect it, since Ray is an environment of its own.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from ray_serve import RayCluster, ray_cluster
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process
from tests.support.waiting import eventually

from gpt2flow.client import (
    BeamSearch,
    Client,
    Delta,
    InvalidRequestError,
    NotFoundError,
    Options,
    Retry,
    Sampling,
)

pytestmark = pytest.mark.timeout(600)

CALLS, KILLS = 1000, 8
PROMPT = "<|state|>guest<|user|>{} umbrellas please<|act|>"
GREEDY = Options(Sampling(temperature=0), max_new_tokens=24)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with ray_cluster(SHIPPED_BUNDLE, tmp_path_factory.mktemp("ray"), 2) as running:
        yield running


@pytest.fixture(scope="module")
def client(cluster: RayCluster) -> Iterator[Client]:
    with Client(cluster.address, retry=Retry(attempts=8)) as opened:
        yield opened


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Client of one server of the same bundle: the oracle."""
    folder = tmp_path_factory.mktemp("single")
    with (
        server_process(SHIPPED_BUNDLE, folder, name="shop", limits=()) as server,
        Client(server.address) as opened,
    ):
        yield opened


def test_replicas_answer_like_one_server(client: Client, single: Client) -> None:
    prompt = PROMPT.format("two")
    assert client.generate(prompt, GREEDY).text == single.generate(prompt, GREEDY).text
    *deltas, end = client.stream(prompt, GREEDY)
    assert "".join(each.text for each in deltas if isinstance(each, Delta)) == end.text
    assert end.text == single.generate(prompt, GREEDY).text
    beams = Options(BeamSearch(3), max_new_tokens=8)
    assert client.generate(prompt, beams).text == single.generate(prompt, beams).text
    endings = ['{"action":"add_to_cart"', '{"action":"greet"']
    assert client.score(prompt, endings).ranking == single.score(prompt, endings).ranking
    tokens = client.tokenize(prompt)
    assert tokens == single.tokenize(prompt)
    assert client.detokenize([token.id for token in tokens]) == prompt
    assert [model.name for model in client.models()] == ["shop"]


def test_errors_keep_status_and_fields(client: Client) -> None:
    bad = Options(Sampling(temperature=-1.0))
    with pytest.raises(InvalidRequestError) as caught:
        client.generate("hello", bad)
    assert [each.field for each in caught.value.violations] == ["options.sampling.temperature"]
    with pytest.raises(InvalidRequestError, match="temperature"):
        list(client.stream("hello", bad))
    with pytest.raises(NotFoundError, match="absent"):
        client.model("absent")


def test_an_abandoned_stream_leaves_the_replicas_usable(client: Client) -> None:
    long = Options(Sampling(temperature=0), max_new_tokens=400, ignore_eos=True)
    for _ in range(40):
        stream = client.stream("hello", long)
        next(stream)
        stream.close()
    assert client.generate("hello", GREEDY, timeout=30.0).candidates


def test_no_call_is_lost_while_replicas_are_killed(
    client: Client, cluster: RayCluster, single: Client
) -> None:
    prompts = [PROMPT.format(number) for number in range(CALLS)]
    killed = set()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.generate, prompt, GREEDY) for prompt in prompts]
        for number in range(1, KILLS + 1):
            answers[number * CALLS // (KILLS + 2)].result()
            killed.add(cluster.ask("kill"))
        texts = [answer.result().text for answer in answers]
    assert len(texts) == CALLS
    assert len(killed - {0}) >= KILLS // 2
    for at in range(0, CALLS, 50):
        assert texts[at] == single.generate(prompts[at], GREEDY).text
    eventually(lambda: cluster.ask("replicas") == 2)


def test_a_queue_adds_replicas(tmp_path: Path) -> None:
    slow = Options(Sampling(temperature=0), max_new_tokens=200, ignore_eos=True)
    with (
        ray_cluster(SHIPPED_BUNDLE, tmp_path, 0) as scaling,
        Client(scaling.address, timeout=300, retry=Retry(attempts=8)) as client,
        ThreadPoolExecutor(64) as pool,
    ):
        assert scaling.ask("replicas") == 1
        enough = Event()

        def call_until_enough(number: int) -> None:
            while not enough.is_set():
                client.generate(PROMPT.format(number), slow)

        calls = [pool.submit(call_until_enough, number) for number in range(64)]
        try:
            eventually(lambda: scaling.ask("replicas") >= 2)
        finally:
            enough.set()
        for call in calls:
            call.result()
