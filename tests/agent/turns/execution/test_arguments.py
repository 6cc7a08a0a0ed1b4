"""Plausibility of the values that the model took from a message."""

import pytest
from tests.support.shop import Shop
from tests.support.turns import say

from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.shop import CartLine, Checkout, Product, Verification
from gpt2flow.agent.turns.execution.arguments import is_plausible, whole_clauses

NAMES = {
    "Ann": True,
    "Jean-Luc O'Brien": True,
    "Mr Smith": True,
    "Ng": True,
    "王芳": True,
    "王先生": True,
    "Sir": False,
    "sir.": False,
    "E-Mail": False,
    "电话": False,
    "先生": False,
    "Agent 47": False,
    "13800138000": False,
    "-": False,
}
ADDRESSES = {
    "12 Elm St, Leeds": True,
    "one High Street": True,
    "Flat B, Seven Oaks": True,
    "海淀区中关村大街一号": True,
    "home": False,
    "the usual address": False,
    "Sevenoaks": False,
    "公司": False,
    "上海市南京路": False,
}
CONTACTS = {
    "ann@example.com": True,
    "ann.lee+shop@mail.example.co.uk": True,
    "wang@qq.com": True,
    "ann@localhost": False,
    "a..b@example.com": False,
    "ann@-example.com": False,
    "13800138000": True,  # China
    "+8613800138000": True,
    "07700900123": True,  # Britain
    "+447700900123": True,
    "2025550123": True,  # United States
    "9876543210": True,  # India
    "0412345678": True,  # Australia
    "0871234567": True,  # Ireland
    "91234567": True,  # Hong Kong and Singapore
    "0912345678": True,  # Taiwan
    "015112345678": True,  # Germany
    "0612345678": True,  # France
    "+1202555012": False,
    "+44770090012345": False,
    "+999123456789": False,
}


@pytest.mark.parametrize("name", NAMES)
def test_name_is_a_word_for_a_person(name: str) -> None:
    assert is_plausible("name", SlotKind.SPAN, name) == NAMES[name]


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_has_a_number(address: str) -> None:
    assert is_plausible("address", SlotKind.SPAN, address) == ADDRESSES[address]


@pytest.mark.parametrize("contact", CONTACTS)
def test_contact_can_be_reached(contact: str) -> None:
    assert is_plausible("contact", SlotKind.CONTACT, contact) == CONTACTS[contact]


def test_other_values_are_taken_as_they_are() -> None:
    assert is_plausible("product", SlotKind.SPAN, "Sir")
    assert is_plausible("quantity", SlotKind.INTEGER, 2)


@pytest.mark.parametrize(
    "name, contact, asked, kept",
    [
        ("Sir", "ann@example.com", "name", {"contact": "ann@example.com"}),
        ("Ann", "+999123456789", "contact", {"name": "Ann"}),
        ("电话", "ann@localhost", "name", {}),
    ],
)
def test_implausible_value_is_asked_for_and_the_other_is_kept(
    shop: Shop, name: str, contact: str, asked: str, kept: dict[str, str]
) -> None:
    step = shop.act("s", "register", name=name, contact=contact)
    assert (step.result, step.report.asked) == ("asked", asked)
    assert step.report.used == kept
    assert shop.rows(Verification) == []


def test_address_without_a_number_is_taken_when_repeated(shop: Shop) -> None:
    shop.log_in("s")
    shop.act("s", "add_to_cart", product="tea")
    step = shop.act("s", "check_out", address="The Old Rectory")
    assert (step.report.asked, step.report.used) == ("address", {})
    step = shop.act("s", "check_out", address="The Old Rectory")
    assert step.report.outcome == "summarised"
    assert shop.rows(Checkout)[0].address == "The Old Rectory"


def test_answer_to_another_question_is_not_taken(shop: Shop) -> None:
    shop.act("s", "register")
    step = shop.act("s", "register", name="Sir", contact="+999123456789")
    assert step.report.used == {"name": "Sir"}
    assert step.report.asked == "contact"


def test_implausible_value_is_asked_for_instead_of_inferred(shop: Shop) -> None:
    """A customer who names another address does not get the stored one."""
    shop.log_in("s")
    shop.check_out("s", "kettle", address="12 Elm St")
    shop.act("s", "confirm_order")
    shop.act("s", "add_to_cart", product="tea")
    step = shop.act("s", "check_out", address="my office")
    assert (step.report.asked, step.report.used) == ("address", {})
    assert shop.act("s", "check_out").report.used == {"address": "12 Elm St"}


@pytest.mark.parametrize("words", ["of them", "it", "one of those", "这个", "那款"])
def test_words_that_refer_back_mean_the_product_in_focus(shop: Shop, words: str) -> None:
    shop.act("s", "find_product", product="tea")
    step = shop.act("s", "add_to_cart", product=words, quantity=2)
    assert (step.report.outcome, step.report.used["product"]) == ("added", "green tea")


