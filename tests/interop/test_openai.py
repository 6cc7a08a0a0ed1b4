"""Package `openai` on a real gateway and a real server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.gateway_process import PROMPT, RunningGateway, gateway_process
from tests.support.interop_environment import run_program

from gpt2flow.client import BeamSearch, Client, Options, Sampling

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def gateway(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with gateway_process(address, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def results(gateway: RunningGateway) -> dict[str, Any]:
    """Return what the package got."""
    found: dict[str, Any] = run_program("openai", gateway.url)
    return found


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as opened:
        yield opened


def test_models_are_listed(results: dict[str, Any]) -> None:
    assert (results["models"], results["model"]) == (["shop"], "shop")


def test_completions_are_those_of_grpc(results: dict[str, Any], client: Client) -> None:
    found = results["completions"]
    expected = client.generate(PROMPT, Options(GREEDY, max_new_tokens=30))
    assert found["text"] == found["streamed"] == expected.text
    for usage in (found["usage"], found["streamed_usage"]):
        assert usage["prompt_tokens"] == expected.usage.prompt_tokens
        assert usage["completion_tokens"] == expected.usage.completion_tokens
        assert usage["prompt_tokens_details"]["cached_tokens"] >= 0
    beams = client.generate(PROMPT, Options(BeamSearch(num_beams=3), max_new_tokens=8))
    assert found["beams"] == beams.text


def test_an_echo_has_the_log_likelihood_of_the_prompt(
    results: dict[str, Any], client: Client
) -> None:
    found = results["completions"]["echo"]["token_logprobs"]
    scores = client.score("<|state|>", [PROMPT.removeprefix("<|state|>")])
    assert sum(found[1:-1]) == pytest.approx(scores.scores[0].total_logprob, rel=1e-4)


def test_chats_have_text_schema_and_tools(results: dict[str, Any], client: Client) -> None:
    found = results["chats"]
    assert found["text"] == client.generate(PROMPT, Options(GREEDY)).text
    # The text leaves out the special tokens that were produced.
    written = [token for token in found["tokens"] if not token.startswith("<|")]
    assert "".join(written) == found["text"]
    assert json.loads(found["schema"])["product"] in {"umbrella", "kettle"}
    [call] = found["calls"]
    assert call["name"] == "add_to_cart"
    assert json.loads(call["arguments"])["product"] in {"umbrella", "kettle"}
    assert found["finish_reason"] == "tool_calls"
    assert found["streamed_calls"] == [call]


def test_streams_run_at_the_same_time(results: dict[str, Any], client: Client) -> None:
    prompts = [f"{PROMPT}{i}" for i in range(8)]
    expected = client.generate_many(prompts, Options(GREEDY, max_new_tokens=8))
    assert results["parallel"] == [each.text for each in expected]


def test_errors_are_the_classes_of_the_package(results: dict[str, Any]) -> None:
    bad = {"class": "BadRequestError", "code": None}
    assert results["errors"] == {
        "unknown model": {
            "class": "NotFoundError",
            "param": "model",
            "code": "model_not_found",
        },
        "unknown field": {**bad, "param": "temperatur", "code": "unknown_parameter"},
        "bad value": {**bad, "param": "top_p"},
        "too long": {**bad, "param": "max_tokens", "code": "context_length_exceeded"},
        "too many": {**bad, "param": "n"},
        "bad schema": {**bad, "param": "json_schema"},
    }
