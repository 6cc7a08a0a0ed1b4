"""Storefront in a real browser: shopping, the contract of names, every screen."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.support.browser import NARROW, WIDE, Screen, chromium, screen
from tests.support.http_endpoint import HeldModel, Served, running_endpoint
from tests.support.shop import CODE, Clock, Shop
from tests.support.storefront import RunningStorefront, running_storefront
from tests.support.website import Tokens

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.shop import Order, OrderStatus, ReceivedMessage

pytestmark = pytest.mark.process
Role = Literal["button", "combobox", "link", "searchbox", "spinbutton", "textbox"]
# Elements of each page, by role and name, that people and programs find them by.
ENGLISH: Final[dict[str, list[tuple[Role, str]]]] = {
    "/": [("searchbox", "Search"), ("button", "Search"), ("link", "umbrella")],
    "/products/desk-lamp": [("spinbutton", "Quantity"), ("button", "Add to cart")],
    "/cart": [
        ("spinbutton", "Quantity: umbrella"),
        ("button", "Update: umbrella"),
        ("button", "Remove: umbrella"),
        ("link", "Check out"),
    ],
    "/checkout": [("textbox", "Delivery address"), ("button", "Review order")],
    "/checkout/review": [("button", "Place order"), ("button", "Do not order")],
    "/account": [("textbox", "Name"), ("button", "Save name"), ("button", "Log out")],
    "/orders": [("link", "SO-1001")],
    "/orders/SO-1001": [
        ("link", "Cancel order"),
        ("textbox", "Delivery address"),
        ("button", "Change address"),
        ("button", "It has arrived"),
        ("combobox", "Claim"),
        ("combobox", "Reason"),
        ("textbox", "Details"),
        ("button", "Review claim"),
    ],
    "/orders/SO-1001/cancel": [("button", "Yes, cancel it")],
    "/orders/SO-1001/claim?claim=refund&reason=late": [("button", "Send claim")],
    "/call": [("textbox", "Day and time"), ("button", "Ask for a call")],
    "/help": [
        ("link", "Shop"),
        ("link", "Cart"),
        ("link", "My orders"),
        ("link", "Account"),
        ("textbox", "Message"),
        ("button", "Send"),
    ],
}
CHINESE: Final[dict[str, list[tuple[Role, str]]]] = {
    "/": [("searchbox", "搜索"), ("button", "搜索"), ("link", "雨伞")],
    "/products/desk-lamp": [("spinbutton", "数量"), ("button", "加入购物车")],
    "/cart": [
        ("spinbutton", "数量: 雨伞"),
        ("button", "更新: 雨伞"),
        ("button", "移除: 雨伞"),
        ("link", "去结算"),
    ],
    "/checkout": [("textbox", "收货地址"), ("button", "核对订单")],
    "/checkout/review": [("button", "提交订单"), ("button", "暂不下单")],
    "/account": [("textbox", "姓名"), ("button", "保存姓名"), ("button", "退出登录")],
    "/orders": [("link", "SO-1001")],
    "/orders/SO-1001": [
        ("link", "取消订单"),
        ("textbox", "收货地址"),
        ("button", "修改地址"),
        ("button", "已收到"),
        ("combobox", "申请"),
        ("combobox", "原因"),
        ("textbox", "说明"),
        ("button", "核对申请"),
    ],
    "/orders/SO-1001/cancel": [("button", "确认取消")],
    "/orders/SO-1001/claim?claim=refund&reason=late": [("button", "提交申请")],
    "/call": [("textbox", "日期和时间"), ("button", "预约回电")],
    "/help": [
        ("link", "商店"),
        ("link", "购物车"),
        ("link", "我的订单"),
        ("link", "账户"),
        ("textbox", "消息"),
        ("button", "发送"),
    ],
}
# Those of a visitor who is verifying, and of the back office.
OTHERS: Final[dict[str, dict[str, list[tuple[Role, str]]]]] = {
    "en": {
        "/register": [("textbox", "Name"), ("textbox", "E-mail or phone")],
        "/sign-in": [("textbox", "E-mail or phone"), ("button", "Send code")],
        "/code": [
            ("textbox", "Code"),
            ("button", "Log in"),
            ("button", "Send a new code"),
            ("textbox", "Another e-mail or phone"),
            ("button", "Send it there"),
        ],
        "/office": [
            ("link", "SO-1001"),
            ("link", "Couriers"),
            ("link", "Claims"),
            ("link", "Calls"),
            ("link", "Serve a conversation"),
        ],
        "/office/orders/SO-1001": [
            ("button", "Assign courier"),
            ("button", "Send delivery details"),
            ("link", "Cancel order"),
        ],
        "/office/couriers": [("button", "Pause: Northwind Express")],
        "/office/serve": [("textbox", "Conversation"), ("button", "Serve")],
    },
    "zh": {
        "/register": [("textbox", "姓名"), ("textbox", "邮箱或手机")],
        "/sign-in": [("textbox", "邮箱或手机"), ("button", "发送验证码")],
        "/code": [
            ("textbox", "验证码"),
            ("button", "登录"),
            ("button", "重新发送"),
            ("textbox", "换一个邮箱或手机"),
            ("button", "发到这里"),
        ],
        "/office": [
            ("link", "SO-1001"),
            ("link", "快递"),
            ("link", "售后"),
            ("link", "回电"),
            ("link", "服务会话"),
        ],
        "/office/orders/SO-1001": [
            ("button", "分配快递"),
            ("button", "发送配送信息"),
            ("link", "取消订单"),
        ],
        "/office/couriers": [("button", "暂停: 北风快递")],
        "/office/serve": [("textbox", "会话"), ("button", "开始服务")],
    },
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


class Windows:
    """Windows of people at one storefront."""

    def __init__(self, browser: Browser, storefront: RunningStorefront, stack: ExitStack) -> None:
        self._browser = browser
        self._storefront = storefront
        self._stack = stack

    def open(self, **settings: Any) -> Screen:
        """Open the window of a visitor."""
        opened = self._stack.enter_context(screen(self._browser, self._storefront.url, **settings))
        opened.page.goto("/")
        return opened

    def register(self, contact: str = "ann@example.com", **settings: Any) -> Screen:
        """Open the window of somebody who registers."""
        opened = self.open(**settings)
        self.ask_for_code(opened, contact)
        opened.page.locator("#code").fill(CODE)
        opened.page.locator("form[action='/code'] button").click()
        expect(opened.page.get_by_role("status")).to_contain_text("Ann")
        return opened

    def ask_for_code(self, opened: Screen, contact: str) -> None:
        """Send the form of the registration."""
        opened.page.goto("/register")
        opened.page.locator("#name").fill("Ann")
        opened.page.locator("#contact").fill(contact)
        opened.page.locator("main button").click()
        expect(opened.page.locator("#code")).to_be_visible()

    def operator(self, name: str, **settings: Any) -> Screen:
        """Open the window of somebody of the back office."""
        opened = self.open(**settings)
        opened.page.goto("/office")
        opened.page.locator("#token").fill(self._storefront.tokens.secrets[name])
        opened.page.locator("main button").click()
        expect(opened.page.locator(".office .who")).to_have_text(name)
        return opened


@pytest.fixture
def served(database: Path) -> Iterator[Served]:
    """Agent of the shop, on a scripted model."""
    held, clock = threading.Event(), Clock()
    model = HeldModel(lambda _prompt: held.is_set())
    config = AgentConfig(database=str(database))
    # Playwright runs a loop in this thread, which DBOS does not accept.
    with ThreadPoolExecutor(1) as pool:
        agent = pool.submit(lambda: Agent(config, model=model, clock=clock)).result()
        yield Served(agent, model, str(database), held, clock)
        pool.submit(agent.close).result()


@pytest.fixture
def windows(
    browser: Browser, served: Served, shop: Shop, database: Path, tokens: Tokens
) -> Iterator[Windows]:
    """Windows at a storefront with a chat box."""
    with running_endpoint(served, HttpConfig()) as endpoint, ExitStack() as stack:
        settings: dict[str, Any] = {"agent": f"http://127.0.0.1:{endpoint.port}"}
        storefront = stack.enter_context(
            running_storefront(database, tokens, shop.clock, **settings)
        )
        yield Windows(browser, storefront, stack)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def fill(page: Page, name: str, text: str) -> None:
    page.get_by_role("textbox", name=name, exact=True).fill(text)


def send(page: Page, form: str, role: Literal["status", "alert"] = "status") -> None:
    """Press the button of a form, and wait for its notice."""
    page.locator(f"{form} button").click()
    expect(page.get_by_role(role)).to_be_visible()


def session_of(window: Screen) -> str:
    """Return the id of a customer's conversation."""
    cookies = window.page.context.cookies()
    return next(each["value"] for each in cookies if each["name"] == "gpt2flow-shop")


