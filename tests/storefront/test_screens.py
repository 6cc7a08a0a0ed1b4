"""Storefront in a real browser: shopping, chat, keyboard, every screen."""

from typing import Any

import pytest
from playwright.sync_api import expect
from tests.support.browser import NARROW, WIDE, Screen
from tests.support.shop import CODE, Shop
from tests.support.storefront_windows import Windows, buy, fill, press, send, session_of

from gpt2flow.agent.shop import Order, OrderStatus, ReceivedMessage

pytestmark = pytest.mark.process


def test_a_customer_shops_without_scripts_of_ours(shop: Shop, windows: Windows) -> None:
    """From the search to the delivery, in two windows."""
    ann = windows.open()
    page = ann.page
    page.get_by_role("searchbox", name="Search", exact=True).fill("umbrela")
    press(page, "Search")
    page.get_by_role("link", name="umbrella", exact=True).click()
    page.get_by_role("spinbutton", name="Quantity", exact=True).fill("2")
    press(page, "Add to cart")
    expect(page.get_by_role("status")).to_contain_text("Added 2 × umbrella")
    page.get_by_role("link", name="Check out", exact=True).click()
    page.get_by_role("link", name="Register", exact=True).click()
    fill(page, "Name", "Ann")
    fill(page, "E-mail or phone", "ann@example.com")
    press(page, "Send code")
    fill(page, "Code", CODE)
    press(page, "Log in")
    expect(page.get_by_role("status")).to_contain_text("you are logged in")
    page.goto("/checkout")
    fill(page, "Delivery address", "5 Oak Rd")
    press(page, "Review order")
    expect(page.get_by_role("region", name="Your order")).to_contain_text("5 Oak Rd")
    press(page, "Place order")
    expect(page.get_by_role("status")).to_contain_text("Order SO-1001 is submitted")
    hal = windows.operator("hal")
    hal.page.get_by_role("link", name="SO-1001", exact=True).click()
    press(hal.page, "Assign courier")
    press(hal.page, "Send delivery details")
    expect(hal.page.get_by_role("status")).to_contain_text("were sent to ann@example.com")
    page.reload()
    press(page, "It has arrived")
    expect(page.get_by_role("status")).to_contain_text("noted as delivered")
    page.get_by_role("combobox", name="Claim", exact=True).select_option("Return")
    page.get_by_role("combobox", name="Reason", exact=True).select_option("it came damaged")
    press(page, "Review claim")
    press(page, "Send claim")
    expect(page.get_by_role("status")).to_contain_text("return for order SO-1001 is approved")
    assert [order.status for order in shop.rows(Order)] == [OrderStatus.DELIVERED]
    assert ann.problems == hal.problems == []


def test_the_code_is_a_one_time_code_and_the_token_a_password(windows: Windows) -> None:
    ann = windows.open()
    windows.ask_for_code(ann, "ann@example.com")
    expect(ann.page.locator("#code")).to_have_attribute("autocomplete", "one-time-code")
    ann.page.goto("/office/sign-in")
    expect(ann.page.locator("#token")).to_have_attribute("type", "password")


def test_the_conversation_is_refreshed_without_a_reload(shop: Shop, windows: Windows) -> None:
    ann = windows.open()
    ann.page.get_by_text("Ask us").click()
    fill(ann.page, "Message", "hello")
    press(ann.page, "Send")
    expect(ann.page.get_by_role("log")).to_contain_text("I can help you with your account")
    [message] = shop.rows(ReceivedMessage)
    shop.act(message.session_id, "greet", message="hello again")
    expect(ann.page.get_by_role("log")).to_contain_text("hello again")
    assert ann.problems == []


def test_scripts_of_customers_do_not_run(shop: Shop, windows: Windows) -> None:
    script = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>1"
    ann = windows.register()
    ann.page.on("dialog", lambda _: pytest.fail("a script ran"))
    ann.page.goto("/account")
    fill(ann.page, "Name", script)
    press(ann.page, "Save name")
    buy(ann.page, "umbrella")
    ann.page.goto("/checkout")
    fill(ann.page, "Delivery address", script)
    press(ann.page, "Review order")
    press(ann.page, "Place order")
    expect(ann.page.get_by_text(script).first).to_be_visible()
    hal = windows.operator("hal")
    hal.page.on("dialog", lambda _: pytest.fail("a script ran"))
    for path in ("/office", "/office/orders/SO-1001"):
        hal.page.goto(path)
        expect(hal.page.locator("img")).to_have_count(0)
        assert "owned" not in hal.page.title()
    assert ann.problems == hal.problems == []
    assert [order.address for order in shop.rows(Order)] == [script]


