"""Conversations of the chaos runs: what customers say, and what people decide.

Every conversation has a customer of its own, so that what it leaves behind can be compared with an
uninterrupted run, whichever others were played beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.support.scripted_model import Script
from tests.support.shop import CODE

from gpt2flow.agent.flows.prompt import Choice, normalize


class Scene(StrEnum):
    """Shop in which conversations take place.

    The scripted model answers in the first two, the shipped one in the third.
    """

    SHOP = "shop"
    NO_COURIER = "no_courier"
    SERVED = "served"


class Act(StrEnum):
    """Act of a person on the newest case of a conversation."""

    TAKE = "take"
    RETURN = "return"
    REPLY = "reply"
    CLOSE = "close"
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True)
class Say:
    """Message of the customer.

    Attributes:
        id: Id of the message; what follows `#` only makes it unique within the conversation.
        text: Text of the message.
        choices: What the scripted model answers.
    """

    id: str
    text: str
    choices: Sequence[Choice | str] = ()


@dataclass(frozen=True)
class Decide:
    """Act of a person.

    Attributes:
        act: The act.
        text: Reply, reason or note; the amount of an approval.
    """

    act: Act
    text: str = ""


@dataclass(frozen=True)
class AwaitOrder:
    """Pause until the customer's orders are handled: sent, or cancelled."""


Part = Say | Decide | AwaitOrder


@dataclass(frozen=True)
class Conversation:
    """Conversation with one customer.

    Attributes:
        name: Id of the session, and the local part of the customer's address.
        parts: What happens, in order.
        scene: Shop that it needs.
    """

    name: str
    parts: tuple[Part, ...]
    scene: Scene = Scene.SHOP

    @property
    def contact(self) -> str:
        return f"{self.name}@example.com"

    @property
    def messages(self) -> list[Say]:
        return [part for part in self.parts if isinstance(part, Say)]

    @property
    def acts(self) -> list[Act]:
        """Acts of a person, in order."""
        return [part.act for part in self.parts if isinstance(part, Decide)]


def script_of(conversations: Iterable[Conversation]) -> Script:
    """Return the answers of the scripted model."""
    script: Script = {"order_submitted": ["assign_courier", "send_delivery_details"]}
    for each in conversations:
        for message in each.messages:
            text = normalize(message.text)
            assert script.setdefault(text, message.choices) == message.choices, text
    return script


def _register(name: str) -> tuple[Part, ...]:
    contact = f"{name}@example.com"
    return (
        Say("register", f"i'm Ann, {contact}", [_choice("register", name="Ann", contact=contact)]),
        Say("verify", CODE, [_choice("verify", code=CODE)]),
    )


def _register_zh(name: str) -> tuple[Part, ...]:
    contact = f"{name}@example.com"
    return (
        Say(
            "register", f"我叫小明, {contact}", [_choice("register", name="小明", contact=contact)]
        ),
        Say("verify", CODE, [_choice("verify", code=CODE)]),
    )


def _choice(action: str, confidence: float = 1.0, **arguments: str | int) -> Choice:
    return Choice(action, dict(arguments), confidence)


