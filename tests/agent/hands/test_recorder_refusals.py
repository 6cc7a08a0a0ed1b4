"""Refusals of the recorder, after which nothing is pressed or written."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page
from tests.support.browser import chromium_path
from tests.support.command_line import gpt2flow
from tests.support.form_pages import form_site
from tests.support.recorder import recorder

pytestmark = pytest.mark.process


def click(selector: str) -> Callable[[Page], None]:
    """Return a click on the only element of a selector."""
    return lambda page: page.locator(selector).click()


def choose_blue(page: Page) -> None:
    page.get_by_role("listbox").select_option("blue")


def press_enter(page: Page) -> None:
    page.get_by_role("textbox").fill("x")
    page.get_by_role("textbox").press("Enter")


REFUSED: Mapping[str, tuple[str, Callable[[Page], None], str]] = {
    "no name": (
        "<form method=post action=/sent><button class=x></button></form>",
        click("button"),
        "<button> has the role button and no name; give it a label, a text or an aria-label",
    ),
    "two of a name": (
        "<form method=post action=/sent><button id=a>Send</button><button>Send</button></form>",
        click("#a"),
        "<button> 'Send': the page has 2 elements button 'Send'; give each a name of its own",
    ),
    "a field without a name": (
        "<input>",
        lambda page: page.get_by_role("textbox").press_sequentially("x"),
        "<input> has the role textbox and no name",
    ),
    "no role": (
        "<details><summary>More</summary>x</details>",
        click("summary"),
        "<summary> 'More' cannot be recorded: a step needs one of the roles button, checkbox",
    ),
    "a role that no step has": (
        "<select multiple aria-label=Colours><option>red<option>blue</select>",
        choose_blue,
        "cannot be recorded: a step needs one of the roles",
    ),
    "a frame": (
        "<iframe src=/inner></iframe>",
        lambda page: page.frame_locator("iframe").get_by_role("button").click(),
        "<button> 'Pay' is in a frame of the page, where no step reaches",
    ),
    "the Enter key alone": (
        "<form method=post action=/sent><label>Name <input name=n></label></form>",
        press_enter,
        "the Enter key sent a form that has no button to press",
    ),
    "a file": ("<input type=file aria-label=Photo>", click("input"), "no step chooses a file"),
    "a window of its own": (
        "<a href=/inner target=_blank>Terms</a>",
        click("a"),
        "the press opened a window of its own",
    ),
    "another shop": (
        "<a href=http://localhost:1/>Partner</a>",
        click("a"),
        "the shop did not answer",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_no_step_can_do_ends_the_recording(case: str, tmp_path: Path) -> None:
    body, act, message = REFUSED[case]
    pages = {"/": body, "/inner": "<button>Pay</button>", "/sent": "->/inner"}
    with form_site(pages) as site:
        with recorder(tmp_path, "greet", site.url, "--outcome", "greeted") as running:
            # The recorder may end before the press has.
            with suppress(Error):
                act(running.page)
                running.page.locator("h1").click()
            assert running.wait() == 1
        assert site.sent == []
    assert message in " ".join(running.output.split())
    assert "Traceback" not in running.output
    assert not (tmp_path / "screens.en.yaml").exists()


def test_a_page_that_does_not_open_is_named(tmp_path: Path) -> None:
    with form_site({}) as site:
        command = ["agent", "record", "add_to_cart", "--remote-port", "0"]
        command += ["--browser", chromium_path(), "--out", str(tmp_path / "screens.en.yaml")]
        given = ["--argument", "product=Tea"]
        code, _, error = gpt2flow(*command, *given, "--url", f"{site.url}/products/Tea")
    assert code == 2
    assert "--url leads to /products/{product}, which answers with 404" in error
    # Nobody listens any more.
    code, _, error = gpt2flow(*command, "--url", site.url)
    assert code == 2
    assert f"--url leads to {site.url}: " in error
    assert "ERR_CONNECTION_REFUSED" in error


def test_a_question_of_the_page_ends_the_recording(tmp_path: Path) -> None:
    with (
        form_site({"/": "<button>Delete</button>"}) as site,
        recorder(tmp_path, "greet", site.url, "--outcome", "greeted") as running,
    ):
        running.page.evaluate(
            "document.querySelector('button').onclick = () => { confirm('Sure?'); }"
        )
        # The recorder may end before the press has.
        with suppress(Error):
            running.page.get_by_role("button").click()
        assert running.wait() == 1
    assert "the page asked 'Sure?' in a dialog, which no step answers" in running.output


@pytest.mark.parametrize(
    "pressed, message",
    [
        ([], "nothing was pressed, so that nothing was written"),
        (["Look"], "after button 'Look', / says nothing"),
    ],
)
def test_what_is_missing_at_the_end_is_said(
    pressed: list[str], message: str, tmp_path: Path
) -> None:
    with (
        form_site({"/": "<button>Look</button>"}) as site,
        recorder(tmp_path, "greet", site.url, "--outcome", "greeted") as running,
    ):
        for name in pressed:
            running.page.get_by_role("button", name=name).click()
            running.wait_for("press button")
        assert running.end() == 1
    assert message in running.output
    assert not (tmp_path / "screens.en.yaml").exists()
