"""Recorder on the storefront: the same recordings as the built-in ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from tests.support.recorder import recorder
from tests.support.shop import Clock
from tests.support.storefront import RunningStorefront, running_storefront
from tests.support.website import Tokens, new_tokens

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.recorder.drafts import DraftFile
from gpt2flow.agent.hands.recording import SignIn, load_screens
from gpt2flow.agent.wording import Language
from gpt2flow.files.documents import read_yaml

pytestmark = pytest.mark.process

# Words of the pages, and the product.
WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "search": "Search",
        "product": "green tea",
        "quantity": "Quantity",
        "add": "Add to cart",
    },
    "zh": {"search": "搜索", "product": "绿茶", "quantity": "数量", "add": "加入购物车"},
}
OFFICE: dict[Language, list[str]] = {
    "en": ["Your token", "Sign in", "Conversation", "Serve"],
    "zh": ["您的令牌", "登录", "会话", "开始服务"],
}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return new_tokens(tmp_path / "tokens.toml")


@pytest.fixture
def shop(path: Path, tokens: Tokens) -> Iterator[RunningStorefront]:
    with running_storefront(path, tokens, Clock()) as shop:
        yield shop


def add_to_cart(page: Page, words: dict[str, str]) -> None:
    page.get_by_role("searchbox", name=words["search"]).fill(words["product"])
    page.get_by_role("button", name=words["search"]).click()
    # The first page has the product too.
    page.wait_for_url("**/?q=*")
    page.get_by_role("main").get_by_role("link", name=words["product"]).click()
    page.get_by_label(words["quantity"]).fill("37")
    page.get_by_role("button", name=words["add"]).click()
    page.get_by_role("status").filter(has_text=words["product"]).wait_for()


@pytest.mark.parametrize("language", WORDS)
def test_an_action_is_recorded_as_it_ships(
    language: Language, shop: RunningStorefront, book: FlowBook, tmp_path: Path
) -> None:
    words = WORDS[language]
    given = ["--argument", f"product={words['product']}", "--argument", "quantity=37"]
    given += ["--argument", "total=351.50", "--language", language]
    with recorder(tmp_path, "add_to_cart", shop.url, *given) as running:
        add_to_cart(running.page, words)
        assert running.end() == 0, running.output
    written = read_yaml(tmp_path / "screens.en.yaml", DraftFile, FlowError, typed=True)
    recording, shipped = (
        each.actions["add_to_cart"] for each in (written, load_screens(book)[language])
    )
    assert (recording.steps, recording.commit) == (shipped.steps, shipped.commit)
    assert recording.outcomes["added"] == shipped.outcomes["added"]
    assert recording.proof.path == shipped.proof.path


def new_conversation(shop: RunningStorefront) -> str:
    """Return the conversation of somebody who has put something into the cart."""
    with shop.shopper() as shopper:
        shopper.do("/products/green-tea", quantity="1")
        return shopper.client.cookies["gpt2flow-shop"]


@pytest.mark.parametrize("language", OFFICE)
def test_the_sign_in_is_recorded_as_it_ships(
    language: Language, shop: RunningStorefront, book: FlowBook, tokens: Tokens, tmp_path: Path
) -> None:
    session = new_conversation(shop)
    token, sign_in, conversation, serve = OFFICE[language]
    given = ["--argument", f"session={session}", "--language", language]
    with recorder(tmp_path, "sign-in", f"{shop.url}/office/sign-in", *given) as running:
        page = running.page
        page.get_by_label(token).fill(tokens.secrets["hal"])
        page.get_by_role("button", name=sign_in, exact=True).click()
        page.wait_for_url("**/office")
        page.goto(f"{shop.url}/office/serve")
        page.get_by_label(conversation, exact=True).fill(session)
        page.get_by_role("button", name=serve, exact=True).click()
        page.wait_for_url("**/account")
        assert running.end() == 0, running.output
    path = tmp_path / "screens.en.yaml"
    written, shipped = read_yaml(path, SignIn, FlowError, typed=True), load_screens(book)[language]
    assert written.steps == shipped.sign_in.steps
    assert written.signed_out == shipped.sign_in.signed_out
    assert written.serve == shipped.sign_in.serve
    assert written.serving == shipped.sign_in.serving
    assert tokens.secrets["hal"] not in path.read_text(encoding="utf-8") + running.output
