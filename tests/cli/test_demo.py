"""Command `gpt2flow demo --hands browser`: real server, shop, agent and Chromium."""

import re
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import select
from tests.support.browser import NARROW, WIDE, browser, chromium_path, screen
from tests.support.command_line import gpt2flow
from tests.support.project import SHIPPED_BUNDLE
from tests.support.website import plain_text

from gpt2flow.agent.hands.album import PicturedStep, read_album
from gpt2flow.agent.report import ActionReport, TurnReport
from gpt2flow.agent.scenarios import Scenario, Turn, load_scenarios
from gpt2flow.agent.shop import Database, OutboxMessage, database_url
from gpt2flow.cli.agent_options import HandsKind
from gpt2flow.cli.commands import demo
from gpt2flow.cli.demo.play import ScenarioResult
from gpt2flow.cli.demo.report import write_report

__all__ = ["browser"]

SCENARIOS = """
- id: english
  title: Registration
  turns:
    - {session: ann,
       text: "register me please, my name is Ann Miller, email ann.miller@example.com"}
    - {session: ann, text: "its {code}"}
    - {session: ann, text: "put 2 electric kettles in my cart, and what about warranty"}
  expect:
    rows:
      customers: [{contact: ann.miller@example.com, name: Ann Miller, language: en}]
      cart_lines: [{sku: electric-kettle, quantity: 2}]
      verifications: []
- id: chinese
  title: 物流
  shop:
    customers: [{contact: "13912345678", name: 王芳, language: zh}]
    orders:
      - {number: SO-1002, contact: "13912345678", status: submitted, lines: {desk-lamp: 1}}
  turns:
    - {text: "我要登录，手机号13912345678"}
    - {text: "{code}"}
    - {text: "订单1002还没发货吧？地址写错了，改成杭州市西湖区文三路5号"}
  expect:
    rows: {orders: [{number: SO-1002, address: 杭州市西湖区文三路5号}]}
"""
_MAGENTA = """async source => {
  const image = new Image(); image.src = source; await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const pixels = canvas.getImageData(0, 0, image.width, image.height).data;
  let found = 0;
  for (let i = 0; i < pixels.length; i += 4)
    found += pixels[i] === 255 && pixels[i + 1] === 0 && pixels[i + 2] === 255;
  return found;
}"""
_LOAD = """async image => {
  image.loading = "eager"; await image.decode(); return image.naturalWidth;
}"""


