"""Recorder of screens in a real Chromium, worked through its port."""

import os
import signal
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page
from tests.support.browser import chromium, screen
from tests.support.form_pages import form_site
from tests.support.recorder import RunningRecorder, recorder

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.hands.recorder.drafts import DraftFile, DraftSignIn
from gpt2flow.agent.hands.recording import SignIn, check_recording
from gpt2flow.agent.hands.screen import Screen
from gpt2flow.files.documents import read_yaml

pytestmark = pytest.mark.process

PRODUCT = """
<form method=post action=/add>
  <label for=quantity>Quantity</label> <input id=quantity name=quantity type=number value=1>
  <select name=size aria-label=Size><option>Small</option><option>Large</option></select>
  <label><input type=checkbox name=gift> As a <i>gift</i></label>
  <fieldset><legend>When</legend><label><input type=radio name=when value=now>Now</label>
    <label><input type=radio name=when value=later>Later</label></fieldset>
  <span id=note>Card {with} braces</span><textarea name=card aria-labelledby=note></textarea>
  <input name=colour placeholder=Colour list=colours><datalist id=colours><option>red</datalist>
  <button><b>Add</b> to cart</button>
</form>
"""
SHOP = {
    "/": """<form action=/search><input type=search title=Search name=q><button>Find</button></form>
      <p>Welcome to all of our pages.</p>""",
    "/search": "<a href=/products/tea><img alt='Green tea'></a> <a href=/products/cup>Cup</a>",
    "/products/tea": PRODUCT,
    "/products/cup": PRODUCT,
    "/add": "->/cart",
    "/cart": "<p role=status>Added 37 × Green tea. Your cart is now at 111.00.</p>",
}


def recordings(folder: Path, name: str = "screens.en.yaml") -> DraftFile:
    """Return what a recorder has written."""
    return read_yaml(folder / name, DraftFile, FlowError, typed=True)


def add_to_cart(page: Page, product: str, quantity: str) -> None:
    """Put something into the cart, with all kinds of elements."""
    page.get_by_text("Welcome").click()
    page.get_by_role("searchbox").fill(product)
    page.get_by_role("searchbox").press("Enter")
    page.get_by_role("link", name=product).click()
    page.get_by_label("Quantity").press_sequentially(quantity)
    page.get_by_label("Quantity").fill(quantity)
    page.get_by_label("Size").select_option("Large")
    page.get_by_text("gift").click()
    page.get_by_label("Later").focus()
    page.keyboard.press("Space")
    page.get_by_label("braces").fill("To {you}: 37 kisses")
    page.get_by_placeholder("Colour").fill("red")
    page.get_by_text("to cart").click()
    page.get_by_role("status").wait_for()


def test_a_recording_names_elements_and_repeats_what_was_done(tmp_path: Path) -> None:
    with form_site(SHOP) as site:
        given = ["--argument", "product=Green tea", "--argument", "quantity=37"]
        with recorder(tmp_path, "add_to_cart", site.url, *given) as running:
            add_to_cart(running.page, "Green tea", "37")
            assert running.end() == 0, running.output
        sent = list(site.sent)
        assert [path for path, _ in sent] == ["/add"]
        assert sent[0][1] == {
            "quantity": "37",
            "size": "Large",
            "gift": "on",
            "when": "later",
            "card": "To {you}: 37 kisses",
            "colour": "red",
        }
        recording = recordings(tmp_path).actions["add_to_cart"]
        check_recording("here", load_flows(), "add_to_cart", recording)
        assert "outcomes ['added']; left to do" in running.output
        steps = [
            (step.do, step.role, step.name or step.path, step.text) for step in recording.steps
        ]
        assert steps == [
            ("open", None, "/", None),
            ("fill", "searchbox", "Search", "{product}"),
            ("press", "button", "Find", None),
            ("press", "link", "{product}", None),
            ("fill", "spinbutton", "Quantity", "{quantity}"),
            ("choose", "combobox", "Size", "Large"),
            ("press", "checkbox", "As a gift", None),
            ("press", "radio", "Later", None),
            ("fill", "textbox", "Card {{with}} braces", "To {{you}}: 37 kisses"),
            ("fill", "combobox", "Colour", "red"),
        ]
        assert (recording.commit.role, recording.commit.name) == ("button", "Add to cart")
        said = {"added": "Added {quantity} × {product}. Your cart is now at 111.00."}
        assert recording.outcomes == said
        assert (recording.proof.path, recording.proof.shows) == ("/cart", [])

        # The hands do the same with it, and with other values.
        with chromium() as browser, screen(browser, site.url) as opened:
            hands = Screen(opened.page, 30, 30)
            for product, quantity in (("Green tea", "37"), ("Cup", "2")):
                fields = {"product": product, "quantity": quantity}
                for step in recording.steps:
                    hands.follow(step, fields)
                hands.press(recording.commit, fields)
        other = ("/add", {**sent[0][1], "quantity": "2"})
        assert site.sent == [*sent, *sent, other]


