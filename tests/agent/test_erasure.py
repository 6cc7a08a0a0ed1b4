"""Erasure: nothing that a customer wrote is left, and the books are."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.support.agent_process import SCRIPT
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import CODE, Clock

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.erasure import Erasure, forget_before, forget_contact
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.shop import (
    Base,
    Case,
    CasePicture,
    Customer,
    Database,
    ModelCall,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    ReceivedMessage,
    ScreenWork,
    Shipment,
    database_url,
)
from gpt2flow.agent.telemetry.spans import Tracer
from gpt2flow.agent.turns.execution import Event, Task
from gpt2flow.agent.turns.execution.case_steps import CaseSteps

pytestmark = pytest.mark.process

CONTACT = "ann@example.com"
MESSAGES = ["i'm Ann, ann@example.com", CODE, "a kettle to 5 Oak Rd", "yes"]
PICTURE = b"a picture of Ann's order"
ANGRY = "this is Ann of Oak Rd, get me a person"


def play(url: str, clock: Clock) -> None:
    """Let Ann order and complain, and somebody else say hello."""
    script = SCRIPT | {ANGRY: [Choice("escalate")]}
    config = AgentConfig(database=url)
    with Agent(config, model=ScriptedModel(script), clock=clock, codes=lambda: CODE) as agent:
        for text in [*MESSAGES, ANGRY]:
            agent.handle("ann/1", text)
        agent.handle("ann", "hello")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Database]:
    if request.param == "sqlite":
        url = str(request.getfixturevalue("path"))
        play(url, clock)
        database = Database.open(database_url(url))
        yield database
        database.close()
        return
    server = request.getfixturevalue("postgresql")
    with server.database(server.shop) as url:
        play(url, clock)
        database = Database.open(database_url(url))
        yield database
        database.close()


def finish(database: Database) -> None:
    """Deliver the order and close the case."""
    with database.transaction() as db:
        db.get_one(Order, 1).status = OrderStatus.DELIVERED
        for case in db.scalars(select(Case)):
            case.status, case.attention_at = case.status.__class__.CLOSED, None


def count(database: Database, table: type[Base]) -> int:
    with database.transaction() as db:
        return db.scalar(select(func.count()).select_from(table)) or 0


def everything(database: Database) -> str:
    """Return all rows of all tables but the books, as text."""
    books = {"orders", "products", "product_aliases", "couriers"}
    with database.engine.connect() as connection:
        tables = [t for t in Base.metadata.sorted_tables if t.name not in books]
        return "\n".join(str(tuple(row)) for t in tables for row in connection.execute(select(t)))


def test_nothing_that_a_customer_wrote_is_left(database: Database) -> None:
    finish(database)
    assert "Ann" in everything(database)
    erasure = forget_contact(database, f" {CONTACT} ")
    assert (erasure.sessions, erasure.turns) == (1, 5)
    assert erasure.model_calls >= 5
    left = everything(database)
    for text in ("Ann", "ann@", "Oak Rd", "person", CODE):
        assert text not in left, text
    if database.url.get_backend_name() == "sqlite":
        for path in Path(str(database.url.database)).parent.glob("shop.sqlite*"):
            content = path.read_bytes()
            # The address of the order is in the books.
            assert b"ann@example.com" not in content, path
            assert b"get me a person" not in content, path


def test_the_books_stay(database: Database) -> None:
    finish(database)
    before = [count(database, table) for table in (Order, Payment, Shipment, Case, Customer)]
    forget_contact(database, CONTACT)
    after = [count(database, table) for table in (Order, Payment, Shipment, Case, Customer)]
    assert after == before == [1, 1, 1, 1, 1]
    with database.transaction() as db:
        assert db.get_one(Order, 1).address == "5 Oak Rd"


def test_another_conversation_stays(database: Database) -> None:
    """The id of one session begins like that of the other."""
    finish(database)
    forget_contact(database, CONTACT)
    with database.transaction() as db:
        assert db.scalars(select(ReceivedMessage.session_id)).all() == ["ann"]
        calls = db.scalars(select(ModelCall.key)).all()
        # An event names an order and no person.
        assert {key.split("/")[0] for key in calls} == {"ann", "order_submitted"}
        assert db.scalars(select(OutboxMessage.session_id)).all() == ["ann"]


def test_a_customer_who_is_still_needed_is_kept_unless_forced(database: Database) -> None:
    with pytest.raises(InputError, match=r"still needed for SO-1001, C-1; finish them first"):
        forget_contact(database, CONTACT)
    assert count(database, ReceivedMessage) == 6
    forget_contact(database, CONTACT, force=True)
    assert count(database, ReceivedMessage) == 1


@pytest.mark.parametrize("contact", ["", "bob@example.com", "%", CONTACT.upper() + "x"])
def test_an_unknown_contact_is_named(database: Database, contact: str) -> None:
    with pytest.raises(InputError, match="no customer, conversation or message has it"):
        forget_contact(database, contact)


def test_twice_is_an_unknown_contact(database: Database) -> None:
    finish(database)
    forget_contact(database, CONTACT)
    with pytest.raises(InputError):
        forget_contact(database, CONTACT)


def test_old_conversations_are_forgotten_and_their_customers_kept(
    database: Database, clock: Clock
) -> None:
    assert forget_before(database, clock.now) == Erasure(0, 0, 0, 0)
    later = clock.now + timedelta(seconds=1)
    # That of the open case stays.
    assert forget_before(database, later).sessions == 1
    finish(database)
    assert forget_before(database, later).turns == 5
    assert count(database, ReceivedMessage) == count(database, ModelCall) - 2 == 0
    with database.transaction() as db:
        assert db.scalars(select(Customer.contact)).all() == [CONTACT]


def stop_at_screens(database: Database, clock: Clock) -> None:
    """Stop in both conversations and at Ann's order, with pictures."""
    steps = CaseSteps(load_flows(), database, clock, Tracer())
    check_out = Choice("check_out", {"address": "5 Oak Rd"})
    event = Event("order_submitted", "SO-1001")
    for task in (
        Task("ann/1/m9/0", "ann/1", "to 5 Oak Rd please", check_out),
        Task("order_submitted/SO-1001/x", "ann/1", "SO-1001", Choice("x"), event=event),
        Task("ann/m9/0", "ann", "a picture of mine", Choice("view_cart")),
    ):
        error = ScreenStopped(f"{task.session}: expected Ann, found Bob", PICTURE)
        steps.report_stopped_screen(task, error)
        with database.transaction() as db:
            work = {"key": f"{task.key}/next", "session_id": task.session, "task": {"to": "Ann"}}
            db.add(ScreenWork(**work, created_at=clock.now))
    finish(database)


def test_pictures_and_work_on_screens_are_erased(database: Database, clock: Clock) -> None:
    stop_at_screens(database, clock)
    assert [count(database, table) for table in (CasePicture, ScreenWork, Case)] == [3, 3, 3]
    forget_contact(database, CONTACT)
    left = everything(database)
    assert "Oak Rd" not in left
    assert left.count("expected Ann") == 1
    assert [count(database, table) for table in (CasePicture, ScreenWork, Case)] == [1, 1, 3]
    with database.transaction() as db:
        assert db.scalars(select(ScreenWork.session_id)).all() == ["ann"]
        (picture,) = db.scalars(select(CasePicture)).all()
        assert db.get_one(Case, picture.case_id).session_id == "ann"


def test_pictures_of_old_conversations_are_erased(database: Database, clock: Clock) -> None:
    stop_at_screens(database, clock)
    forget_before(database, clock.now + timedelta(seconds=1))
    assert [count(database, table) for table in (CasePicture, ScreenWork, Case)] == [0, 0, 3]
    assert "expected Ann" not in everything(database)
    assert str(PICTURE) not in everything(database)
