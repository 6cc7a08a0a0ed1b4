"""Readings of a message, weighed by what the shop knows."""

import pytest
from tests.support.shop import Shop

from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import OrderStatus
from gpt2flow.agent.turns.choices.readings import Readings


def likeliest(shop: Shop, message: str, *choices: Choice, is_first: bool = True) -> Choice:
    """Return the reading that fits best in session `s`."""
    readings = Readings(shop.book, shop.database, shop.clock)
    return readings.likeliest("s", message, choices, is_first=is_first)


def add(product: str, confidence: float) -> Choice:
    return Choice("add_to_cart", {"product": product}, confidence)


def call(time: str, confidence: float) -> Choice:
    return Choice("schedule_follow_up", {"time": time}, confidence)


def test_the_likeliest_reading_that_makes_sense_wins(shop: Shop) -> None:
    choice = likeliest(shop, "typical! a kettle then", add("typical", 0.6), add("kettle", 0.3))
    assert choice == Choice("add_to_cart", {"product": "kettle"})
    assert choice.confidence == pytest.approx(0.3 / (0.06 + 0.3 + 0.1))


def test_what_the_shop_does_not_sell_stays_unknown(shop: Shop) -> None:
    readings = add("trampoline", 0.7), add("a trampoline", 0.2)
    assert likeliest(shop, "a trampoline please", *readings).arguments == {"product": "trampoline"}


def test_equal_readings_count_as_one(shop: Shop) -> None:
    message = "a kettle, or the mat?"
    choice = likeliest(shop, message, add("mat", 0.4), add("kettle", 0.3), add("kettle", 0.3))
    assert choice == Choice("add_to_cart", {"product": "kettle"})
    assert choice.confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    "likelier, likely",
    [
        (
            Choice("correct_name", {"name": "电话"}, 0.6),
            Choice("correct_name", {"name": "周思琪"}, 0.3),
        ),
        (Choice("check_out", {"address": "家里"}, 0.6), Choice("check_out", {}, 0.3)),
        (Choice("greet", {}, 0.6), Choice("track_order", {"order": "SO-1042"}, 0.3)),
        # Nothing is in the cart.
        (
            Choice("check_out", {"address": "5 Oak Rd"}, 0.6),
            Choice("change_address", {"order": "SO-1042", "address": "5 Oak Rd"}, 0.3),
        ),
    ],
)
def test_what_cannot_be_meant_is_unlikely(shop: Shop, likelier: Choice, likely: Choice) -> None:
    shop.log_in("s")
    assert likeliest(shop, "1042 5 Oak Rd 周思琪", likelier, likely) == likely


def test_a_time_counts_if_the_message_has_one(shop: Shop) -> None:
    other = Choice("escalate", {}, 0.3)
    assert likeliest(shop, "call me on Friday at 4pm", call("me on", 0.6), other).arguments
    assert likeliest(shop, "call me some time", call("some", 0.6), other) == other


def test_a_person_is_rarely_a_second_wish(shop: Shop) -> None:
    person, done = Choice("escalate", {}, 0.6), Choice("done", {}, 0.3)
    message = "cancel 1042, your manager knows"
    assert likeliest(shop, message, person, done, is_first=False) == done
    assert likeliest(shop, "a person please", person, done) == person


def test_a_login_on_the_way_is_no_obstacle(shop: Shop) -> None:
    wish = Choice("change_address", {"order": "SO-1042", "address": "5 Oak Rd"}, 0.5)
    assert likeliest(shop, "1042 to 5 Oak Rd", wish, Choice("check_out", {}, 0.4)) == wish


@pytest.mark.parametrize(
    "message, likelier, likely",
    [
        (
            "do you keep frying pans at all?",
            Choice("answer_question", {"topic": "privacy"}, 0.6),
            Choice("find_product", {"product": "frying pans"}, 0.3),
        ),
        (
            "address for 1042 likewise",
            Choice("change_address", {"order": "SO-1042", "address": "1042 likewise"}, 0.6),
            Choice("change_address", {"order": "SO-1042"}, 0.3),
        ),
        (
            "do not log me out, show me my orders",
            Choice("log_out", {}, 0.9),
            Choice("list_orders", {}, 0.05),
        ),
    ],
)
def test_what_the_message_does_not_say_is_unlikely(
    shop: Shop, message: str, likelier: Choice, likely: Choice
) -> None:
    shop.log_in("s")
    assert likeliest(shop, message, likelier, likely) == likely
    assert likeliest(shop, "data, ship to 1042 likewise, log out", likelier, likely) == likelier


@pytest.mark.parametrize(
    "message, denied, order",
    [
        ("cancel {0}. no, {1} I meant", "{0}", "{1}"),
        ("{0} is fine", "{0}", None),
        ("{0}, {1} or {2}?", "{0}", None),
        ("neither {0} nor {1}", "{0}", None),
        ("leave {0}, it was 1999 pounds", "{0}", None),
        ("dont touch {1}", "last", None),
    ],
)
def test_a_denied_order_is_corrected_by_the_other_one(
    shop: Shop, message: str, denied: str, order: str | None
) -> None:
    shop.log_in("s")
    numbers = [shop.order(status=OrderStatus.SUBMITTED) for _ in range(3)]
    readings = Readings(shop.book, shop.database, shop.clock)
    wish = Choice("cancel_order", {"order": denied.format(*numbers)})
    corrected = readings.corrected("s", message.format(*numbers), wish)
    expected = order and Choice("cancel_order", {"order": order.format(*numbers)})
    assert corrected == expected


def test_another_customers_order_corrects_nothing(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(status=OrderStatus.SUBMITTED)
    readings = Readings(shop.book, shop.database, shop.clock)
    denied = Choice("cancel_order", {"order": "SO-1205"})
    assert readings.corrected("s", f"1205. no, {number}", denied) is not None
    assert readings.corrected("t", f"1205. no, {number}", denied) is None


@pytest.mark.parametrize(
    "denied",
    [
        Choice("log_in", {}),
        Choice("change_address", {"order": "SO-1205", "address": "5 Oak Rd"}),
    ],
)
def test_what_has_no_order_or_a_text_is_not_corrected(shop: Shop, denied: Choice) -> None:
    shop.log_in("s")
    number = shop.order(status=OrderStatus.SUBMITTED)
    readings = Readings(shop.book, shop.database, shop.clock)
    assert readings.corrected("s", f"1205. no, {number}", denied) is None
