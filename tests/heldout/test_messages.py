"""Held-out messages: well-formed, legal, and covering every action."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]

# Slots of every action that a customer can cause, in their order in the JSON.
SLOTS: dict[str, tuple[str, ...]] = {
    "greet": (),
    "clarify": (),
    "escalate": (),
    "register": ("name", "contact"),
    "log_in": ("contact",),
    "verify": ("code",),
    "resend_code": (),
    "log_out": (),
    "find_product": ("product",),
    "add_to_cart": ("product", "quantity"),
    "remove_from_cart": ("product",),
    "view_cart": (),
    "check_out": ("address",),
    "confirm_order": (),
    "decline_order": (),
    "cancel_order": ("order",),
    "track_order": ("order",),
    "change_address": ("order", "address"),
    "confirm_delivery": ("order",),
    "answer_question": ("topic",),
    "request_refund": ("order", "reason"),
    "request_return": ("order", "reason"),
    "request_exchange": ("order", "reason"),
    "schedule_follow_up": ("time",),
}
# Actions that the flows had not when `messages.jsonl` was written.
NEWER_SLOTS: dict[str, tuple[str, ...]] = {
    "set_quantity": ("product", "quantity"),
    "list_orders": (),
    "correct_name": ("name",),
    "correct_contact": ("contact",),
    "affirm": (),
    "deny": (),
}
ALL_SLOTS = SLOTS | NEWER_SLOTS
SPANS = {"name", "product", "address", "time"}
ENUMS = {
    "reason": {
        "damaged",
        "defective",
        "wrong_item",
        "missing_parts",
        "not_as_described",
        "wrong_size",
        "late",
        "changed_mind",
    },
    "topic": {
        "delivery_time",
        "delivery_cost",
        "return_policy",
        "payment",
        "warranty",
        "invoice",
        "opening_hours",
        "discounts",
        "privacy",
    },
}
LOGIN_STATES = {"guest", "verifying", "member"}
FACTS = (*sorted(LOGIN_STATES), "cart", "confirming", "unsure")
STATES = {
    "guest",
    "guest cart",
    "verifying",
    "verifying cart",
    "member",
    "member cart",
    "member cart confirming",
}

# Facts that each action requires: one of the login states, and all of the others.
MEMBER, LOGGED_OUT = {"member"}, {"guest", "verifying"}
REQUIRED_FACTS: dict[str, tuple[set[str], set[str]]] = {
    "register": (LOGGED_OUT, set()),
    "log_in": (LOGGED_OUT, set()),
    "verify": ({"verifying"}, set()),
    "resend_code": ({"verifying"}, set()),
    "log_out": (MEMBER, set()),
    "remove_from_cart": (LOGIN_STATES, {"cart"}),
    "check_out": (MEMBER, {"cart"}),
    "confirm_order": (LOGIN_STATES, {"confirming"}),
    "decline_order": (LOGIN_STATES, {"confirming"}),
    "cancel_order": (MEMBER, set()),
    "track_order": (MEMBER, set()),
    "change_address": (MEMBER, set()),
    "confirm_delivery": (MEMBER, set()),
    "request_refund": (MEMBER, set()),
    "request_return": (MEMBER, set()),
    "request_exchange": (MEMBER, set()),
    "schedule_follow_up": (MEMBER, set()),
    "set_quantity": (LOGIN_STATES, {"cart"}),
    "list_orders": (MEMBER, set()),
    "correct_name": ({"verifying", "member"}, set()),
    "correct_contact": ({"verifying"}, set()),
    "affirm": (LOGIN_STATES, {"unsure"}),
    "deny": (LOGIN_STATES, {"unsure"}),
}
# Facts that an action removes, and facts that it adds.
EFFECTS: dict[str, tuple[set[str], set[str]]] = {
    "register": (LOGIN_STATES, {"verifying"}),
    "log_in": (LOGIN_STATES, {"verifying"}),
    "verify": (LOGIN_STATES, {"member"}),
    "log_out": (LOGIN_STATES | {"confirming"}, {"guest"}),
    "add_to_cart": (set(), {"cart"}),
    "check_out": (set(), {"confirming"}),
    "confirm_order": ({"confirming", "cart"}, set()),
    "decline_order": ({"confirming"}, set()),
    "affirm": ({"unsure"}, set()),
    "deny": ({"unsure"}, set()),
}


def load(name: str) -> list[Row]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


SETS = {name: load(name) for name in ("messages.jsonl", "unseen.jsonl")}
ROWS = [row for rows in SETS.values() for row in rows]
each_row = pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])


def normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split()).replace('"', "'")


def join_digits(text: str) -> str:
    """Join digits that only blanks, dots, dashes or brackets separate."""
    return re.sub(r"(?<=\d)[\s().-]+(?=\d)", "", text)


def mentions_order(text: str, value: str) -> bool:
    number = re.fullmatch(r"SO-(\d+)", value)
    if number is None:
        return value == "last"
    return re.search(rf"(?<!\d){number[1]}(?!\d)", text) is not None


def mentions_contact(text: str, value: str) -> bool:
    if "@" in value:
        return value == value.lower() and value in text.lower()
    return re.fullmatch(r"\+?\d{6,15}", value) is not None and value in join_digits(text)


def mentions(message: str, slot: str, value: Any) -> bool:
    text = normalize(message)
    if slot == "quantity":
        return type(value) is int and value > 0
    if not isinstance(value, str) or not value:
        return False
    checks: dict[str, Callable[[], bool]] = {
        "order": lambda: mentions_order(text, value),
        "contact": lambda: mentions_contact(text, value),
        "code": lambda: re.fullmatch(r"\d{6}", value) is not None and value in join_digits(text),
        **{name: lambda: normalize(value) in text for name in SPANS},
        **{name: lambda: value in ENUMS[slot] for name in ENUMS},
    }
    return checks[slot]()


@each_row
def test_a_row_matches_the_schema(row: Row) -> None:
    assert list(row) == ["id", "lang", "state", "message", "actions"]
    assert row["lang"] in {"en", "zh"}
    assert re.fullmatch(rf"{row['lang']}-\d{{3}}", row["id"])
    assert list(row["state"]) == ["facts", "awaiting"]
    facts = row["state"]["facts"]
    assert facts == [fact for fact in FACTS if fact in facts]
    assert " ".join(facts).removesuffix(" unsure") in STATES
    if row["state"]["awaiting"] is not None:
        action, slot = row["state"]["awaiting"]
        assert slot in (*ALL_SLOTS[action], "confirmation")
    assert row["message"].strip()
    assert row["actions"]


@each_row
def test_slots_are_in_order_and_in_the_message(row: Row) -> None:
    for action in row["actions"]:
        slots = [key for key in action if key != "action"]
        assert next(iter(action)) == "action"
        assert slots == [slot for slot in ALL_SLOTS[action["action"]] if slot in slots]
        for slot in slots:
            assert mentions(row["message"], slot, action[slot]), (slot, action[slot])


@each_row
def test_actions_are_legal_in_their_state(row: Row) -> None:
    facts = set(row["state"]["facts"])
    for action in row["actions"]:
        name = action["action"]
        logins, others = REQUIRED_FACTS.get(name, (LOGIN_STATES, set()))
        assert facts & logins, (name, facts)
        assert others <= facts, (name, facts)
        lost, gained = EFFECTS.get(name, (set(), set()))
        facts = (facts - lost) | gained


@each_row
def test_small_talk_stands_alone(row: Row) -> None:
    names = {action["action"] for action in row["actions"]}
    assert not names & {"greet", "clarify"} or len(row["actions"]) == 1


def test_ids_and_messages_are_unique() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    # The same bare number may occur in two states, but not twice in one.
    keys = {(normalize(row["message"]).casefold(), json.dumps(row["state"])) for row in ROWS}
    assert len(keys) == len(ROWS)


def test_there_are_enough_messages_in_both_languages() -> None:
    assert len(ROWS) >= 120
    share = sum(row["lang"] == "zh" for row in ROWS) / len(ROWS)
    assert 0.45 <= share <= 0.55


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name, slots", [("messages.jsonl", SLOTS), ("unseen.jsonl", ALL_SLOTS)])
def test_each_language_covers_actions_values_and_states(
    name: str, slots: dict[str, tuple[str, ...]], lang: str
) -> None:
    rows = [row for row in SETS[name] if row["lang"] == lang]
    actions = [action for row in rows for action in row["actions"]]
    counts = Counter(action["action"] for action in actions)
    assert {action: counts[action] for action in slots if counts[action] < 3} == {}
    for slot, values in ENUMS.items():
        assert {action[slot] for action in actions if slot in action} == values
    assert {" ".join(row["state"]["facts"]).removesuffix(" unsure") for row in rows} == STATES
    assert sum(row["state"]["awaiting"] is not None for row in rows) >= 10
    assert sum(len(row["actions"]) > 1 for row in rows) >= len(rows) // 5
