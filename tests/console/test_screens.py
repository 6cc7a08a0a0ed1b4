"""Console in a real browser: two people, and every screen."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.support.browser import NARROW, WIDE, Screen, screen
from tests.support.console import RunningConsole
from tests.support.desk import changes, hand_over, large_refund, texts
from tests.support.shop import Shop
from tests.support.stopped_screens import REASON, png, stopped

from gpt2flow.agent.shop import Case, CaseStatus

pytestmark = pytest.mark.process


class Windows:
    """Windows of people at one console."""

    def __init__(self, browser: Browser, console: RunningConsole, stack: ExitStack) -> None:
        self._browser = browser
        self._console = console
        self._stack = stack

    def open(self, name: str | None = None, **settings: Any) -> Screen:
        """Open a window; sign in under a name if there is one."""
        opened = self._stack.enter_context(screen(self._browser, self._console.url, **settings))
        opened.page.goto("/")
        if name is not None:
            opened.page.locator("#token").fill(self._console.tokens.secrets[name])
            opened.page.locator("main button").click()
            expect(opened.page.locator("header .who")).to_have_text(name)
        return opened


@pytest.fixture
def windows(browser: Browser, console: RunningConsole) -> Iterator[Windows]:
    with ExitStack() as stack:
        yield Windows(browser, console, stack)


@pytest.fixture
def full_windows(browser: Browser, full_console: RunningConsole) -> Iterator[Windows]:
    """Windows at a console with a server and reports."""
    with ExitStack() as stack:
        yield Windows(browser, full_console, stack)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_two_people_decide_a_case(shop: Shop, windows: Windows) -> None:
    """From the customer's message to the approval and the customer's answer."""
    number = large_refund(shop)
    ben, eva = windows.open("ben"), windows.open("eva")
    for person in (ben, eva):
        person.page.get_by_role("link", name=number).click()
        expect(person.page.get_by_role("heading", level=1)).to_contain_text("refund")
    eva.page.get_by_label("Reason, which the customer reads").fill("It was worn.")
    press(ben.page, "Approve")
    expect(ben.page.get_by_role("status")).to_have_text("Done.")
    # Eva's page learns of it before she presses the button.
    expect(eva.page.get_by_role("alert")).to_contain_text("approved · ben")
    expect(eva.page.get_by_role("button", name="Reject", exact=True)).to_be_disabled()
    expect(eva.page.get_by_label("Reason, which the customer reads")).to_have_value("It was worn.")
    assert shop.rows(Case)[-1].status is CaseStatus.APPROVED
    assert [each for each in changes(shop) if each[0] != "agent"] == [("ben", "approved")]
    assert "has been approved" in texts(shop)[-1]
    eva.page.get_by_role("link", name="Look again").click()
    expect(eva.page.get_by_text("has been approved")).to_be_visible()
    assert ben.problems == eva.problems == []


def test_a_person_answers_a_customer_and_gives_the_conversation_back(
    shop: Shop, windows: Windows
) -> None:
    number = hand_over(shop)
    hal = windows.open("hal")
    hal.page.goto(f"/cases/{number}")
    hal.page.get_by_label("Message to the customer").fill("I am Hal. What can I do?")
    press(hal.page, "Send")
    expect(hal.page.get_by_text("I am Hal. What can I do?").first).to_be_visible()
    hal.page.get_by_label("Assign to").select_option("agent")
    press(hal.page, "Assign")
    expect(hal.page.get_by_role("heading", level=1)).to_contain_text("closed")
    assert texts(shop)[-1] == "I am Hal. What can I do?"


def test_scripts_of_customers_do_not_run(shop: Shop, windows: Windows) -> None:
    number = hand_over(
        shop, "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
    )
    ben = windows.open("ben")
    ben.page.on("dialog", lambda _: pytest.fail("a script ran"))
    for path in (f"/cases/{number}", "/conversations", "/conversations/s"):
        ben.page.goto(path)
        assert ben.page.title() != "1"
        expect(ben.page.locator("main img")).to_have_count(0)
    assert ben.problems == []


def test_a_keyboard_is_enough(shop: Shop, windows: Windows) -> None:
    large_refund(shop)
    ben = windows.open("ben")
    ben.page.keyboard.press("Tab")
    expect(ben.page.locator(":focus")).to_have_text("Skip to the content")
    ben.page.keyboard.press("Enter")
    expect(ben.page.locator("#main")).to_be_focused()
    ben.page.get_by_role("link", name="C-1").focus()
    ben.page.keyboard.press("Enter")
    ben.page.get_by_role("button", name="Approve", exact=True).focus()
    ben.page.keyboard.press("Enter")
    expect(ben.page.get_by_role("status")).to_have_text("Done.")


def test_the_playground_shows_probabilities_beams_and_what_is_wrong_with_a_grammar(
    full_windows: Windows,
) -> None:
    ben = full_windows.open("ben")
    page = ben.page
    page.goto("/playground")
    page.get_by_label("Prompt").fill("<|state|>guest<|user|>two umbrellas please<|act|>")
    page.get_by_label("Beams").fill("4")
    page.get_by_label("Constraint").select_option("regex")
    page.get_by_label("Grammar").press_sequentially("[a-")
    expect(page.locator("#grammar-check")).to_contain_text("regex")
    page.get_by_label("Grammar").fill("[a-z]{3,8}")
    expect(page.locator("#grammar-check")).to_have_text("The server takes this grammar.")
    press(page, "Generate")
    expect(page.locator(".tree .tag")).to_have_count(4)
    page.locator(".token").first.hover()
    expect(page.locator("#token-top div")).to_have_count(5)
    ben.check()
    ben.picture("playground-beams")


def test_the_live_page_draws_the_servers_figures(full_windows: Windows) -> None:
    ben = full_windows.open("ben")
    ben.page.goto("/live")
    expect(ben.page.locator("canvas")).to_have_count(4)
    expect(ben.page.locator("[data-latest=requests]")).to_contain_text("running: 0")
    ben.check()
    ben.picture("live-figures")


@pytest.mark.parametrize(
    "locale, alternative",
    [
        ("en-GB", "Picture {}: the screen at which the agent stopped"),
        ("zh-CN", "截图 {}: 智能体停下时的页面"),
    ],
)
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pictures_of_stopped_screens_are_seen_small_and_whole(
    shop: Shop, windows: Windows, viewport: dict[str, int], locale: str, alternative: str
) -> None:
    for shade in (40, 220):
        stopped(shop, picture=png(shade, 1280, 2000))
    ben = windows.open("ben", viewport=viewport, locale=locale)
    ben.page.goto("/cases/C-1")
    newest, oldest = ben.page.locator(".pictures img").all()
    for image, number in ((newest, 2), (oldest, 1)):
        image.scroll_into_view_if_needed()
        expect(image).to_have_attribute("alt", alternative.format(number))
        expect(image).to_have_js_property("complete", value=True)
        assert image.evaluate("image => image.naturalHeight") == 2000
        box = image.bounding_box()
        assert box is not None
        assert box["height"] < 200
    expect(ben.page.locator(".pictures").get_by_text(REASON)).to_have_count(2)
    expect(ben.page.locator(".timeline").get_by_text(REASON)).to_have_count(2)
    ben.check()
    ben.picture(f"stopped-{'wide' if viewport is WIDE else 'narrow'}-{locale[:2]}")
    ben.page.get_by_role("link", name=alternative.format(2)).click()
    ben.page.wait_for_url("**/cases/C-1/pictures/2")
    assert ben.page.evaluate("document.contentType") == "image/png"
    assert ben.page.evaluate("document.images[0].naturalHeight") == 2000


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
    shop: Shop, full_windows: Windows, size: str, scheme: str, locale: str
) -> None:
    large_refund(shop)
    number = hand_over(shop, "a person please, " + "averylongword" * 20)
    settings: dict[str, Any] = {
        "viewport": WIDE if size == "wide" else NARROW,
        "color_scheme": scheme,
        "locale": locale,
    }
    name = f"{size}-{scheme}-{locale[:2]}"
    stranger = full_windows.open(**settings)
    stranger.check()
    stranger.picture(f"sign-in-{name}")
    ben = full_windows.open("ben", **settings)
    pages = {"inbox": "/", "claim": "/cases/C-1", "case": f"/cases/{number}"}
    pages |= {"conversations": "/conversations", "conversation": "/conversations/s"}
    pages |= {name: f"/{name}" for name in ("flows", "evaluations", "live", "playground")}
    for title, path in pages.items():
        ben.page.goto(path)
        for summary in ben.page.locator("summary").all():
            summary.click()
        ben.check()
        ben.picture(f"{title}-{name}")
