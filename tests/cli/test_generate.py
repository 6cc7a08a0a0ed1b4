"""Tests of `gpt2flow generate` on the shipped model."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.command_line import UNREACHABLE, gpt2flow
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process

PROMPT = "<|state|>guest<|user|>two umbrellas please<|act|>"


def generate(prompt: str, address: str, *options: str) -> str:
    """Return what the command prints after greedy decoding."""
    greedy = ("--temperature", "0", "--max-new-tokens", "24", "--address", address)
    code, out, err = gpt2flow("generate", prompt, *greedy, *options)
    assert (code, err) == (0, "")
    return out


def as_json(prompt: str, address: str, *options: str) -> dict[str, Any]:
    """Return the object that the command prints with --json."""
    printed: dict[str, Any] = json.loads(generate(prompt, address, *options, "--json"))
    return printed


def test_the_text_ends_before_or_after_a_stop_string(address: str) -> None:
    assert generate(PROMPT, address, "--stop", "_to") == '{"action":"add\n'
    assert generate(PROMPT, address, "--stop", "_to", "--include-stop") == '{"action":"add_to\n'


def test_a_literal_prompt_has_no_special_tokens(address: str) -> None:
    special, literal = as_json(PROMPT, address), as_json(PROMPT, address, "--literal")
    assert literal["usage"]["prompt_tokens"] > special["usage"]["prompt_tokens"]


def test_a_long_prompt_is_truncated_if_requested(address: str) -> None:
    text = "two umbrellas please " * 2000
    code, _, err = gpt2flow("generate", text, "--address", address)
    assert code == 2
    assert "exceed the model's context" in err
    usage = as_json(text, address, "--truncate")["usage"]
    assert usage["truncated_tokens"] > 0
    assert usage["completion_tokens"] <= 24


def test_special_tokens_are_printed_if_requested(address: str) -> None:
    assert generate(PROMPT, address, "--special-tokens").startswith('{"action":"add_to_cart"')


def test_one_of_several_servers_answers(address: str) -> None:
    assert generate(PROMPT, f"{UNREACHABLE},{address}") == generate(PROMPT, address)
    code, _, err = gpt2flow("generate", PROMPT, "--address", f"{address},,{address}")
    assert code == 2
    assert "address is" in err
    assert "must be host:port" in err


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with a list of choices."""
    folder = tmp_path_factory.mktemp("stocked")
    path = folder / "list.txt"
    path.write_text("umbrella\nboard game\nbackpack\n", encoding="utf-8")
    choices = ("--choices", f"products={path}")
    with server_process(SHIPPED_BUNDLE, folder, *choices, name="shop") as server:
        yield server.address


def test_the_best_entries_of_a_list_are_printed_with_their_scores(stocked: str) -> None:
    options = ("--stored-choices", "products", "--address", stocked)
    code, out, err = gpt2flow("generate", PROMPT, *options, "--beams", "4", "--best", "2")
    assert (code, err) == (0, "")
    scores, names = zip(*(line.split("\t") for line in out.splitlines()), strict=True)
    assert len(names) == 2
    assert set(names) < {"umbrella", "board game", "backpack"}
    assert float(scores[0]) >= float(scores[1])
    code, out, _ = gpt2flow("generate", PROMPT, *options)
    assert code == 0
    assert out.strip() in {"umbrella", "board game", "backpack"}


def test_an_unknown_list_is_refused_with_the_known_ones(stocked: str) -> None:
    code, out, err = gpt2flow("generate", "x", "--stored-choices", "towns", "--address", stocked)
    assert (code, out) == (2, "")
    assert "must be one of the stored lists: products" in err


@pytest.mark.parametrize(
    "options, message",
    [
        (("--best", "2"), "--best needs --beams above 1"),
        (("--length-penalty", "0"), "--length-penalty needs --beams above 1"),
        (
            ("--stored-choices", "a", "--json-schema", "a.json"),
            "give one of --json-schema and --stored-choices",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: tuple[str, ...], message: str
) -> None:
    code, out, err = gpt2flow("generate", "x", "--address", UNREACHABLE, *options)
    assert (code, out) == (2, "")
    assert message in err
