"""Payload and errors of messages on their way out."""

import json

from tests.support.outbox import outgoing

from gpt2flow.agent.delivery.message import DeliveryError, printable
from gpt2flow.agent.shop import Audience


def test_the_payload_has_all_that_a_receiver_needs() -> None:
    message = outgoing("s/1/0", text="你好", language="zh", case_id=7)
    assert message.payload() == {
        "type": "message.customer",
        "timestamp": "2026-03-04T10:30:00+00:00",
        "data": {
            "key": "s/1/0",
            "session": "s",
            "contact": "ann@example.com",
            "language": "zh",
            "text": "你好",
            "case": "C-7",
            "flow": "order",
        },
    }
    assert outgoing(audience=Audience.STAFF, contact=None).payload()["type"] == "message.staff"
    json.dumps(message.payload())


def test_an_error_is_one_short_line_that_a_terminal_can_show() -> None:
    error = DeliveryError("refused\r\n\x1b[31m" + "x" * 1000)
    assert str(error).startswith("refused \N{REPLACEMENT CHARACTER}[31mxxx")
    assert len(str(error)) == 300
    assert not error.is_permanent
    assert printable("a\nb\tc") == "a\nb\N{REPLACEMENT CHARACTER}c"