def test_a_chinese_shop_is_recorded_in_its_words(tmp_path: Path) -> None:
    pages = {
        "/orders/SO-1001": """<form method=post action=/cancel>
          <label>原因 <select name=reason><option>不想要了<option>地址错了</select></label>
          <button>取消: SO-1001</button></form>""",
        "/cancel": "->/orders",
        "/orders": "<p role=status>订单SO-1001已取消, 12.00 将退回。</p>",
    }
    with form_site(pages) as site:
        url = f"{site.url}/orders/SO-1001"
        options = ["--language", "zh", "--argument", "order=SO-1001"]
        with recorder(tmp_path, "cancel_order", url, *options) as running:
            assert running.page.evaluate("navigator.language") == "zh-CN"
            running.page.get_by_label("原因").select_option("地址错了")
            running.page.get_by_role("button").click()
            running.page.get_by_role("status").wait_for()
            assert running.end() == 0, running.output
    recording = recordings(tmp_path).actions["cancel_order"]
    assert recording.steps[0].path == "/orders/{order}"
    assert recording.steps[1].text == "地址错了"
    assert recording.commit.name == "取消: {order}"
    assert recording.outcomes == {"cancelled": "订单{order}已取消, 12.00 将退回。"}
    assert "取消: {order}" in (tmp_path / "screens.en.yaml").read_text(encoding="utf-8")


SECRETS = {
    "/code": """<form method=get action=/done>
      <label>Password <input type=password name=p></label>
      <button type=button id=show>Show</button>
      <label>Code <input name=code autocomplete=one-time-code></label>
      <label>Again <input name=again></label><button>Log in</button></form>
      <script src=/show.js></script>""",
    "/done": "<p role=status>Welcome. 482913 was right, and S3cret-word too. Not 555 666.</p>",
}


def test_no_secret_is_in_a_recording_or_the_output(tmp_path: Path) -> None:
    with form_site(SECRETS) as site:
        options = ["--outcome", "verified"]
        with recorder(tmp_path, "verify", f"{site.url}/code", *options) as running:
            page = running.page
            page.get_by_label("Password").fill("S3cret-word")
            # Shown as text, as some pages offer, it is a secret still.
            page.evaluate("document.querySelector('[type=password]').type = 'text'")
            page.get_by_label("Password").press_sequentially("!")
            page.get_by_label("Password").fill("S3cret-word")
            page.get_by_label("Code").fill("482913")
            page.get_by_label("Again").fill("482913")
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("status").wait_for()
            running.wait_for("the page says")
            assert running.end() == 0, running.output
    written = (tmp_path / "screens.en.yaml").read_text(encoding="utf-8")
    for text in (written, running.output):
        assert "S3cret" not in text
        assert "482913" not in text
        assert "555 666" not in text
    recording = recordings(tmp_path).actions["verify"]
    assert [step.text for step in recording.steps[1:]] == ["{token}", "{code}", "{code}"]
    said = "Welcome. {code} was right, and {token} too. Not ...."
    assert recording.outcomes == {"verified": said}
    # The address had both.
    assert recording.proof.path == "/done"


def test_secrets_of_arguments_are_fields_everywhere(tmp_path: Path) -> None:
    pages = {
        "/": "<form><label>Code 482913 <input name=q></label><button>Go 482913</button></form>"
        "<p role=status>482913</p>"
    }
    with form_site(pages) as site:
        given = ["--argument", "code=482913"]
        url = f"{site.url}/?code=482913"
        with recorder(tmp_path, "verify", url, *given) as running:
            running.page.get_by_role("textbox").fill("482913")
            running.page.get_by_role("button").click()
            running.wait_for("press button 'Go {code}'")
            assert running.end() == 0, running.output
    written = (tmp_path / "screens.en.yaml").read_text(encoding="utf-8")
    assert "482913" not in written + running.output
    assert recordings(tmp_path).actions["verify"].steps[0].path == "/?code={code}"


