"""Tests of `gpt2flow generate` on the shipped model."""

import json
from typing import Any

from tests.support.command_line import gpt2flow

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
