"""Tests that bad arguments are refused by name, before anything is sent."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.flaky_server import BOTH, FlakyService, ask, listening

from gpt2flow.client import (
    BeamSearch,
    Choices,
    Client,
    ClientError,
    JsonSchema,
    Keepalive,
    Lark,
    Options,
    Regex,
    Retry,
    Sampling,
    Security,
    SettingsError,
    StoredChoices,
    Text,
    Tls,
)
from gpt2flow.client.prompts import build_prompt

NAN, INF = float("nan"), float("inf")
SURROGATE = "a\ud800b"

# Values that no parameter of a kind takes.
NO_TEXT = [None, 1, b"hi", ["hi"], SURROGATE]
NO_FLAG = [None, 0, 1, "yes"]
NO_NUMBER = ["1", b"1", True, NAN, INF, -INF, 1e39, 10**400, 1j, [1.0]]
NO_UINT32 = ["1", b"1", True, 1.0, NAN, -1, 2**32, 10**5000, [1]]
NO_TEXTS = [None, 1, "eet", b"eet", {"a": 1}, {"a"}, ["a", b"b"], ["a", None], [SURROGATE]]
NO_IDS = [None, 1, "12", {1: 2}, {1}, [1, -1], [2**32], [1.0], [True], ["1"]]
NO_BIASES = [None, 1, "a", {1: 2.0}, [1], [(1,)], [(1, 2, 3)], [(-1, 0.0)], [(1, NAN)], [("1", 0)]]
NO_PROMPT = [None, 1, b"hi", bytearray(b"hi"), SURROGATE, {1: 2}, {1}, [1, -1], [2**32], [True]]

OPTIONAL_NUMBER = NO_NUMBER
NUMBER = [*NO_NUMBER, None]
OPTIONAL_UINT32 = NO_UINT32
UINT32 = [*NO_UINT32, None]

BAD_FIELDS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    Sampling: {
        "temperature": OPTIONAL_NUMBER,
        "top_k": UINT32,
        "top_p": OPTIONAL_NUMBER,
        "min_p": NUMBER,
        "typical_p": OPTIONAL_NUMBER,
        "repetition_penalty": OPTIONAL_NUMBER,
        "presence_penalty": NUMBER,
        "frequency_penalty": NUMBER,
        "no_repeat_ngram_size": UINT32,
        "logit_bias": NO_BIASES,
        "bad_words": NO_TEXTS,
        "seed": [*(each for each in OPTIONAL_UINT32 if each != 2**32), 2**64],
        "n": OPTIONAL_UINT32,
    },
    BeamSearch: {
        "num_beams": UINT32,
        "length_penalty": OPTIONAL_NUMBER,
        "early_stopping": [None, 0, 1, "always", b"never", NAN, ["never"]],
        "num_return_sequences": OPTIONAL_UINT32,
        "no_repeat_ngram_size": UINT32,
        "repetition_penalty": OPTIONAL_NUMBER,
        "logit_bias": NO_BIASES,
        "bad_words": NO_TEXTS,
    },
    Options: {
        "decoding": [None, "greedy", Sampling, Options()],
        "max_new_tokens": OPTIONAL_UINT32,
        "min_new_tokens": UINT32,
        "stop_strings": NO_TEXTS,
        "stop_token_ids": NO_IDS,
        "ignore_eos": NO_FLAG,
        "time_limit_ms": UINT32,
        "return_partial_on_time_limit": NO_FLAG,
        "constraint": ["{}", {"type": "object"}, JsonSchema, Sampling()],
        "logprobs": NO_FLAG,
        "top_logprobs": UINT32,
        "prompt_logprobs": NO_FLAG,
        "echo": NO_FLAG,
        "token_ids": NO_FLAG,
        "priority": ["1", True, 1.0, NAN, -(2**31) - 1, 2**31, None],
        "truncate_prompt": NO_FLAG,
        "include_stop_string": NO_FLAG,
        "include_special_tokens": NO_FLAG,
    },
    Text: {
        "text": NO_TEXT,
        "literal": NO_FLAG,
        "add_special_tokens": [each for each in NO_FLAG if each is not None],
    },
    JsonSchema: {
        "schema": [None, 1, b"{}", [1], SURROGATE, {"a": {1}}, {"a": NAN}, {"a": SURROGATE}, dict]
    },
    Regex: {"pattern": NO_TEXT},
    Choices: {"values": NO_TEXTS},
    Lark: {"grammar": NO_TEXT},
    StoredChoices: {"name": NO_TEXT},
    Retry: {
        "attempts": ["1", True, 1.0, NAN, 0, -1, None],
        "first_delay": ["1", True, NAN, INF, 0, -1, None],
        "max_delay": ["1", True, NAN, INF, 0, -1, None],
    },
    Keepalive: {
        "seconds": ["1", True, NAN, INF, 0, -1, None],
        "timeout": ["1", True, NAN, INF, 0, -1, None],
    },
    Tls: {
        "ca": [1, b"ca.pem", ["ca.pem"]],
        "certificate": [1, b"ca.pem"],
        "key": [1, b"ca.pem"],
        "server_name": [1, b"host", SURROGATE],
    },
    Security: {
        "tls": [True, "ca.pem", Tls],
        "token": [1, b"secret", ["secret"]],
        "token_in_plain_text": NO_FLAG,
    },
}
NEEDED: dict[Callable[..., Any], dict[str, Any]] = {
    BeamSearch: {"num_beams": 2},
    Text: {"text": "x"},
}


def field_cases() -> Iterator[Any]:
    for kind, names in BAD_FIELDS.items():
        for name, values in names.items():
            for i, value in enumerate(values):
                yield pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{i}")


@pytest.mark.parametrize("kind", BAD_FIELDS)
def test_the_table_has_every_field(kind: Any) -> None:
    assert {field.name for field in fields(kind)} == set(BAD_FIELDS[kind])


@pytest.mark.parametrize("kind, name, value", [*field_cases()])
def test_a_bad_field_is_refused_by_name(kind: Callable[..., Any], name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"\b{name}\b.* must be ") as caught:
        kind(**{**NEEDED.get(kind, {}), name: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


BAD_ARGUMENTS: list[tuple[str, list[Any], Callable[[Any, Any], Any]]] = [
    ("prompt", NO_PROMPT, lambda client, bad: client.generate(bad)),
    ("prompt", NO_PROMPT, lambda client, bad: client.stream(bad)),
    ("prompt", NO_PROMPT, lambda client, bad: client.score(bad, ["x"])),
    ("prompts", [None, 1, "hi", b"hi", {"a": 1}], lambda client, bad: client.generate_many(bad)),
    (r"prompts\[1\]", NO_PROMPT, lambda client, bad: client.generate_many(["x", bad])),
    ("continuations", [None, 1, "hi", b"hi"], lambda client, bad: client.score("x", bad)),
    (r"continuations\[0\]", NO_PROMPT, lambda client, bad: client.score("x", [bad])),
    ("options", [None, Sampling(), {"n": 1}], lambda client, bad: client.generate("x", bad)),
    ("options", [None, Sampling(), {"n": 1}], lambda client, bad: client.stream("x", bad)),
    ("options", [None, Sampling()], lambda client, bad: client.generate_many(["x"], bad)),
    ("model", NO_TEXT, lambda client, bad: client.generate("x", model=bad)),
    ("model", NO_TEXT, lambda client, bad: client.stream("x", model=bad)),
    ("model", NO_TEXT, lambda client, bad: client.score("x", ["y"], model=bad)),
    ("model", NO_TEXT, lambda client, bad: client.tokenize("x", model=bad)),
    ("model", NO_TEXT, lambda client, bad: client.detokenize([1], model=bad)),
    ("name", NO_TEXT, lambda client, bad: client.model(bad)),
    ("text", NO_TEXT, lambda client, bad: client.tokenize(bad)),
    ("literal", NO_FLAG, lambda client, bad: client.tokenize("x", literal=bad)),
    (
        "add_special_tokens",
        NO_FLAG,
        lambda client, bad: client.tokenize("x", add_special_tokens=bad),
    ),
    ("tokens", [*NO_IDS, b"hi"], lambda client, bad: client.detokenize(bad)),
    (
        "skip_special_tokens",
        NO_FLAG,
        lambda client, bad: client.detokenize([1], skip_special_tokens=bad),
    ),
    (
        "timeout",
        ["1", b"1", True, NAN, INF, 0, -1, 1e300, 10**400],
        lambda client, bad: client.models(timeout=bad),
    ),
    (
        "request_id",
        [1, b"x", "", SURROGATE, "a\nb"],
        lambda client, bad: client.models(request_id=bad),
    ),
]


def argument_cases() -> Iterator[Any]:
    for i, (name, values, call) in enumerate(BAD_ARGUMENTS):
        for j, value in enumerate(values):
            yield pytest.param(name, value, call, id=f"{name}-{i}-{j}")


class CallCounter(grpc.GenericRpcHandler):
    """Handler that counts the calls of all methods, and serves none."""

    def __init__(self) -> None:
        self.calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> None:
        del details
        self.calls += 1


@pytest.fixture(scope="module")
def counted() -> Iterator[tuple[str, CallCounter]]:
    """Address of a server, and the counter of its calls."""
    server, counter = grpc.server(ThreadPoolExecutor(2)), CallCounter()
    server.add_generic_rpc_handlers((counter,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", counter
    server.stop(None).wait()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name, value, call", [*argument_cases()])
def test_a_bad_argument_is_refused_by_name_and_nothing_is_sent(
    kind: type[Any], name: str, value: Any, call: Any, counted: tuple[str, CallCounter]
) -> None:
    address, counter = counted
    before = counter.calls
    with pytest.raises(SettingsError, match=rf"\b{name}.* must be "):
        ask(kind, address, lambda client: call(client, value))
    assert counter.calls == before


@pytest.mark.parametrize("kind", BOTH)
def test_a_valid_call_is_counted(kind: type[Any], counted: tuple[str, CallCounter]) -> None:
    address, counter = counted
    before = counter.calls
    with pytest.raises(ClientError):
        ask(kind, address, lambda client: client.generate("x"))
    assert counter.calls == before + 1


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "name, value",
    [
        *(("address", value) for value in (None, 1, "", b"x:1", SURROGATE, "a\0b", "a\nb")),
        *(("timeout", value) for value in (None, "1", True, NAN, 0)),
        *(("security", value) for value in (None, "token", Tls())),
        *(("retry", value) for value in (0, True, "no")),
        *(("keepalive", value) for value in (None, 5.0)),
        *(("metadata", value) for value in ((), (("a", "b"),), "x")),
    ],
)
def test_a_bad_setting_of_a_client_is_refused_by_name(
    kind: type[Any], name: str, value: Any
) -> None:
    with pytest.raises(SettingsError, match=rf"\b{name}\b.* must be "):
        kind(**{"address": "127.0.0.1:1", name: value})


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "returned", [None, "ab", [("a",)], [("A", "b")], [("a", 1)], [("a", "é")], [("a", "b\n")]]
)
def test_bad_metadata_of_a_function_is_refused(kind: type[Any], returned: Any) -> None:
    flaky = FlakyService()
    with listening(flaky) as address, pytest.raises(SettingsError, match=r"metadata.* must be "):
        ask(kind, address, lambda client: client.model(), metadata=lambda: returned)
    assert not flaky.calls


@pytest.mark.parametrize("field", ["ca", "token"])
def test_a_path_with_a_null_character_cannot_be_read(field: str) -> None:
    path = Path("a\0b")
    security = Security(tls=Tls(ca=path)) if field == "ca" else Security(token=path)
    with pytest.raises(SettingsError, match=f"{field}: cannot read 'a"):
        Client("127.0.0.1:1", security=security)


def test_a_bad_token_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        Security(token=b"secret")  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([-1, 2**31, 2**32, 2**63, 2**64, 10**400]),
        st.floats(),
        st.text(st.characters(codec=None, categories=None), max_size=4),
        st.binary(max_size=4),
        st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
        st.builds(np.float32, st.floats(width=32)),
        st.just(np.bool_(1)),
        st.just(np.zeros((2, 2), int)),
        st.just(np.array(3)),
        st.just(object()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.lists(inner, max_size=3).map(iter),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
    ),
    max_leaves=6,
)


def refusal(action: Callable[[], object]) -> str | None:
    """Return the message of a SettingsError; None if there was none."""
    try:
        action()
    except SettingsError as error:
        return str(error)
    return None


def send(kind: Callable[..., Any], name: str, value: Any) -> None:
    """Make an object with a value, and its message."""
    made = kind(**{**NEEDED.get(kind, {}), name: value})
    if isinstance(made, Text):
        build_prompt("prompt", made)
    if isinstance(made, Sampling | BeamSearch):
        made = Options(made)
    if isinstance(made, JsonSchema | Regex | Choices | Lark | StoredChoices):
        made = Options(constraint=made)
    if isinstance(made, Options):
        made.message()


@given(
    st.sampled_from([(kind, name) for kind, names in BAD_FIELDS.items() for name in names]),
    anything,
)
def test_any_value_is_sent_or_refused(case: tuple[Callable[..., Any], str], value: Any) -> None:
    message = refusal(lambda: send(*case, value))
    assert message is None or case[1] in message


@given(anything)
def test_any_prompt_is_sent_or_refused(value: Any) -> None:
    message = refusal(lambda: build_prompt("prompt", value))
    assert message is None or message.startswith("prompt")
