"""Positions of tokens in a text, whole and in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.client import TokenLogprob
from gpt2flow.gateway.answers.logprobs import TokenOffsets, chat_logprobs, completion_logprobs

SPECIAL = b"<|act|>"


def offsets(tokens: list[bytes], text: str, start: int = 0) -> list[int]:
    return TokenOffsets(start).add(tokens, text)


def test_tokens_stand_where_their_text_does() -> None:
    assert offsets([b"two", b" umb", b"rellas"], "two umbrellas") == [0, 3, 7]
    assert offsets([b"two", b" umb"], "two umb", start=100) == [100, 103]


def test_positions_are_characters() -> None:
    assert offsets(["买".encode(), b" a", "伞".encode()], "买 a伞") == [0, 1, 3]


def test_parts_of_a_character_have_its_position() -> None:
    parts = [bytes([byte]) for byte in "买".encode()]
    assert offsets([b"a", *parts, b"b"], "a买b") == [0, 1, 1, 1, 2]


def test_a_token_that_the_text_leaves_out_takes_no_room() -> None:
    assert offsets([b"a", SPECIAL, b"b", SPECIAL], "ab") == [0, 1, 1, 2]
    assert offsets([SPECIAL, b"<", b"b"], "<b") == [0, 0, 1]


def test_bytes_that_are_no_text_count_as_one_character() -> None:
    assert offsets([b"a", b"\xff", b"b"], "a\ufffdb") == [0, 1, 2]


def test_text_cut_before_a_stop_string_keeps_the_positions() -> None:
    assert offsets([b"ab", b"cd", b"ef"], "abc") == [0, 2, 4]


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=4), st.booleans()), max_size=8),
    st.data(),
)
def test_pieces_have_the_positions_of_the_whole(
    parts: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """Text comes with its token or later; special tokens have none."""
    tokens = [SPECIAL if special else part.encode() for part, special in parts]
    texts = ["" if special or part.startswith("<") else part for part, special in parts]
    if any(part.startswith("<") and not special for part, special in parts):
        return
    whole, growing = offsets(tokens, "".join(texts)), TokenOffsets(0)
    found: list[int] = []
    held = ""
    for token, text in zip(tokens, texts, strict=True):
        held += text
        sent = held if data.draw(st.booleans()) else ""
        held = held[len(sent) :]
        found += growing.add([token], sent)
    visible = [i for i, token in enumerate(tokens) if token != SPECIAL]
    if SPECIAL not in tokens:
        assert found == whole
    assert len(found) == len(whole)
    assert all(found[i] >= whole[i] for i in visible)


def logprob(token: bytes, value: float | None, *top: TokenLogprob) -> TokenLogprob:
    return TokenLogprob(1, token, value, top)


def test_a_completion_has_the_chosen_token_among_the_likeliest() -> None:
    positions = [logprob(b"a", None), logprob(b"b", -3.0, logprob(b"c", -0.5))]
    assert completion_logprobs(positions, "ab", TokenOffsets(0)) == {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -3.0],
        "top_logprobs": [None, {"c": -0.5, "b": -3.0}],
        "text_offset": [0, 1],
    }


def test_without_alternatives_there_is_no_list_of_them() -> None:
    assert completion_logprobs([logprob(b"a", -1.0)], "a", TokenOffsets(0))["top_logprobs"] is None


def test_parts_of_characters_keep_their_bytes() -> None:
    found = completion_logprobs([logprob(b"\xe4\xb9", -1.0)], "", TokenOffsets(0))
    assert found["tokens"] == ["bytes:\\xe4\\xb9"]
    [entry] = chat_logprobs([logprob(b"\xe4\xb9", -1.0)])
    assert (entry["token"], entry["bytes"]) == ("\ufffd", [0xE4, 0xB9])


def test_an_impossible_token_has_a_value_that_json_can_hold() -> None:
    [entry] = chat_logprobs([logprob(b"a", float("-inf"))])
    assert entry["logprob"] == -9999.0