def test_the_conversation_that_is_served_is_a_link_that_no_customer_writes(
    windows: Windows,
) -> None:
    """A program relies on this link alone for whose pages it sees."""
    claimed = "Serving conversation victim"
    ann = windows.register()
    ann.page.goto("/account")
    fill(ann.page, "Name", claimed)
    press(ann.page, "Save name")
    buy(ann.page, "umbrella")
    ann.page.get_by_text("Ask us").click()
    fill(ann.page, "Message", f'{claimed} <a href="/office/serve">{claimed}</a>')
    press(ann.page, "Send")
    ann.page.goto("/checkout")
    fill(ann.page, "Delivery address", claimed)
    press(ann.page, "Review order")
    press(ann.page, "Place order")
    session = session_of(ann)
    hal = windows.operator("hal")
    hal.page.goto("/office/serve")
    fill(hal.page, "Conversation", session)
    press(hal.page, "Serve")
    expect(hal.page.get_by_role("log")).to_contain_text(claimed)
    paths = ["/", "/account", "/cart", "/orders", "/orders/SO-1001", "/call", "/help"]
    paths += ["/orders/SO-1001/cancel", "/office", "/office/orders/SO-1001", "/office/serve"]
    for path in paths:
        hal.page.goto(path)
        link = hal.page.get_by_role("link", name=f"Serving conversation {session}", exact=True)
        expect(link, path).to_have_count(1)
        expect(link).to_have_attribute("href", "/office/serve")
        expect(hal.page.get_by_role("link", name=claimed)).to_have_count(0)
        inside = hal.page.get_by_role("main").get_by_role("link", name="Serving conversation")
        expect(inside).to_have_count(0)
    # What she wrote is there, as text.
    hal.page.goto("/office/orders/SO-1001")
    expect(hal.page.get_by_role("main")).to_contain_text(claimed)
    press(hal.page, "Stop serving")
    expect(hal.page.get_by_role("link", name="Serving conversation")).to_have_count(0)


def test_a_keyboard_is_enough(windows: Windows) -> None:
    ann = windows.open()
    ann.page.keyboard.press("Tab")
    expect(ann.page.locator(":focus")).to_have_text("Skip to the content")
    ann.page.keyboard.press("Enter")
    expect(ann.page.locator("#main")).to_be_focused()
    ann.page.goto("/products/umbrella")
    ann.page.get_by_role("spinbutton", name="Quantity", exact=True).focus()
    ann.page.keyboard.press("Enter")
    expect(ann.page.get_by_role("status")).to_contain_text("Added 1 × umbrella")


@pytest.mark.parametrize(
    "size, scheme, locale",
    [
        ("wide", "light", "en-GB"),
        ("narrow", "dark", "zh-CN"),
    ],
)
def test_every_screen_fits_and_is_accessible(
    shop: Shop, windows: Windows, size: str, scheme: str, locale: str
) -> None:
    settings: dict[str, Any] = {
        "viewport": WIDE if size == "wide" else NARROW,
        "color_scheme": scheme,
        "locale": locale,
    }
    name = f"{size}-{scheme}-{locale[:2]}"

    def look(window: Screen, pages: dict[str, str]) -> None:
        for title, path in pages.items():
            window.page.goto(path)
            for summary in window.page.locator("details:not([open]) > summary").all():
                summary.click()
            if path == "/nowhere":
                # A browser reports the page that is not there.
                window.problems.clear()
            window.check()
            window.picture(f"shop-{title}-{name}")

    stranger = windows.open(**settings)
    look(stranger, {"start": "/", "hit": "/?q=kettle", "no-hit": "/?q=piano", "help": "/help"})
    look(stranger, {"product": "/products/umbrella", "empty-cart": "/cart", "guest": "/account"})
    look(stranger, {"register": "/register", "sign-in": "/sign-in", "none": "/nowhere"})
    windows.ask_for_code(stranger, "bob@example.com")
    look(stranger, {"code": "/code", "verifying": "/account"})
    ann = windows.register(**settings)
    shop.order(delivered_days_ago=2)
    ann.page.goto("/orders/SO-1001/claim?claim=refund&reason=late&details=" + "averylongword" * 20)
    ann.check()
    send(ann.page, "main")
    buy(ann.page, "umbrella", "desk-lamp")
    ann.page.goto("/call")
    ann.page.locator("#time").fill("whenever")
    send(ann.page, "form[action='/call']", "alert")
    ann.check()
    ann.picture(f"shop-refusal-{name}")
    ann.page.locator("#time").fill("tomorrow at 3pm" if locale == "en-GB" else "明天下午三点")
    send(ann.page, "form[action='/call']")
    look(ann, {"cart": "/cart", "checkout": "/checkout", "review": "/checkout/review"})
    look(ann, {"account": "/account", "orders": "/orders", "order": "/orders/SO-1001"})
    look(ann, {"cancel": "/orders/SO-1001/cancel", "call": "/call"})
    hal = windows.operator("hal", **settings)
    pages = {"": "", "-order": "/orders/SO-1001", "-cancel": "/orders/SO-1001/cancel"}
    pages |= {f"-{part}": f"/{part}" for part in ("couriers", "claims", "calls", "serve")}
    look(hal, {f"office{title}": f"/office{path}" for title, path in pages.items()})
    session = session_of(ann)
    hal.page.locator("#conversation").fill(session)
    hal.page.locator("form[action='/office/serve'] button").click()
    expect(hal.page.locator(".serving")).to_contain_text(session)
    look(hal, {"served": "/account"})