def test_an_opened_page_starts_the_recording_again(tmp_path: Path) -> None:
    pages = {
        "/sign-in": """<form method=post action=/in><label>Name <input name=n></label>
          <button>Sign in</button></form>""",
        "/in": "->/home",
        "/home": "<p role=status>Welcome</p>",
        "/orders/SO-7": """<form method=post action=/cancel><button>Cancel</button></form>
          <a href=/home>Home</a>""",
        "/cancel": "->/done",
        "/done": "<p role=status>Order SO-7 is cancelled</p>",
    }
    with form_site(pages) as site:
        given = ["--argument", "order=SO-7"]
        with recorder(tmp_path, "cancel_order", f"{site.url}/sign-in", *given) as running:
            page = running.page
            page.get_by_label("Name").fill("Ann")
            page.get_by_role("button").click()
            page.get_by_role("status").wait_for()
            page.goto(f"{site.url}/orders/SO-7?from=home")
            page.get_by_role("link").click()
            running.wait_for("press link 'Home'\n  the page says: Welcome")
            page.go_back()
            page.get_by_role("button", name="Cancel").click()
            page.get_by_text("is cancelled").wait_for()
            assert running.end() == 0, running.output
    assert running.output.count("the recording starts again") == 2
    recording = recordings(tmp_path).actions["cancel_order"]
    assert [step.path for step in recording.steps] == ["/orders/{order}?from=home"]
    assert recording.outcomes == {"cancelled": "Order {order} is cancelled"}


def test_a_choice_that_leads_on_and_a_double_click_are_captured_once(tmp_path: Path) -> None:
    """The page's script sends the form as soon as something is chosen."""
    pages = {
        "/": """<form action=/step method=post>
          <label>Size <select name=s><option>S<option>L</select></label></form>""",
        "/step": "->/more",
        "/more": "<button>Add</button><p role=status></p>",
    }
    with form_site(pages) as site:
        with recorder(tmp_path, "greet", site.url, "--outcome", "greeted") as running:
            page = running.page
            page.evaluate("""() => {
              document.querySelector("select").onchange = (event) => event.target.form.submit();
            }""")
            page.get_by_label("Size").select_option("L")
            page.wait_for_url("**/more")
            page.evaluate("""() => { let presses = 0;
              document.querySelector("button").onclick = () => {
                presses += 1;
                document.querySelector("p").textContent = `pressed ${presses}`;
              };
            }""")
            page.get_by_role("button").dblclick()
            running.wait_for("the page says: pressed 1")
            assert running.end() == 0, running.output
        assert site.sent == [("/step", {"s": "L"})]
    recording = recordings(tmp_path).actions["greet"]
    assert [step.do for step in recording.steps] == ["open", "choose"]
    assert recording.outcomes == {"greeted": "pressed 1"}


SCRIPTED = {
    "/": """<p role=status>Ready</p><div id=host></div><div id=note contenteditable role=textbox
      aria-label=Note>old</div><script src=/app.js></script>"""
}


def test_a_page_without_navigation_is_recorded_too(tmp_path: Path) -> None:
    """Elements are in a shadow root and rich text; a script answers."""
    with form_site(SCRIPTED) as site:
        options = ["--outcome", "greeted"]
        with recorder(tmp_path, "greet", site.url, *options) as running:
            page = running.page
            page.evaluate("""() => {
              const root = document.getElementById("host").attachShadow({mode: "open"});
              root.innerHTML = "<button><b>Greet</b></button>";
              window.presses = 0;
              root.querySelector("button").addEventListener("click", () => {
                window.presses += 1;
                setTimeout(() => {
                  document.querySelector("[role=status]").textContent = "Hello, " +
                    document.getElementById("note").innerText;
                }, 300);
              });
            }""")
            page.get_by_label("Note").fill("Ann")
            page.get_by_role("button").click()
            running.wait_for("the page says: Hello, Ann")
            assert page.evaluate("window.presses") == 1
            page.close()
            assert running.wait() == 0, running.output
    recording = recordings(tmp_path).actions["greet"]
    assert (recording.steps[1].role, recording.steps[1].text) == ("textbox", "Ann")
    assert recording.commit.name == "Greet"
    assert recording.outcomes == {"greeted": "Hello, Ann"}


def end_with_ctrl_c(running: RunningRecorder) -> int:
    """Press Ctrl-C, which the browser's processes receive too."""
    os.killpg(running.process.pid, signal.SIGINT)
    return running.wait()