_FILL = "add_to_cart+check_out"
_KETTLES = Say(
    _FILL,
    "2 kettles to 5 Oak Rd",
    [
        _choice("add_to_cart", product="kettles", quantity=2),
        _choice("check_out", address="5 Oak Rd"),
    ],
)
_LAMP_ZH = Say(
    _FILL,
    "一个台灯, 寄到人民路5号",
    [_choice("add_to_cart", product="台灯", quantity=1), _choice("check_out", address="人民路5号")],
)
# Above the limit of a refund without approval.
_HEADPHONES = Say(
    _FILL,
    "3 headphones to 7 High St",
    [
        _choice("add_to_cart", product="headphones", quantity=3),
        _choice("check_out", address="7 High St"),
    ],
)
_HEADPHONES_ZH = Say(
    _FILL,
    "三个耳机, 寄到南京路7号",
    [_choice("add_to_cart", product="耳机", quantity=3), _choice("check_out", address="南京路7号")],
)
_YES = Say("confirm_order", "yes", ["confirm_order"])
_YES_ZH = Say("confirm_order", "确认", ["confirm_order"])
_ARRIVED = Say("confirm_delivery", "it has arrived", [_choice("confirm_delivery", order="last")])
_ARRIVED_ZH = Say("confirm_delivery", "收到了", [_choice("confirm_delivery", order="last")])
_SENT = (_YES, AwaitOrder(), _ARRIVED)
_SENT_ZH = (_YES_ZH, AwaitOrder(), _ARRIVED_ZH)
_REFUND = Say(
    "request_refund",
    "it is broken, i want my money back",
    [_choice("request_refund", order="last", reason="defective")],
)
_REFUND_ZH = Say(
    "request_refund",
    "坏的, 我要退款",
    [_choice("request_refund", order="last", reason="defective")],
)
_TRACK = Say("track_order", "where is it", [_choice("track_order", order="last")])
_HELLO = Say("greet", "hello", ["greet"])
_HELLO_ZH = Say("greet", "你好", ["greet"])
_CALL = Say(
    "confirm_order+schedule_follow_up",
    "yes, and call me tomorrow at 3pm",
    ["confirm_order", _choice("schedule_follow_up", time="tomorrow at 3pm")],
)
_CALL_ZH = Say(
    "schedule_follow_up",
    "明天下午三点给我打电话",
    [_choice("schedule_follow_up", time="明天下午三点")],
)


def _shop() -> tuple[Conversation, ...]:
    """Return the conversations of a shop that has a courier."""
    parts: dict[str, tuple[Part, ...]] = {
        "login-en": (
            *_register("login-en"),
            Say("log_out", "bye", ["log_out"]),
            # Logged out, so the order waits for the login.
            _KETTLES,
            Say(
                "log_in",
                "login-en@example.com",
                [_choice("log_in", contact="login-en@example.com")],
            ),
            Say("verify+resumed", CODE, [_choice("verify", code=CODE)]),
            Say("confirm_order", "yes", ["confirm_order"]),
        ),
        "login-zh": (
            _register_zh("login-zh")[0],
            Say("resend_code", "没收到, 再发一次", ["resend_code"]),
            Say("correct_name", "我叫王芳", [_choice("correct_name", name="王芳")]),
            Say("verify", CODE, [_choice("verify", code=CODE)]),
            _HELLO_ZH,
            Say("log_out", "再见", ["log_out"]),
        ),
        "order-en": (
            *_register("order-en"),
            _KETTLES,
            _YES,
            AwaitOrder(),
            _TRACK,
            Say(
                "change_address",
                "send it to 9 Elm Rd instead",
                [_choice("change_address", order="last", address="9 Elm Rd")],
            ),
        ),
        "order-zh": (
            *_register_zh("order-zh"),
            _LAMP_ZH,
            Say("decline_order", "先不提交", ["decline_order"]),
            Say("check_out", "寄到人民路6号", [_choice("check_out", address="人民路6号")]),
            _YES_ZH,
            AwaitOrder(),
            Say("list_orders", "我的订单", ["list_orders"]),
        ),
        "refund-en": (
            *_register("refund-en"),
            _KETTLES,
            *_SENT,
            _REFUND,
        ),
        "refund-zh": (
            *_register_zh("refund-zh"),
            _HEADPHONES_ZH,
            *_SENT_ZH,
            _REFUND_ZH,
            Decide(Act.APPROVE, "250.00"),
        ),
        "approved-en": (
            *_register("approved-en"),
            _HEADPHONES,
            *_SENT,
            _REFUND,
            Decide(Act.TAKE),
            Decide(Act.APPROVE, "267.00"),
            Decide(Act.CLOSE, "paid back"),
        ),
        "rejected-en": (
            *_register("rejected-en"),
            _HEADPHONES,
            *_SENT,
            _REFUND,
            Decide(Act.TAKE),
            Decide(Act.REJECT, "It was used for a year."),
        ),
        "exchange-zh": (
            *_register_zh("exchange-zh"),
            _LAMP_ZH,
            *_SENT_ZH,
            Say(
                "request_exchange",
                "发错了, 我要换货",
                [_choice("request_exchange", order="last", reason="wrong_item")],
            ),
        ),
        "cancel-en": (
            *_register("cancel-en"),
            _KETTLES,
            _YES,
            AwaitOrder(),
            Say("cancel_order", "cancel it", [_choice("cancel_order", order="last")]),
        ),
        "cancel-zh": (
            *_register_zh("cancel-zh"),
            _LAMP_ZH,
            _YES_ZH,
            AwaitOrder(),
            # Asked whether that is meant.
            Say("cancel_order?", "那个不要", [_choice("cancel_order", 0.3, order="last")]),
            Say("affirm", "对的", ["affirm"]),
        ),
        "call-en": (*_register("call-en"), _KETTLES, _CALL),
        "call-zh": (*_register_zh("call-zh"), _CALL_ZH),
        "refused-en": (*_register("refused-en"), _KETTLES, _YES, AwaitOrder(), _TRACK),
        "refused-zh": (*_register_zh("refused-zh"), _LAMP_ZH, _YES_ZH, AwaitOrder()),
        "person-en": (
            *_register("person-en"),
            Say("escalate", "i want to talk to a person", ["escalate"]),
            Decide(Act.TAKE),
            Say("attended", "are you there"),
            Decide(Act.REPLY, "Yes. What can I do for you?"),
            Decide(Act.CLOSE, "done"),
            _HELLO,
        ),
        "returned-zh": (
            *_register_zh("returned-zh"),
            Say("escalate", "我要找人工", ["escalate"]),
            Decide(Act.TAKE),
            Say("attended", "在吗"),
            Decide(Act.REPLY, "您好, 已经处理好了。"),
            Decide(Act.RETURN),
            _HELLO_ZH,
        ),
        "person-zh": (
            Say("clarify", "啊啊啊", ["clarify"]),
            Say("clarify#2", "哦哦哦", ["clarify"]),
            Decide(Act.REPLY, "您好, 请问需要什么帮助?"),
            Say("attended", "没事了"),
            Decide(Act.CLOSE),
            _HELLO_ZH,
        ),
    }
    return tuple(Conversation(name, each) for name, each in parts.items())