def buy(page: Page, *products: str) -> None:
    """Order some products, by their form's elements alone, in any language."""
    for product in products:
        page.goto(f"/products/{product}")
        send(page, "main")
    page.goto("/checkout")
    page.locator("#address").fill("5 Oak Rd")
    send(page, "form[action='/checkout']")


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


@pytest.mark.parametrize("language, pages", [("en", ENGLISH), ("zh", CHINESE)])
def test_each_element_has_its_name_once(
    shop: Shop, windows: Windows, language: str, pages: dict[str, list[tuple[Role, str]]]
) -> None:
    locale = "en-GB" if language == "en" else "zh-CN"
    ann = windows.register(locale=locale)
    shop.order()
    buy(ann.page, "umbrella")
    verifying = windows.open(locale=locale)
    windows.ask_for_code(verifying, "bob@example.com")
    hal = windows.operator("hal", locale=locale)
    seen = [(ann, path, elements) for path, elements in pages.items()]
    for path, elements in OTHERS[language].items():
        seen.append((hal if path.startswith("/office") else verifying, path, elements))
    for window, path, elements in seen:
        window.page.goto(path)
        for summary in window.page.locator("details:not([open]) > summary").all():
            summary.click()
        for role, name in elements:
            found = window.page.get_by_role(role, name=name, exact=True)
            expect(found, f"{path} {role} {name}").to_have_count(1)
        expect(window.page.get_by_role("main")).to_have_count(1)
        expect(window.page.get_by_role("heading", level=1)).to_have_count(1)


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
        ("wide", "dark", "zh-CN"),
        ("narrow", "light", "zh-CN"),
        ("narrow", "dark", "en-GB"),
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
