"""Tests of one page: its elements, its reading, and its pictures."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from gpt2flow.agent.hands.errors import UnexpectedPageError
from gpt2flow.agent.hands.recording import Element, ScreenStep
from gpt2flow.agent.hands.screen import Screen

_PAGE = """<!doctype html><title>Shop</title><main><h1>Checkout</h1>
<p role=status>Welcome</p>
<form action="/done">
  <label>Address <input name=a maxlength=8 required></label>
  <label>Number: tea <input type=number name=n value=1></label>
  <label>Town <input name=t required></label>
  <label>Size <select name=s><option>Small<option>Large</select></label>
  <label>Secret <input type=password name=p></label>
  <label>Code <input autocomplete=one-time-code name=c></label>
  <button>Order</button>
</form><div role=log>My code is 000000</div>
<button type=button>Help</button><button type=button>Help</button></main>"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_content(_PAGE)
    yield page
    page.close()


@pytest.fixture
def screen(page: Page) -> Screen:
    return Screen(page, page_seconds=5.0, element_seconds=0.5)


def fill(name: str, text: str, role: str = "textbox", do: str = "fill") -> ScreenStep:
    return ScreenStep.model_validate({"do": do, "role": role, "name": name, "text": text})


ORDER = Element(role="button", name="Order")


def test_what_is_filled_in_is_read_back(screen: Screen) -> None:
    screen.follow(fill("Address", "{address}"), {"address": "5 Oak"})
    screen.follow(fill("Town", "Bath"), {})
    screen.follow(fill("Size", "Large", "combobox", "choose"), {})
    screen.check_filled(ORDER, {})


def test_a_value_that_the_page_cuts_short_is_noticed(screen: Screen, page: Page) -> None:
    screen.follow(fill("Address", "5 Oak"), {})
    screen.follow(fill("Town", "Bath"), {})
    page.get_by_label("Address").evaluate("element => element.value = '5 O'")
    with pytest.raises(UnexpectedPageError, match="'Address' does not show what was filled in"):
        screen.check_filled(ORDER, {})


def test_a_field_that_nobody_filled_in_is_named(screen: Screen) -> None:
    screen.follow(fill("Address", "5 Oak"), {})
    with pytest.raises(UnexpectedPageError, match="the page asks for Town before button 'Order'"):
        screen.check_filled(ORDER, {})


@pytest.mark.parametrize(
    "step, message",
    [
        ({"do": "press", "role": "button", "name": "Buy"}, "has no button 'Buy'"),
        ({"do": "press", "role": "button", "name": "Help"}, "has 2 elements button 'Help'"),
        # A name is matched whole.
        ({"do": "press", "role": "button", "name": "Ord"}, "has no button 'Ord'"),
        (
            {"do": "choose", "role": "combobox", "name": "Size", "text": "Huge"},
            "combobox 'Size' does not take the value",
        ),
    ],
)
def test_an_element_that_is_not_there_once_stops(
    screen: Screen, step: dict[str, str], message: str
) -> None:
    with pytest.raises(UnexpectedPageError, match=message):
        screen.follow(ScreenStep.model_validate(step), {})


def test_pictures_are_the_same_whatever_is_secret(screen: Screen, page: Page) -> None:
    screen.follow(fill("Secret", "token-one-23456"), {})
    screen.follow(fill("Code", "123456"), {})
    one = screen.picture()
    screen.follow(fill("Secret", "x"), {})
    screen.follow(fill("Code", "999999"), {})
    page.get_by_role("log").evaluate("element => element.textContent = 'My code is 111111'")
    assert screen.picture() == one
    screen.follow(fill("Town", "Bath"), {})
    assert screen.picture() != one


def test_a_reading_has_what_people_see_without_messages_and_typed_values(screen: Screen) -> None:
    """A refusal may keep what was typed, which proves nothing."""
    before = screen.read()
    screen.follow(fill("Town", "Bath"), {})
    screen.follow(fill("Size", "Large", "combobox", "choose"), {})
    screen.follow(fill("Number: tea", "7", "spinbutton"), {})
    assert screen.read() == before
    assert 'textbox "Town"' in before
    assert "Welcome" not in before
    assert screen.messages() == ["Welcome"]


def test_a_text_is_never_a_part_of_a_longer_word_or_number(screen: Screen, page: Page) -> None:
    page.get_by_role("heading").evaluate("element => element.textContent = 'Total 111.00 x'")
    for amount in ("11.00", "111.0", "1.00"):
        with pytest.raises(UnexpectedPageError, match="does not show"):
            screen.check_shows(["{total}"], {"total": amount})
    screen.check_shows(["{total}", "Total {total}"], {"total": "111.00"})
