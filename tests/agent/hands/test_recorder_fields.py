"""Fields in place of values, and the options that name them."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.hands.recorder.fields import TemplateFields, argument_names, parse_arguments
from gpt2flow.agent.hands.templates import filled

ORDER = {"order": "SO-1001", "product": "Green tea", "quantity": "2", "name": "Green tea cup"}


@pytest.mark.parametrize(
    "text, template",
    [
        ("Remove: Green tea", "Remove: {product}"),
        # The longest value first.
        ("Remove: Green tea cup", "Remove: {name}"),
        ("Added 2 × Green tea.", "Added {quantity} × {product}."),
        ("Order SO-1001: 2.50, 12.2, 1-2, SO-2", "Order {order}: 2.50, 12.2, 1-2, SO-2"),
        ("SO-10012 and XSO-1001", "SO-10012 and XSO-1001"),
        (
            "已加入购物车: Green tea × 2, 订单SO-1001。",
            "已加入购物车: {product} × {quantity}, 订单{order}。",
        ),
        ("a {b} of 2", "a {{b}} of {quantity}"),
    ],
)
def test_values_that_a_page_shows_become_fields(text: str, template: str) -> None:
    fields = TemplateFields(ORDER)
    assert fields.shown(text) == template
    assert filled(template, ORDER) == text


@pytest.mark.parametrize(
    "path, template",
    [
        ("/orders/SO-1001/cancel", "/orders/{order}/cancel"),
        ("/?q=Green%20tea&n=2", "/?q={product}&n={quantity}"),
        ("/?q=Green+tea", "/?q={product}"),
        ("/orders/SO-1002", "/orders/SO-1002"),
    ],
)
def test_values_in_a_path_become_fields(path: str, template: str) -> None:
    assert TemplateFields(ORDER).path(path) == template


def test_only_a_whole_typed_value_becomes_a_field() -> None:
    fields = TemplateFields(ORDER)
    assert fields.typed(" Green  tea ") == "{product}"
    assert fields.typed("2 Main Street {x}") == "2 Main Street {{x}}"


def test_secrets_and_what_may_be_one_are_in_no_template() -> None:
    fields = TemplateFields({"total": "12.00"})
    fields.hide("token", "p&ss word")
    fields.hide("code", "4")
    assert fields.typed("the p&ss word") == "the {token}"
    assert fields.shown("xp&ss wordx 4") == "x{token}x 4"
    assert fields.path("/?p=p%26ss%20word&q=p%26ss+word") == "/?p={token}&q={token}"
    assert fields.said("Code 123 456 of SO-1001, 12.00") == "Code ... of SO-1001, {total}"


@given(st.text(), st.text(min_size=4).filter(lambda text: text.strip()))
def test_a_template_gives_its_text_again_without_the_secret(text: str, secret: str) -> None:
    fields = TemplateFields({})
    fields.hide("token", secret)
    hidden = " ".join(secret.split())
    for shown in (f"{text}{hidden}{text}", text):
        template = fields.shown(shown)
        assert filled(template, {"token": hidden}) == shown
        if len(hidden) >= 4:
            assert hidden not in template.replace("{token}", "\0").replace("{{", "{").replace(
                "}}", "}"
            )
    if len(hidden) >= 4:
        for encoded in (quote(hidden), quote_plus(hidden)):
            assert "{token}" in fields.path(f"/?p={encoded}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["product"], "--argument must be name=value"),
        (["product= "], "--argument must be name=value"),
        (["colour=red"], "--argument names 'colour', expected one of"),
        (["product=a", "product=b"], "--argument names 'product' twice"),
        (["product=12", "quantity=12"], "product and quantity have the same value"),
        (["token=abc"], "--argument names 'token'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_arguments(load_flows(), "add_to_cart", arguments, "en")


def test_arguments_are_those_of_the_action_and_of_its_messages() -> None:
    book = load_flows()
    given = ["product=Green tea", "quantity=37", "total=111.00", "session=s"]
    assert parse_arguments(book, "add_to_cart", given, "en")["total"] == "111.00"
    assert "order" in argument_names(book, "assign_courier")
    assert argument_names(book, None) == {"session"}


def test_the_name_of_a_value_of_a_list_is_a_field_of_its_own() -> None:
    book = load_flows()
    action = next(name for name, each in book.actions.items() if "reason" in each.slots)
    reason = book.slots["reason"]
    given = [f"reason={reason.values[0]}"]
    fields = TemplateFields(parse_arguments(book, action, given, "zh"))
    assert fields.typed(reason.names[reason.values[0]]["zh"]) == "{reason_name}"
    with pytest.raises(InputError, match="--argument: reason is 'boredom', expected one of"):
        parse_arguments(book, action, ["reason=boredom"], "zh")
