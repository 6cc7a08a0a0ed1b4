"""Chat box: messages, answers, and an agent that is away."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.http_endpoint import (
    OTHER_SECRET,
    SECRET,
    HeldModel,
    Served,
    running_endpoint,
)
from tests.support.shop import Clock, Shop
from tests.support.storefront import RunningStorefront, Shopper, running_storefront
from tests.support.waiting import eventually
from tests.support.website import Tokens, plain_text

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.shop import (
    CartLine,
    CustomerSession,
    Database,
    OutboxMessage,
    ReceivedMessage,
    database_url,
)
from gpt2flow.agent.turns.execution import Executor

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, new_shop: Path) -> Iterator[Served]:
    """Agent that the tests share, on a scripted model."""
    path = tmp_path_factory.mktemp("chat") / "shop.sqlite"
    path.write_bytes(new_shop.read_bytes())
    held = threading.Event()
    model = HeldModel(lambda _prompt: held.is_set())
    with Agent(AgentConfig(database=str(path)), model=model) as agent:
        yield Served(agent, model, str(path), held)


@pytest.fixture
def shop(served: Served, book: FlowBook) -> Iterator[Shop]:
    clock, opened = Clock(), Database.open(database_url(served.database))
    yield Shop(book, opened, clock, Executor(book, opened, clock, str, 0.5))
    opened.close()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture
def endpoint(served: Served, secret_file: Path) -> Iterator[str]:
    """URL of the agent, which takes signed requests alone."""
    with running_endpoint(served, HttpConfig(secret_file=secret_file), SECRET) as running:
        yield f"http://127.0.0.1:{running.port}"
        served.held.clear()


@pytest.fixture
def storefront(
    served: Served, endpoint: str, secret_file: Path, tokens: Tokens
) -> Iterator[RunningStorefront]:
    settings: dict[str, Any] = {"agent": endpoint, "agent_secret_file": secret_file}
    with running_storefront(served.database, tokens, Clock(), **settings) as running:
        yield running


def messages(shop: Shop, shopper: Shopper) -> list[str]:
    """Return the messages of a shopper, as the agent read them."""
    session = shopper.client.cookies["gpt2flow-shop"]
    return [each.text for each in shop.rows(ReceivedMessage) if each.session_id == session]


def test_the_agent_answers_on_the_page(shop: Shop, stranger: Shopper) -> None:
    response = stranger.submit("/cart", "/chat", message="a kettle")
    assert response.headers["location"] == "/cart#chat"
    page = stranger.read("/cart")
    assert 'role="log"' in page
    assert "You: a kettle" in plain_text(page)
    assert "We: Added 1 × electric kettle" in plain_text(page)
    # The agent and the pages have one cart.
    assert 'href="/products/electric-kettle"' in page
    assert messages(shop, stranger) == ["a kettle"]
    assert "Added 1" in stranger.read("/chat")


def test_a_message_of_staff_arrives(shop: Shop, stranger: Shopper) -> None:
    stranger.submit("/", "/chat", message="hello")
    session = stranger.client.cookies["gpt2flow-shop"]
    with shop.database.transaction() as db:
        written = OutboxMessage(
            key="case/1", session_id=session, flow="cases", language="en", text="Hal here."
        )
        written.created_at = shop.clock.now
        db.add(written)
    assert "We: Hal here." in plain_text(stranger.read("/chat"))


def test_a_code_is_in_no_chat(shop: Shop, stranger: Shopper) -> None:
    stranger.submit("/", "/chat", message="i'm Ann, ann@example.com")
    [code] = [each.text for each in shop.rows(OutboxMessage) if each.contact == "ann@example.com"]
    digits = next(word for word in code.replace(";", " ").split() if word.isdecimal())
    assert len(digits) == 6
    assert digits not in stranger.read("/account")
    assert "A code was sent to ann@example.com." in stranger.read("/account")


def test_a_message_that_is_sent_twice_is_read_once(shop: Shop, stranger: Shopper) -> None:
    form = {**stranger.forms("/")["/chat"], "message": "hello"}
    stranger.client.post("/chat", data=form)
    # The browser has its id now, so that only the token differs.
    token = stranger.forms("/")["/chat"]["csrf"]
    stranger.client.post("/chat", data={**form, "csrf": token})
    assert messages(shop, stranger) == ["hello"]


def test_a_late_answer_is_asked_for_again_under_the_same_id(
    shop: Shop, served: Served, endpoint: str, secret_file: Path, tokens: Tokens
) -> None:
    settings: dict[str, Any] = {
        "agent": endpoint,
        "agent_secret_file": secret_file,
        "chat_seconds": 0.5,
    }
    with (
        running_storefront(served.database, tokens, Clock(), **settings) as storefront,
        storefront.shopper() as stranger,
    ):
        served.held.set()
        page = stranger.do("/", "/chat", message="a kettle")
        assert "We cannot answer at the moment." in page
        assert 'value="a kettle"' in page
        served.held.clear()
        eventually(lambda: bool(messages(shop, stranger)))
        session = stranger.client.cookies["gpt2flow-shop"]
        eventually(lambda: session in {line.session_id for line in shop.rows(CartLine)})
        form = stranger.forms("/")["/chat"]
        assert form["again"] == ""


def test_an_agent_that_is_away_loses_no_message(
    shop: Shop, served: Served, endpoint: str, secret_file: Path, tokens: Tokens
) -> None:
    away: dict[str, Any] = {"agent": "http://127.0.0.1:9"}
    with (
        running_storefront(served.database, tokens, Clock(), **away) as storefront,
        storefront.shopper() as stranger,
    ):
        response = stranger.submit("/help", "/chat", message="a kettle")
        page = stranger.read(response.headers["location"])
        assert "We cannot answer at the moment. Please send your message again." in page
        assert 'role="alert"' in page
        assert 'value="a kettle"' in page
        cookies = dict(stranger.client.cookies)
    settings: dict[str, Any] = {"agent": endpoint, "agent_secret_file": secret_file}
    with (
        running_storefront(served.database, tokens, Clock(), **settings) as storefront,
        storefront.shopper() as stranger,
    ):
        stranger.client.cookies.update(cookies)
        stranger.submit("/help", "/chat", message="a kettle")
        assert messages(shop, stranger) == ["a kettle"]


def test_a_message_is_sent_again_under_its_first_id(
    shop: Shop, served: Served, secret_file: Path, tokens: Tokens
) -> None:
    """The agent has the first one, though its answer did not arrive."""
    config = HttpConfig(secret_file=secret_file)
    with running_endpoint(served, config, SECRET) as running:
        settings: dict[str, Any] = {"agent": f"http://127.0.0.1:{running.port}"}
        settings |= {"agent_secret_file": secret_file, "chat_seconds": 1.0}
        with (
            running_storefront(served.database, tokens, Clock(), **settings) as storefront,
            storefront.shopper() as stranger,
        ):
            served.held.set()
            response = stranger.submit("/", "/chat", message="a kettle")
            page = stranger.read(response.headers["location"])
            assert "Please send your message again." in page
            served.held.clear()
            again = page.split('name="again" value="', 1)[1].split('"', 1)[0]
            assert again
            form = {**stranger.forms("/")["/chat"], "again": again, "message": "a kettle"}
            stranger.client.post("/chat", data=form)
            session = stranger.client.cookies["gpt2flow-shop"]
            lines = [line for line in shop.rows(CartLine) if line.session_id == session]
            assert [line.quantity for line in lines] == [1]
            assert messages(shop, stranger) == ["a kettle"]


def test_an_agent_that_refuses_the_signature_is_away(
    served: Served, endpoint: str, tokens: Tokens, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{OTHER_SECRET}\n")
    settings: dict[str, Any] = {"agent": endpoint, "agent_secret_file": wrong}
    with (
        running_storefront(served.database, tokens, Clock(), **settings) as storefront,
        storefront.shopper() as stranger,
    ):
        assert "We cannot answer" in stranger.do("/", "/chat", message="hello")


@pytest.mark.parametrize("message", ["", "   ", "x" * 1001])
def test_a_message_that_cannot_be_read_is_refused(
    shop: Shop, stranger: Shopper, message: str
) -> None:
    assert "Please write a message" in stranger.do("/", "/chat", message=message)
    assert messages(shop, stranger) == []


def test_an_operator_reads_the_conversation_and_does_not_write_in_it(
    shop: Shop, storefront: RunningStorefront, stranger: Shopper
) -> None:
    stranger.submit("/", "/chat", message="hello")
    session = stranger.client.cookies["gpt2flow-shop"]
    with storefront.operator("hal", session) as hal:
        page = hal.read("/account")
        assert "You: hello" in plain_text(page)
        assert "/chat" not in hal.forms("/account")
        hidden = hal.forms("/account")["/office/stop"]
        response = hal.client.post("/chat", data={**hidden, "message": "a kettle"})
        assert response.status_code == 404
    assert messages(shop, stranger) == ["hello"]


def test_a_shop_without_an_agent_has_no_chat_box(
    served: Served, tokens: Tokens, shop: Shop
) -> None:
    with (
        running_storefront(served.database, tokens, Clock()) as storefront,
        storefront.shopper() as stranger,
    ):
        assert "/chat" not in stranger.read("/")
        assert stranger.client.get("/chat").status_code == 404
        hidden = stranger.forms("/sign-in")["/sign-in"]
        data = {**hidden, "message": "hello"}
        before = len(shop.rows(CustomerSession))
        assert stranger.client.post("/chat", data=data).status_code == 404
        assert len(shop.rows(CustomerSession)) == before