@pytest.mark.parametrize("message, used", [("add -3 pans", -3), ("please: - 3 pans", 3)])
def test_a_minus_sign_counts_and_a_dash_of_a_list_does_not(
    shop: Shop, message: str, used: int
) -> None:
    step = shop.act("s", "add_to_cart", message=message, product="pan", quantity=3)
    assert step.report.used["quantity"] == used


def test_no_message_repeats_the_one_before(shop: Shop) -> None:
    texts = [shop.act("s", "view_cart").report.messages[0].text for _ in range(3)]
    empty = "Your cart is empty."
    assert texts == [empty, f"Once more: {empty}", empty]


@pytest.mark.parametrize(
    "message, phrase, product",
    [
        ("two packs of green tea", "packs", "green tea"),
        ("two boxes green tea please", "boxes", "green tea"),
        ("three pieces of desk lamps for the office", "pieces of", "desk lamp"),
        # Another product of the message is another wish, or none.
        ("a toaster to go with my kettle", "toaster", None),
        ("two packs, and a kettle", "packs", None),
        ("packs of unicorns and kettles", "packs", None),
        ("a black tea please", "black tea", None),
    ],
)
def test_product_is_the_one_whose_unit_was_read(
    shop: Shop, message: str, phrase: str, product: str | None
) -> None:
    shop.act("s", "add_to_cart", message=message, product=phrase)
    names = {p.sku: p.name("en") for p in shop.rows(Product)}
    added = [names[line.sku] for line in shop.rows(CartLine)]
    assert added == ([product] if product else [])


def test_reference_is_to_the_product_in_focus(shop: Shop) -> None:
    shop.act("s", "find_product", product="kettle")
    message = "two of those, perfect for my green tea"
    step = shop.act("s", "add_to_cart", message=message, product="those", quantity=2)
    assert step.report.used["product"] == "electric kettle"


@pytest.mark.parametrize(
    "message, contact",
    [
        ("my account is ann@example.com", "ann@example.com"),
        ("ann@example.com or bob@example.com", None),
        ("ann@localhost", None),
        ("log me in", None),
    ],
)
def test_only_contact_of_a_message_is_the_customers(
    shop: Shop, message: str, contact: str | None
) -> None:
    assert shop.act("s", "log_in", message=message).report.used.get("contact") == contact
    step = shop.act("t", "register", message=message, name="Ann")
    assert step.report.used.get("contact") == contact


def test_wrong_contact_is_not_the_new_one(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@exmaple.com")
    step = shop.act("s", "correct_contact", message="ann@exmaple.com is wrong")
    assert (step.report.asked, step.report.used) == ("contact", {})


@pytest.mark.parametrize(
    "message, address, whole",
    [
        ("寄香港中路76号,VIP应该是0元吧", "香港中路76号,VIP应", "香港中路76号"),
        ("寄香港中路76号,VIP应该是0元吧", "香港中路76号,VIP应该是0元", "香港中路76号"),
        ("寄香港中路76号,3单元502室那里", "香港中路76号,3单元502", "香港中路76号,3单元502"),
        ("寄建设路3号,1202房谢谢", "建设路3号,1202房", "建设路3号,1202房"),
        ("寄香港中路76号，谢谢您了", "香港中路76号，谢谢", "香港中路76号"),
        ("寄香港中路76号,3号楼东侧", "香港中路76号,3号楼", "香港中路76号,3号楼"),
        ("寄香港中路76号,王芳收", "香港中路76号,王芳收", "香港中路76号,王芳收"),
        ("to 5 Oak Rd, Leeds please", "5 Oak Rd, Leeds", "5 Oak Rd, Leeds"),
    ],
)
def test_an_address_has_no_clause_that_was_cut_short(
    message: str, address: str, whole: str
) -> None:
    assert whole_clauses(address, message) == whole


def test_the_number_beside_a_product_is_its_quantity(shop: Shop) -> None:
    """The model took the number of another clause."""
    text = "+ 2 kettles.. do i pay 4 delivery tho"
    say(shop, text, Choice("add_to_cart", {"product": "kettles", "quantity": 4}))
    assert [line.quantity for line in shop.rows(CartLine)] == [2]


@pytest.mark.parametrize("text", ["Ann Lee ann@example.com", "Ann Lee, 13800138000", "Ann Lee"])
def test_a_name_has_no_contact(shop: Shop, text: str) -> None:
    choice = Choice("register", {"name": text, "contact": "ann@example.com"})
    say(shop, f"register {text} (ann@example.com)", choice)
    assert shop.rows(Verification)[0].name == "Ann Lee"


def test_an_unknown_order_is_reported_before_more_is_asked(shop: Shop) -> None:
    shop.log_in("s")
    shop.order(delivered_days_ago=1)
    step = shop.act("s", "request_return", order="SO-1005")
    assert (step.report.outcome, step.report.asked) == ("unknown_order", None)