def test_ctrl_c_writes_the_recording(tmp_path: Path) -> None:
    pages = {
        "/": "<form method=post action=/sent><button>Hello</button></form>",
        "/sent": "->/done",
        "/done": "<p role=alert>No</p>",
    }
    with form_site(pages) as site:
        with recorder(tmp_path, "greet", site.url, "--outcome", "greeted") as running:
            running.page.get_by_role("button").click()
            running.wait_for("the page says: No")
            assert end_with_ctrl_c(running) == 0, running.output
        assert running.output.splitlines()[-1].startswith("- outcomes: ")
        assert len(site.sent) == 1
    assert recordings(tmp_path).actions["greet"].outcomes == {"greeted": "No"}


OFFICE = {
    "/office/sign-in": """<form method=post action=/office/in><label>Token
      <input type=password name=token></label><button>Sign in</button></form>""",
    "/office/in": "->/office",
    "/office": "<p>Office</p>",
    "/office/serve": """<form method=post action=/office/served><label>Conversation
      <input name=session></label><button>Serve</button></form>""",
    "/office/served": "->/account",
    "/account": """<h1>Account of web-12</h1> <a href=/office>Serving <b>conversation</b> web-12</a>
      <a href=/web-123>web-123</a> <button>Stop</button>""",
}


def record_sign_in(folder: Path, account: str) -> str:
    """Record a sign-in, and return the recorder's output.

    Args:
        folder: Folder of its file.
        account: Page of a served conversation.
    """
    with form_site({**OFFICE, "/account": account}) as site:
        given = ["--argument", "session=web-12"]
        with recorder(folder, "sign-in", f"{site.url}/office/sign-in", *given) as running:
            page = running.page
            page.get_by_label("Token").fill("tok-abcdefgh")
            page.get_by_role("button").click()
            page.get_by_text("Office", exact=True).wait_for()
            page.goto(f"{site.url}/office/serve")
            page.get_by_label("Conversation").fill("web-12")
            page.get_by_role("button").click()
            page.wait_for_url("**/account")
            assert running.end() == 0, running.output
    return running.output


def test_the_sign_in_is_recorded_with_the_serving(tmp_path: Path) -> None:
    output = record_sign_in(tmp_path, OFFICE["/account"])
    sign_in = read_yaml(tmp_path / "screens.en.yaml", SignIn, FlowError, typed=True)
    assert [step.text for step in sign_in.steps] == [None, "{token}", None]
    assert sign_in.signed_out.name == "Sign in"
    assert [step.path or step.text for step in sign_in.serve] == [
        "/office/serve",
        "{session}",
        None,
    ]
    assert sign_in.serving.role == "link"
    assert sign_in.serving.name == "Serving conversation {session}"
    assert "the page shows link 'Serving conversation {session}'" in output
    assert output.splitlines()[-1] == f"wrote {tmp_path / 'screens.en.yaml'}"
    written = (tmp_path / "screens.en.yaml").read_text(encoding="utf-8")
    assert "tok-" not in written + output
    assert yaml.safe_load(written)["signed_out"] == {"role": "button", "name": "Sign in"}


@pytest.mark.parametrize(
    "account, shown",
    [
        ("<div>Serving conversation web-12</div><a href=/>Home</a>", "none"),
        (
            "<a href=/>Serving web-12</a> <button>Stop web-12</button>",
            "link 'Serving {session}', button 'Stop {session}'",
        ),
        ("<a href=/>web-12</a> <a href=/>web-12</a>", "link '{session}', link '{session}'"),
    ],
)
def test_a_sign_in_without_one_element_of_the_conversation_is_to_be_completed(
    account: str, shown: str, tmp_path: Path
) -> None:
    output = record_sign_in(tmp_path, account)
    assert "left to do:\n- serving: role and name, with {session}, of the one element" in output
    assert output.splitlines()[-1].endswith(f"the last page shows {shown}")
    path = tmp_path / "screens.en.yaml"
    assert read_yaml(path, DraftSignIn, FlowError, typed=True).serving is None
    with pytest.raises(FlowError, match="field serving: Field required"):
        read_yaml(path, SignIn, FlowError, typed=True)
    # The recorder takes its own file again.
    record_sign_in(tmp_path, OFFICE["/account"])
    assert read_yaml(path, SignIn, FlowError, typed=True).serving.role == "link"