@dataclass(frozen=True)
class Demo:
    """Demo that has run.

    Attributes:
        out: Its output.
        pictures: Folder of its pictures and report.
        kept: Folder of its shops.
    """

    out: str
    pictures: Path
    kept: Path

    @property
    def page(self) -> str:
        """Source of the report."""
        return (self.pictures / "index.html").read_text(encoding="utf-8")

    def steps(self, scenario: str) -> list[PicturedStep]:
        """Return the steps on the screens of a scenario."""
        return read_album(self.pictures / scenario)

    def secrets(self) -> set[str]:
        """Return the codes that were sent, and the agent's tokens."""
        found = {path.read_text() for path in self.kept.glob("*/agent.token")}
        for scenario in ("english", "chinese"):
            database = Database.open(database_url(str(self.kept / scenario / f"{scenario}.sqlite")))
            is_contact = OutboxMessage.contact.is_not(None)
            with database.transaction() as db:
                for text in db.scalars(select(OutboxMessage.text).where(is_contact)):
                    found |= set(re.findall(r"(?<!\d)\d{6}(?!\d)", text))
            database.close()
        return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Demo of a scenario in English and one in Chinese."""
    chromium_path()
    folder = tmp_path_factory.mktemp("demo")
    scenarios, pictures, kept = folder / "scenarios.yaml", folder / "pictures", folder / "kept"
    scenarios.write_text(SCENARIOS, encoding="utf-8")
    code, out, err = run(scenarios, "--pictures", str(pictures), "--keep", str(kept))
    assert code == 0, out[-3000:] + err
    return Demo(out, pictures, kept)


def run(scenarios: Path, *options: str) -> tuple[int, str, str]:
    """Run the demo in a browser."""
    return gpt2flow(
        *("demo", "--model", str(SHIPPED_BUNDLE), "--scenarios", str(scenarios)),
        *("--hands", "browser", *options),
    )


def test_every_scenario_ends_as_expected_and_the_report_is_named(played: Demo) -> None:
    assert played.out.count(": as expected") == 2
    assert re.search(r"6 actions on the screens, .* \d+\.\d s on average, \d+\.\d s at", played.out)
    assert f"Report: {played.pictures / 'index.html'}" in played.out


def test_each_step_on_the_screens_has_a_picture(played: Demo) -> None:
    assert actions(played.steps("english")) == ["register", "verify", "add_to_cart"]
    assert actions(played.steps("chinese")) == ["log_in", "verify", "change_address"]
    [first, *_] = played.steps("chinese")
    assert (first.step, first.path, first.language) == ("open /sign-in", "/sign-in", "zh")
    for scenario in ("english", "chinese"):
        steps = played.steps(scenario)
        files = [played.pictures / scenario / step.picture for step in steps]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
        assert sorted(files) == sorted((played.pictures / scenario).glob("*.png"))
        assert all(step.seconds > 0 for step in steps)


def actions(steps: list[PicturedStep]) -> list[str]:
    """Return the actions of steps, in order."""
    return list(dict.fromkeys(step.action for step in steps))


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_shows_every_step_and_loads_nothing_else(
    played: Demo, browser: Browser, scheme: str, size: dict[str, int]
) -> None:
    with screen(browser, "file:///", viewport=size, color_scheme=scheme) as opened:
        page, requested = opened.page, list[str]()
        page.on("request", lambda request: requested.append(request.url))
        page.goto((played.pictures / "index.html").as_uri())
        pictures = page.locator("figure img")
        steps = [*played.steps("english"), *played.steps("chinese")]
        assert pictures.count() == len(steps)
        assert [image.evaluate(_LOAD) for image in pictures.all()] == [1280] * len(steps)
        assert all(url.startswith(played.pictures.as_uri()) for url in requested)
        opened.check()
        opened.picture(f"demo-report-{scheme}-{size['width']}")
        captions = page.locator("figcaption").all_inner_texts()
        assert all(step.step in text for step, text in zip(steps, captions, strict=True))
        check_english(page)


def check_english(page: Page) -> None:
    """Check the English conversation on the report."""
    message = page.get_by_role("region", name="Message 3 of english")
    text = message.inner_text()
    assert "put 2 electric kettles in my cart" in text
    assert "add_to_cart(product=electric kettles quantity=2) → added" in text
    assert "Added 2 × electric kettle. Your cart is now at 59.80." in text
    # The database answers a question, so that it has no steps.
    assert "answer_question(topic=warranty) → answered" in text
    assert message.locator("ol").count() == 1
    rows = page.get_by_role("table", name="cart_lines of english").inner_text()
    assert "electric-kettle" in rows
    assert page.get_by_role("table", name="Workflows").inner_text().count("as expected") == 2


def test_no_secret_is_in_the_report_or_beside_it(played: Demo) -> None:
    secrets = played.secrets()
    assert len(secrets) == 4  # A code and a token of each scenario.
    lists = [path.read_text(encoding="utf-8") for path in played.pictures.glob("*/steps.jsonl")]
    assert len(lists) == 2
    for text in (played.page, *lists):
        assert not [secret for secret in secrets if secret in text]
    assert "its ••••••" in played.page
    assert "verify(code=••••••) → verified" in played.page
    assert "Sent to ann.miller@example.com; the text is not shown." in played.page


def test_pictures_cover_codes(played: Demo, browser: Browser) -> None:
    with screen(browser, "about:blank") as opened:
        covered = {
            step.step
            for step in played.steps("english")
            if opened.page.evaluate(_MAGENTA, data_url(played.pictures / "english" / step.picture))
        }
    assert "fill textbox Code" in covered
    assert "fill textbox Name" not in covered


def data_url(path: Path) -> str:
    """Return a picture as a URL."""
    return "data:image/png;base64," + b64encode(path.read_bytes()).decode()


def test_another_end_than_expected_is_a_failure_and_in_the_report(tmp_path: Path) -> None:
    chromium_path()
    scenario, pictures = tmp_path / "never.yaml", tmp_path / "pictures"
    scenario.write_text(
        "- id: never\n  turns: [{text: hello}]\n  expect: {rows: {orders: [{number: SO-1001}]}}\n"
    )
    code, out, err = run(scenario, "--pictures", str(pictures))
    assert (code, "not as expected: never" in err) == (1, True)
    assert "No action was carried out on the screens." in out
    page = (pictures / "index.html").read_text(encoding="utf-8")
    assert "SO-1001" in page
    assert "as expected" not in page


def test_each_action_of_the_report_has_its_own_steps(tmp_path: Path) -> None:
    outcomes = [("add_to_cart", "unknown_product"), ("add_to_cart", "added"), ("escalate", "told")]
    report = TurnReport(
        session="s",
        message_id="1",
        message="my code is 123456",
        language="en",
        actions=[
            ActionReport(action=name, arguments={}, used={}, result="ok", outcome=outcome)
            for name, outcome in outcomes
        ],
    )
    steps = [step("add_to_cart", "added"), step("check_out", "summarised")]
    scenario = Scenario(id="s", turns=[Turn(text="hi")])
    result = ScenarioResult(scenario, [report.model_dump(mode="json")], {}, [], [steps])
    page = plain_text(write_report(tmp_path, Path("shop"), [result]).read_text(encoding="utf-8"))
    # What stopped comes first, since it is why a person took over.
    shown = [
        *("check_out → stopped", "press summarised", "add_to_cart() → unknown_product"),
        *("add_to_cart() → added", "press added", "escalate() → told"),
    ]
    places = [page.index(text) for text in shown]
    assert places == sorted(places)


def step(action: str, expected: str) -> PicturedStep:
    """Return a step of an action."""
    press = f"press {expected}"
    return PicturedStep("1.png", action, "s", action, expected, "en", press, "/", 1.0)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--pictures", "new"], "--pictures needs --hands browser"),
        (["--hands", "browser", "--browser", "nowhere", "--pictures", "new"], "browser is 'nowher"),
        (["--hands", "browser", "--pictures", "."], "--pictures .: is there already"),
        (["--hands", "browser", "--pictures", "file/new"], "--pictures file/new: "),
        (["--hands", "feet"], "feet"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: list[str], words: str) -> None:
    if "nowhere" not in options and "--hands" in options:
        chromium_path()
    (tmp_path / "file").touch()
    code, _, errors = gpt2flow("demo", "--model", str(SHIPPED_BUNDLE), *options, cwd=tmp_path)
    assert code == 2
    assert words in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_the_built_in_scenarios_have_both_languages_of_every_workflow() -> None:
    turns: dict[str, str] = {}
    for name in demo.BUILT_IN[HandsKind.BROWSER]:
        for scenario in load_scenarios(demo.FOLDER / name):
            workflow = re.sub("-(en|zh)$", "", scenario.id)
            turns[workflow] = turns.get(workflow, "") + " ".join(t.text for t in scenario.turns)
    assert set(turns) == {"registration", "order", "shipping", "after-sales"}
    for text in turns.values():
        assert re.search("[a-z]{3} [a-z]{2}", text)
        assert len(re.findall("[一-鿿]", text)) > 20
