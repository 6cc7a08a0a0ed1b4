"""Words by which customers name an action, or say no."""

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.naming import is_named, is_negated, says_more_than_no, says_no


@pytest.mark.parametrize(
    "action, message",
    [
        ("cancel_order", "I am NOT cancelling 1717, where is it"),
        ("cancel_order", "我没说要取消1088啊"),
        ("cancel_order", "不取消,我等着就是了"),
        ("cancel_order", "不要取消我的订单"),
        ("request_refund", "i dont want a refund, just a working one"),
        ("request_refund", "Please don't give me a refund for the lamp"),
        ("request_return", "and I am not sending anything back"),
        ("confirm_delivery", "no marking 1717 as delivered please"),
        ("confirm_delivery", "It hasn't arrived"),
        ("confirm_delivery", "1075还没收到"),
        ("confirm_order", "别提交"),
        ("cancel_order", "Excellent. Nor am I cancelling 1790, mind you; is it moving?"),
        ("cancel_order", "I don't want 1042 cancelled"),
        ("cancel_order", "I told you not to cancel 1042"),
        ("cancel_order", "please make sure you never cancel it"),
        ("cancel_order", "nor do I want to cancel 1042"),
        ("change_address", "不要改地址"),
        ("log_out", "I do not want to be logged out over this, just show me my cart!"),
    ],
)
def test_a_no_before_the_name_of_an_action_negates_it(
    book: FlowBook, action: str, message: str
) -> None:
    assert is_negated(book.actions[action].words, message)


@pytest.mark.parametrize(
    "action, message",
    [
        ("cancel_order", "cancel it, I don't need it"),
        ("cancel_order", "I do not need it so cancel it"),
        ("cancel_order", "不想要了,取消"),
        ("request_refund", "it does not work, refund"),
        ("request_refund", "不想要了退款"),
        ("request_refund", "不合适,我要退款"),
        ("request_exchange", "I dont want a refund, exchange it"),
        ("confirm_delivery", "got it, nothing broken"),
        ("list_orders", "not my orders"),
        ("cancel_order", "i don't want 1042 cancel it"),
        ("cancel_order", "dont want it cancel 1042"),
        ("cancel_order", "i can't cancel order 1042, help"),
        ("cancel_order", "请分别取消1042和1043"),
        ("cancel_order", "这单我特别想取消1042"),
        ("change_address", "1002: that's not my address, make it 5 Oak Rd"),
        ("request_refund", "you have not refunded me 1042, refund it now"),
        ("request_refund", "1042还不退款"),
        ("cancel_order", "you still haven't cancelled 1042"),
        ("cancel_order", "you never cancelled 1042"),
        ("request_return", "these are not for me i will return 1042"),
    ],
)
def test_another_no_does_not_negate_an_action(book: FlowBook, action: str, message: str) -> None:
    assert not is_negated(book.actions[action].words, message)


@pytest.mark.parametrize(
    "message",
    [
        "why don't you refund me",
        "can't you refund 1042?",
        "order no 1042 refund please",
        "won't turn on refund please",
        "要不退款吧",
        "怎么还不退款",
        "不退款我就投诉",
    ],
)
def test_a_reproach_or_a_threat_negates_nothing(book: FlowBook, message: str) -> None:
    assert not is_negated(book.actions["request_refund"].words, message)


@pytest.mark.parametrize(
    "message, expected",
    [
        ("cancel 1042 and get me a human", True),
        ("取消1042,转人工", True),
        ("cancel 1042, I am auditing this shop", False),
        ("replace it, really", False),
    ],
)
def test_a_person_is_named(book: FlowBook, message: str, *, expected: bool) -> None:
    assert is_named(book.actions["escalate"].words, message) is expected


@pytest.mark.parametrize("text", ["not " + "-" * 990, "not a " * 160, "n't " * 250, "不想要" * 330])
def test_a_long_message_is_read_at_once(book: FlowBook, text: str) -> None:
    assert not any(is_negated(action.words, text) for action in book.actions.values())


@pytest.mark.parametrize(
    "message, is_no, goes_on",
    [
        ("no", True, False),
        ("No, thank you.", True, False),
        ("不是", True, False),
        ("不用了,谢谢", True, False),
        ("no, the other one", True, True),
        ("不是, 我要换货", True, True),
        ("yes", False, False),
        ("nobody called me", False, False),
        ("no problem, yes", False, False),
        ("no. 1042", False, False),
        ("没有问题", False, False),
        ("no?", True, False),
        ("not yet, where is it", True, True),
        ("不好意思,是的", False, False),
    ],
)
def test_a_no_may_go_on(message: str, *, is_no: bool, goes_on: bool) -> None:
    assert (says_no(message), says_more_than_no(message)) == (is_no, goes_on)