def _no_courier() -> tuple[Conversation, ...]:
    """Return the conversations of a shop without couriers: orders are compensated."""
    parts: dict[str, tuple[Part, ...]] = {
        "undone-en": (*_register("undone-en"), _KETTLES, _YES, AwaitOrder(), _TRACK),
        "undone-zh": (*_register_zh("undone-zh"), _LAMP_ZH, _YES_ZH, AwaitOrder()),
        "undone-call-en": (*_register("undone-call-en"), _KETTLES, _CALL, AwaitOrder()),
    }
    return tuple(Conversation(name, each, Scene.NO_COURIER) for name, each in parts.items())


def _served() -> tuple[Conversation, ...]:
    """Return the conversations that the shipped model understands."""
    parts: dict[str, tuple[Part, ...]] = {
        "served-en": (
            Say(
                "register",
                "I'd like to create an account, my name is Ann Miller, email served-en@example.com",
            ),
            Say("verify", CODE),
            Say(
                "order",
                "put 2 electric kettles in my cart and check out, ship it to 12 Elm Street, Leeds",
            ),
            Say("confirm", "yes, go ahead"),
            AwaitOrder(),
            Say("track", "where is my order?"),
        ),
        "served-zh": (
            Say("register", "你好，帮我注册一个账号，我叫小明，邮箱served-zh@example.com"),
            Say("verify", CODE),
            Say("fill", "我要买两个保温杯"),
            Say("check_out", "结账，寄到杭州市西湖区文三路5号"),
            Say("confirm", "确认，提交吧"),
            AwaitOrder(),
            Say("track", "上一单什么时候能到？"),
        ),
    }
    return tuple(Conversation(name, each, Scene.SERVED) for name, each in parts.items())


CONVERSATIONS = (*_shop(), *_no_courier(), *_served())
# Customers whose charges the payment service refuses.
REFUSED = ("refused-en@example.com", "refused-zh@example.com")
