"""The package `tritonclient` on a real server, compared with gpt2flow's client."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.interop_environment import run_program
from tests.support.project import PROJECT, SHIPPED_BUNDLE
from tests.support.server_process import server_process

from gpt2flow.client import BeamSearch, Client, Options, Sampling

pytestmark = pytest.mark.process

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"
GREEDY = Sampling(temperature=0)
INTEGERS = "INT32 or INT64 or UINT32 or UINT64"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with server_process(
        SHIPPED_BUNDLE, folder, "--model-control", name="shop", limits=()
    ) as running:
        yield running.address


@pytest.fixture(scope="module")
def results(server: str) -> dict[str, Any]:
    """Results that the program has printed."""
    folder = PROJECT / "tests" / "interop" / "kserve"
    found: dict[str, Any] = run_program("triton", server, folder=folder)
    return found


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as opened:
        yield opened


def many(client: Client, count: int) -> list[str]:
    """Return the texts of prompts that end in a number."""
    prompts = [f"{PROMPT}{number}" for number in range(count)]
    options = Options(GREEDY, max_new_tokens=16)
    return [each.text for each in client.generate_many(prompts, options)]


def test_the_server_and_the_model_are_described(results: dict[str, Any]) -> None:
    found = results["descriptions"]
    assert found["live"]
    assert found["ready"]
    assert found["model_ready"] == [True, False]
    assert found["server"]["name"] == "gpt2flow"
    assert "model_repository" in found["server"]["extensions"]
    assert found["inputs"]["text_input"] == found["outputs"]["text_output"] == "BYTES"
    assert found["inputs"]["max_tokens"] == found["outputs"]["output_ids"] == "INT32"
    assert found["decoupled"] is True


def test_inferences_are_those_of_our_client(results: dict[str, Any], client: Client) -> None:
    found = results["inferences"]
    whole = client.generate_many([PROMPT, f"{PROMPT}2"], Options(GREEDY, max_new_tokens=24))
    assert found["id"] == "one"
    assert found["texts"] == [each.text for each in whole]
    assert found["tokens"] == [each.usage.completion_tokens for each in whole]
    options = Options(GREEDY, max_new_tokens=5, token_ids=True, logprobs=True)
    rows = client.generate_many([[5, 6], [7, 8]], options)
    assert found["ids"] == [list(each.candidates[0].token_ids) for each in rows]
    for row, each in zip(found["logprobs"], rows, strict=True):
        logprobs = [position.logprob for position in each.candidates[0].logprobs]
        assert row == pytest.approx(logprobs, abs=1e-2)
    assert found["no text"]
    sampling = Sampling(temperature=0.75, top_k=20, n=3, seed=2**63 + 1)
    sampled = client.generate(PROMPT, Options(sampling, max_new_tokens=6))
    assert found["sampled"] == [each.text for each in sampled.candidates]
    beams = Options(BeamSearch(num_beams=3), max_new_tokens=8)
    assert found["beams"] == [client.generate(PROMPT, beams).text]
    assert json.loads(found["schema"]) in {"umbrella", "kettle"}


def test_requests_share_a_stream(results: dict[str, Any], client: Client) -> None:
    found = results["streamed"]
    assert found["texts"] == many(client, 4)
    assert found["chunks"] > 2 * 4
    assert found["errors"] == ["NOT_FOUND: no model named 'none'; loaded: shop"]


def test_a_cancelled_stream_leaves_the_server_serving(results: dict[str, Any]) -> None:
    assert results["cancelled"] is True


def test_the_asyncio_client_gets_the_same(results: dict[str, Any], client: Client) -> None:
    found = results["asynchronous"]
    assert found["texts"] == many(client, 4)
    assert found["stream"] == client.generate(PROMPT, Options(GREEDY, max_new_tokens=24)).text


def test_errors_have_a_status_and_name_the_tensor(results: dict[str, Any]) -> None:
    found = results["errors"]
    code, text = found.pop("unknown model")
    assert (code, text) == ("StatusCode.NOT_FOUND", "no model named 'none'; loaded: shop")
    assert {code for code, _ in found.values()} == {"StatusCode.INVALID_ARGUMENT"}
    texts = {kind: text for kind, (_, text) in found.items()}
    assert texts["missing"].startswith("inputs.text_input: is missing")
    assert texts["type"] == f"inputs.top_k: is 'FP32', must be {INTEGERS}"
    assert texts["shape"].startswith("inputs.top_k: has shape [2], must have one element")
    assert texts["unknown"].startswith("inputs[3]: is named 'tempo', must be one of text_input")
    assert texts["slots"].startswith("inputs.n: must be in [1, ")


def test_a_model_is_unloaded_and_loaded(results: dict[str, Any], client: Client) -> None:
    found = results["repository"]
    assert found["before"] == {"shop": "READY"}
    assert found["unloaded"] == [{"shop": "UNAVAILABLE"}, False]
    assert found["refusal"] == "StatusCode.UNAVAILABLE"
    assert found["loaded"] == [{"shop": "READY"}, True]
    assert found["text"] == client.generate(PROMPT, Options(GREEDY, max_new_tokens=24)).text
