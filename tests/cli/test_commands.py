"""Tests of error messages and exit codes of every command."""

import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import UNREACHABLE, gpt2flow

from gpt2flow.agent.config import AgentConfig
from gpt2flow.cli.agent_options import AgentOptions, agent_settings
from gpt2flow.files.tokens import TokenEntry

TOKEN = ["--shop-token-file", "nowhere"]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["serve"], 2, "--model"),
        (["serve", "--model", "nowhere", "--address", "127.0.0.1:0"], 2, "nowhere"),
        (["serve", "--config", "nowhere.toml"], 2, "nowhere.toml cannot be read"),
        (["serve", "--config", "bad.toml"], 2, "bad.toml: engine.threads is 'x', must be a valid"),
        (["serve", "--config", "bad.toml", "--threads", "0"], 2, "error: --threads is 0, must"),
        (["serve", "--model", "x", "--drain-seconds", "-1"], 2, "--drain-seconds is -1.0, must"),
        (["serve", "--model", "a=x", "--model", "a=y"], 2, "two models are named 'a'"),
        (["serve", "--model", "=x"], 2, "[NAME=]DIR"),
        (["serve", "--model", "x", "--address", "here"], 2, "error: --address 'here' is"),
        (["serve", "--model", "x", "--address", "[::1]:70000"], 2, "port of --address is 70000"),
        (["serve", "--model", "x", "--metrics-address", "a:70000"], 2, "--metrics-address is 'a:7"),
        (["serve", "--model", "x", "--max-sequences", "0"], 2, "--max-sequences is 0"),
        (["serve", "--model", "x", "--kv-cache-memory", "1TB"], 2, "--kv-cache-memory is '1TB'"),
        (["serve", "--model", "x", "--choices", "a"], 2, "--choices is ['a'], must be of the form"),
        (
            ["serve", "--model", "x", "--choices", "a=b", "--choices", "a=c"],
            2,
            "--choices is ['a=b', 'a=c'], must not have two files of one name",
        ),
        (["serve", "--model", "x", "--tls-key", "k"], 2, ": --tls-key needs --tls-certificate"),
        (["serve", "--model", "x", "--tls-certificate", "c"], 2, "needs --tls-key"),
        (["serve", "--model", "x", "--tls-client-ca", "c"], 2, "--tls-client-ca needs --tls-c"),
        (
            ["serve", "--model", "x", "--tokens", "nowhere.toml"],
            2,
            "--tokens nowhere.toml: No such",
        ),
        (["serve", "--model", "x", "--address", "0.0.0.0:0"], 2, "or say --insecure"),
        (["serve", "--model", "x", "--tokens", "t", "--address", "[::]:0"], 2, "or say --insecure"),
        (["serve", "--config", "open.toml", "--no-insecure"], 2, "or say --insecure"),
        (
            ["serve", "--model", "x", "--tls-certificate", "no.pem", "--tls-key", "no.key"],
            2,
            "--tls-certificate no.pem: No such file",
        ),
        (
            ["agent", "ask", "hi", "--hands", "feet"],
            2,
            "'feet' is not one of 'database', 'browser'",
        ),
        (["agent", "ask", "hi", "--hands", "browser"], 2, "--hands browser needs --shop"),
        (
            ["agent", "ask", "hi", "--hands", "browser", "--shop", "http://a:1"],
            2,
            "--hands browser needs --shop-token-file",
        ),
        (
            [*("agent", "ask", "hi", "--hands", "browser"), "--shop", "a:1", *TOKEN],
            2,
            "shop is 'a:1', must be http://host:port or https://host",
        ),
        *(
            (["agent", "ask", "hi", "--hands", "browser", "--shop", url, *TOKEN], 2, message)
            for url, message in (
                ("http://[::1", "shop is 'http://[::1', which is no URL"),
                ("http://127.0.0.1:99999", "Port out of range 0-65535"),
                ("http://shop.example", "must be https except on this machine"),
                ("https://shop.example/a?b", "must be http://host:port or https://host"),
            )
        ),
        (
            [*("agent", "ask", "hi", "--hands", "browser", "--shop", "http://127.0.0.1:1"), *TOKEN],
            2,
            "--shop-token-file nowhere: No such file",
        ),
        (["token", "a b"], 2, "name is 'a b', must be 1 to 64 of the characters"),
        (["token", "a", "--max-requests=0"], 2, "max-requests is 0, must be greater than or equal"),
        (["token", "a", "--max-beams=x"], 2, "Invalid value for '--max-beams'"),
        (["token", "a", "--model="], 2, "model is '', must have at least 1 character"),
        (["token", "a", "--expires=2027-01-01"], 2, "'2027-01-01', must be a time with its zone"),
        (["generate", "hi", "--address", UNREACHABLE], 1, f"no server answers at {UNREACHABLE}"),
        (["generate", "hi", "--json-schema", "nowhere.json"], 2, "nowhere.json"),
        (["health", "--address", UNREACHABLE], 1, f"no server answers at {UNREACHABLE}"),
        (["health", "--timeout", "0"], 2, "--timeout"),
        (["health", "--tls-ca", "nowhere.pem"], 2, "ca: cannot read nowhere.pem"),
        (["generate", "hi", "--tls-ca", "nowhere.pem"], 2, "ca: cannot read nowhere.pem"),
        (["generate", "hi", "--tls-key", "x"], 2, "--tls-certificate and --tls-key need each"),
        (["generate", "hi", "--token-file", "nowhere"], 2, "token: cannot read nowhere"),
        (["bench", "--token-file", "nowhere"], 2, "token: cannot read nowhere"),
        (["agent", "ask", "hi", "--token-file", "nowhere"], 2, "token: cannot read nowhere"),
        (["agent", "run", "-", "--tls-ca", "nowhere.pem"], 2, "ca: cannot read nowhere.pem"),
        (["inspect", "nowhere"], 2, "nowhere"),
        (["restore", "nowhere", "x"], 2, "nowhere is not a directory"),
        (["export", "./nowhere", "out"], 2, "nowhere"),
        (
            ["export", "./nowhere", "out", "--revision", "v1"],
            2,
            "--revision is 'v1', of a model on",
        ),
        (["export", ".", "out", "--base", "x"], 2, "--base is 'x', but . is no adapter"),
        (["export", "./nowhere", "out", "--hub-token-file", "no"], 2, "token-file no cannot be re"),
        (["export", "./nowhere", "out", "--profile", "int3"], 2, "int3"),
        (["export", "./nowhere", "out", "--kv-cache", "fp16"], 2, "fp16"),
        (["export", "./nowhere", "out", "--profile", "int4", "--method", "awq"], 2, "awq"),
        (["export", "./nowhere", "out", "--profile", "int8", "--method", "gptq"], 2, "int4"),
        (["export", "./nowhere", "out", "--profile", "int4", "--block-size", "20"], 2, "20"),
        (
            ["export", "./nowhere", "out", "--profile", "int4", "--kept-share", "2"],
            2,
            "from 0 to 1",
        ),
        (["train", "nowhere.txt", "--out", "out"], 2, "nowhere.txt"),
        (["train", "--out", "out", "--set", "width"], 2, "name=value"),
        (["train", "--out", "out", "--set", "width=wide"], 2, "width"),
        (["train", "--out", "out", "--recipe", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["train"], 2, "--out is missing"),
        (["train", "--out", "out", "--from", "nowhere"], 2, "nowhere: no checkpoint"),
        (["agent", "ask", "hi", "--confirm-below", "2"], 2, "--confirm-below"),
        (["agent", "ask", "hi", "--catalogue", "nowhere.yaml"], 2, "nowhere.yaml: "),
        (["train", "--out", "out", "--flows", "nowhere"], 2, "nowhere/shared.yaml"),
        (["train", "bad.toml", "--out", "out", "--flows", "."], 2, "flows .: turns are generated"),
        (["train", "--out", "out", "--data", "nowhere"], 2, "nowhere: no data set found"),
        (
            ["train", "bad.toml", "--out", "out", "--data", "."],
            2,
            "only turns of the flows take data sets",
        ),
        (
            ["agent", "ask", "hi", "--address", UNREACHABLE],
            1,
            f"no server answers at {UNREACHABLE}",
        ),
        (["agent", "ask", "", "--address", UNREACHABLE], 2, "the message is empty"),
        (["agent", "ask", "x" * 100_000, "--address", UNREACHABLE], 2, "100,000 characters"),
        (["agent", "ask", "hi", "--database", "mysql://x"], 2, "mysql"),
        (["agent", "ask", "hi", "--database", "/nowhere/at/all.sqlite"], 1, "/nowhere/at/all"),
        (["agent", "ask", "hi", "--flows", "nowhere"], 2, "nowhere"),
        (["agent", "run", "nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["demo", "--model", "nowhere"], 1, "nowhere"),
    ],
)
def test_a_mistake_is_reported_on_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text("[engine]\nthreads = 'x'\n")
    (tmp_path / "open.toml").write_text(
        "host = '0.0.0.0'\nmodels = [{name = 'm', path = 'x'}]\nsecurity = {insecure = true}\n"
    )
    returned, _, err = gpt2flow(*arguments, cwd=tmp_path)
    last = err.strip().splitlines()[-1]
    assert message in last
    assert last.startswith("gpt2flow: error: ")
    assert "Traceback" not in err
    assert returned == code


def test_every_invalid_line_of_messages_is_reported(tmp_path: Path) -> None:
    gpt2flow("agent", "ask", "x" * 100_000, "--database", "shop.sqlite", cwd=tmp_path)
    _, out, _ = gpt2flow(
        "agent",
        "run",
        "-",
        "--database",
        "shop.sqlite",
        "--address",
        UNREACHABLE,
        cwd=tmp_path,
        stdin='{"session": "a", "text": ""}\nnonsense\n{"text": "hi"}\n',
    )
    results = [json.loads(line) for line in out.splitlines()]
    assert [r["line"] for r in results] == [1, 2, 3]
    assert [r["exit_code"] for r in results] == [2, 2, 2]
    assert "empty" in results[0]["error"]
    assert "session" in results[2]["error"]


def test_debug_shows_the_traceback() -> None:
    code, _, err = gpt2flow("--debug", "inspect", "nowhere")
    assert code == 2
    assert "Traceback" in err


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.modules['grpc'] = None\n"
        "sys.argv = ['gpt2flow', 'generate', 'hi']\n"
        "from gpt2flow.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'gpt2flow[client]'" in done.stderr


def test_help_lists_every_command() -> None:
    code, out, _ = gpt2flow("--help")
    assert code == 0
    for command in (
        "train",
        "export",
        "restore",
        "inspect",
        "serve",
        "generate",
        "bench",
        "agent",
        "demo",
    ):
        assert command in out


def test_a_token_is_shown_once_beside_its_entry() -> None:
    code, entry, shown = gpt2flow("token", "shop-agent")
    secret = shown.strip()
    assert code == 0
    assert secret.startswith("g2f_")
    assert secret not in entry
    assert hashlib.sha256(secret.encode()).hexdigest() in entry
    [parsed] = tomllib.loads(entry)["token"]
    assert parsed["name"] == "shop-agent"
    made = json.loads(gpt2flow("token", "shop-agent", "--json")[1])
    assert hashlib.sha256(made["token"].encode()).hexdigest() in made["entry"]


# Options of `gpt2flow token`, and the field that each sets.
TOKEN_OPTIONS: list[tuple[str, str, Any]] = [
    ("--model=a --model=b", "models", ["a", "b"]),
    ("--max-requests=3", "max_requests", 3),
    ("--max-priority=-5", "max_priority", -5),
    ("--max-new-tokens=256", "max_new_tokens", 256),
    ("--max-candidates=4", "max_candidates", 4),
    ("--max-beams=2", "max_beams", 2),
    ("--manage-models", "manage_models", True),
    ("--may=approve", "may", "approve"),
    ("--may=approve --up-to=99.50", "up_to", "99.50"),
    ("--expires=2027-01-01T00:00:00Z", "expires", datetime(2027, 1, 1, tzinfo=UTC)),
]


@pytest.mark.parametrize("options,field,value", TOKEN_OPTIONS)
def test_each_field_of_a_token_has_an_option(options: str, field: str, value: Any) -> None:
    code, entry, _ = gpt2flow("token", "shop-agent", *options.split())
    assert code == 0
    [parsed] = tomllib.loads(entry)["token"]
    assert parsed[field] == value


def test_no_field_of_a_token_lacks_an_option() -> None:
    fields = {field for _, field, _ in TOKEN_OPTIONS}
    assert fields | {"name", "sha256"} == TokenEntry.model_fields.keys()


def test_printed_settings_are_a_recipe_of_the_same_run(tmp_path: Path) -> None:
    arguments = ("--recipe", "shop", "--set", "layers=3")
    code, out, _ = gpt2flow("train", *arguments, "--print-config", cwd=tmp_path)
    assert code == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(out, encoding="utf-8")
    assert "layers: 3" in out
    again = gpt2flow("train", "--recipe", "recipe.yaml", "--print-config", cwd=tmp_path)
    assert again[:2] == (0, out)
    assert list(tmp_path.iterdir()) == [recipe]


def test_commands_have_the_defaults_of_the_agent() -> None:
    options, config = AgentOptions(), AgentConfig()
    settings = agent_settings(asdict(options))
    assert {name: getattr(config, name) for name in settings} == settings
