"""Extraction of candidate slot values from messages."""

import pytest

from gpt2flow.agent.flows.prompt import normalize
from gpt2flow.agent.flows.slots import SlotKind, candidates, named_orders


@pytest.mark.parametrize(
    "message, values",
    [
        (
            "mail Ann.Lee+shop@Example.co.uk or call 07700 900123",
            ["ann.lee+shop@example.co.uk", "07700900123"],
        ),
        ("手机号138-0013-8000，邮箱wang@x.com吧", ["wang@x.com", "13800138000"]),
        ("+44 7700 900123", ["+447700900123"]),
        ("order 1042 please", []),
    ],
)
def test_contact_candidates(message: str, values: list[str]) -> None:
    assert candidates(SlotKind.CONTACT, normalize(message)) == values


@pytest.mark.parametrize(
    "message, values",
    [
        ("it's 123456", ["123456"]),
        ("１２３ ４５６", ["123456"]),
        ("123-456 or 654321", ["123456", "654321"]),
        ("1234567", []),
        ("12345", []),
    ],
)
def test_code_candidates(message: str, values: list[str]) -> None:
    assert candidates(SlotKind.CODE, normalize(message)) == values


@pytest.mark.parametrize(
    "message, values",
    [
        ("where is SO-1042", ["SO-1042", "last"]),
        ("so1042 and #1043, 1042", ["SO-1042", "SO-1043", "last"]),
        ("订单号是1042", ["SO-1042", "last"]),
        ("order no. 7", ["SO-7", "last"]),
        ("my last order", ["last"]),
        ("call 07700900123", ["last"]),
    ],
)
def test_order_candidates(message: str, values: list[str]) -> None:
    assert candidates(SlotKind.ORDER, normalize(message)) == values


@pytest.mark.parametrize(
    "message, values",
    [
        ("two kettles and 3 mats", ["3", "2"]),
        ("a couple of lamps, half a dozen mugs", ["2", "6"]),
        ("两个保温杯，十二条毛巾", ["2", "12"]),
        ("二十一个, 一打", ["21", "12"]),
        ("at 3:30 for 4.99", []),
        ("a kettle", []),
        ("fangzheng77@example.com, a lamp", []),
        ("on the 14th, 2 kettles", ["2"]),
    ],
)
def test_integer_candidates(message: str, values: list[str]) -> None:
    assert candidates(SlotKind.INTEGER, normalize(message)) == values


@pytest.mark.parametrize(
    "message", ["40% off", "15 quid each", "$40", "#1042", "我穿42码", "打8折", "59元", "at 18:30"]
)
def test_prices_discounts_and_sizes_are_no_quantities(message: str) -> None:
    assert candidates(SlotKind.INTEGER, message) == []


@pytest.mark.parametrize("message", ["9999 cables", "热水壶,9999个", "cables:9999"])
def test_a_large_quantity_is_read_whole(message: str) -> None:
    assert candidates(SlotKind.INTEGER, message) == ["9999"]


@pytest.mark.parametrize(
    "message, orders",
    [
        ("where is 1042", ["SO-1042"]),
        ("order 123456", ["SO-123456"]),
        ("123456, where is my order?", []),
        ("call 020 7946 0958", []),
    ],
)
def test_codes_and_phone_numbers_name_no_order(message: str, orders: list[str]) -> None:
    assert named_orders(message) == orders


@pytest.mark.parametrize(
    "kind, message, values",
    [
        (SlotKind.ORDER, "cancel 1142. damn, not 1142, 1143!!", ["SO-1143"]),
        (SlotKind.ORDER, "1143,不是1142", ["SO-1143"]),
        (SlotKind.ORDER, "not SO-1142 but order 1143", ["SO-1143"]),
        (SlotKind.ORDER, "it is not 1142", ["SO-1142", "last"]),
        (SlotKind.ORDER, "refund my last order, not 1142 or 1143", ["last"]),
        (SlotKind.ORDER, "neither 1142 nor 1143", ["SO-1142", "SO-1143", "last"]),
        (SlotKind.CONTACT, "mail b@x.com, not a@x.com", ["b@x.com"]),
        (SlotKind.INTEGER, "5 mugs, not 4", ["5"]),
        (SlotKind.ORDER, "1041 came but not 1042, refund 1042", ["SO-1041", "SO-1042", "last"]),
        (SlotKind.ORDER, "是不是1042还没发货? 1043到了", ["SO-1042", "SO-1043", "last"]),
        (SlotKind.INTEGER, "3 mugs and why not 2 plates", ["3", "2"]),
        (SlotKind.INTEGER, "要不要2个台灯和3个杯子", ["2", "3"]),
        (SlotKind.CODE, "先不要104604", ["104604"]),
    ],
)
def test_a_negated_value_is_no_candidate_beside_another(
    kind: SlotKind, message: str, values: list[str]
) -> None:
    assert candidates(kind, message) == values
