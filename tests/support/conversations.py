"""Conversations through all four workflows, with the model's choices."""

from dataclasses import dataclass

from tests.support.scripted_model import Script, ScriptedModel
from tests.support.shop import CODE

from gpt2flow.agent.flows.prompt import Choice

_EVENT = ["assign_courier", "send_delivery_details"]


@dataclass(frozen=True)
class Conversation:
    """Messages of one customer, and what the model makes of them.

    Attributes:
        language: Language of the messages.
        script: Choices by message, in the order in which they are sent.
        session: Id of the conversation.
    """

    language: str
    script: Script
    session: str = "s"

    @property
    def model(self) -> ScriptedModel:
        """Model that follows the script, and handles orders."""
        return ScriptedModel({**self.script, "order_submitted": _EVENT})

    @property
    def messages(self) -> list[str]:
        """Messages of the customer."""
        return list(self.script)


def _claim(kind: str, reason: str) -> list[Choice | str]:
    return [Choice(f"request_{kind}", {"reason": reason})]


ENGLISH = Conversation(
    "en",
    {
        "I'm Ann, ann@example.com": [
            Choice("register", {"name": "Ann", "contact": "ann@example.com"})
        ],
        "000000": [Choice("verify", {"code": "000000"})],
        "another code please": ["resend_code"],
        CODE: [Choice("verify", {"code": CODE})],
        "two kettles and a lamp": [
            Choice("add_to_cart", {"product": "kettles", "quantity": 2}),
            Choice("add_to_cart", {"product": "lamp"}),
        ],
        "make that three kettles": [Choice("set_quantity", {"product": "kettles", "quantity": 3})],
        "no lamp": [Choice("remove_from_cart", {"product": "lamp"})],
        "send it to 5 Oak Rd": [Choice("check_out", {"address": "5 Oak Rd"})],
        "not yet": ["decline_order"],
        "to 7 Elm St, Flat 2": [Choice("check_out", {"address": "7 Elm St, Flat 2"})],
        "yes please": ["confirm_order"],
        "rather to 9 Ash Rd": [Choice("change_address", {"address": "9 Ash Rd"})],
        "it is here": ["confirm_delivery"],
        "it came broken, money back": _claim("refund", "damaged"),
        "an umbrella to 9 Ash Rd": [
            Choice("add_to_cart", {"product": "umbrella"}),
            Choice("check_out", {"address": "9 Ash Rd"}),
        ],
        "yes, do": ["confirm_order"],
        "cancel that": [Choice("cancel_order", {"order": "SO-1002"})],
        "call me tomorrow at 3 pm": [Choice("schedule_follow_up", {"time": "tomorrow at 3 pm"})],
        "my name is Anna": [Choice("correct_name", {"name": "Anna"})],
        "log me out": ["log_out"],
    },
)
CHINESE = Conversation(
    "zh",
    {
        "我叫王芳, 电话 13800138000": [
            Choice("register", {"name": "王芳", "contact": "13800138000"})
        ],
        "号码错了, 是 13900139000": [Choice("correct_contact", {"contact": "13900139000"})],
        CODE: [Choice("verify", {"code": CODE})],
        "一把雨伞和两个水壶": [
            Choice("add_to_cart", {"product": "雨伞"}),
            Choice("add_to_cart", {"product": "水壶", "quantity": 2}),
        ],
        "寄到北京市海淀区中关村大街1号": [
            Choice("check_out", {"address": "北京市海淀区中关村大街1号"})
        ],
        "好的, 提交": ["confirm_order"],
        "收到了": ["confirm_delivery"],
        "质量不行, 退货": _claim("return", "defective"),
        "再来一把雨伞, 寄到老地方": [
            Choice("add_to_cart", {"product": "雨伞"}),
            Choice("check_out", {}),
        ],
        "对, 提交吧": ["confirm_order"],
        "第二单也收到了": [Choice("confirm_delivery", {"order": "SO-1002"})],
        "尺寸不对, 换一把": [
            Choice("request_exchange", {"order": "SO-1002", "reason": "wrong_size"})
        ],
        "明天下午三点给我打电话": [Choice("schedule_follow_up", {"time": "明天下午三点"})],
        "退出": ["log_out"],
        "我要登录, 13900139000": [Choice("log_in", {"contact": "13900139000"})],
    },
)
