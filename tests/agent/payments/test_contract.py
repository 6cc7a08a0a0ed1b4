"""Fields of the contract of the payment service."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2flow.agent.payments.contract import (
    MAX_AMOUNT,
    MAX_TEXT,
    decode_key,
    encode_key,
    format_amount,
    parse_amount,
)

NOT_AMOUNTS: list[object] = [
    *("0", "0.00", "-1.00", "+1.00", "1.005", "1.", ".5", "01.00", "1,00", "1 000.00", "1_000"),
    *("NaN", "Infinity", "-Infinity", "1e2", "1E+2", "0x10", "", " ", " 1.00", "1.00\n", "١.٠٠"),
    *("100000000000000000000", "10000000000.00", "9" * 5000),
    *(50, 50.0, True, None, [], {}),
]


@pytest.mark.parametrize("text", NOT_AMOUNTS, ids=lambda text: repr(text)[:20])
def test_anything_but_a_decimal_string_above_zero_is_no_amount(text: object) -> None:
    with pytest.raises(ValueError, match="must be a decimal string above 0 with at most two"):
        parse_amount(text)


@pytest.mark.parametrize(
    "text, amount",
    [
        ("0.01", "0.01"),
        ("5", "5.00"),
        ("5.5", "5.50"),
        ("0.10", "0.10"),
        (str(MAX_AMOUNT), "9999999999.99"),
    ],
)
def test_an_amount_gets_two_decimals(text: str, amount: str) -> None:
    assert format_amount(parse_amount(text)) == amount


@pytest.mark.parametrize("text", ["0", "-1", "1.005", "1E20", "NaN", "sNaN", "Infinity"])
def test_an_amount_is_never_rounded_to_fit(text: str) -> None:
    with pytest.raises(ValueError, match="must be a decimal string"):
        format_amount(Decimal(text))


@given(st.decimals("0.01", MAX_AMOUNT, places=2))
def test_every_amount_survives_the_way_there_and_back(amount: Decimal) -> None:
    assert parse_amount(format_amount(amount)) == amount


@given(st.text(min_size=1, max_size=MAX_TEXT).filter(str.isprintable))
@example("SO-1001/1/charge")
@example("%2F")
@example("a b?c#d&e=f+g;h:i")
@example("订单/１ ünï'; DROP TABLE payments; --")
def test_a_key_of_any_printable_characters_survives_the_way_there_and_back(key: str) -> None:
    if key not in {".", ".."}:
        assert encode_key(key).isascii()
        assert decode_key(encode_key(key)) == key


@pytest.mark.parametrize("key", ["", ".", "..", "a\nb", "a\x00", "\ud800", "\u200b", "k" * 201])
def test_a_key_that_no_path_and_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 200 printable characters"):
        encode_key(key)


@pytest.mark.parametrize("header", ["%", "%2", "%zz", "a%FF", "%0A", "ключ", "%ED%A0%80"])
def test_a_header_that_is_not_percent_encoded_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        decode_key(header)
