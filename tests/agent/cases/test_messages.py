"""Messages about cases: recipients, languages, keys, and codes that stay hidden."""

from dataclasses import replace
from datetime import datetime
from typing import get_args

import pytest
from sqlalchemy import delete
from tests.support.desk import BEN, changes, hand_over, hear, large_refund, new_desk, texts
from tests.support.shop import CODE, Shop

from gpt2flow.agent.cases.life import record
from gpt2flow.agent.cases.messages import hide_codes, sent_codes, tell_customer, tell_staff
from gpt2flow.agent.flows.case_rules import CaseMessage, CaseRules
from gpt2flow.agent.shop import Audience, Case, CustomerSession, Delivery, OutboxMessage
from gpt2flow.agent.shop.tables.outbox import last_text

TO_STAFF = ("due", "reminded", "escalated", "lapsed", "written")


def tell(
    shop: Shop, message: CaseMessage, *, rules: CaseRules | None = None, **fields: str
) -> OutboxMessage:
    """Write a message about the only case; return it."""
    with shop.database.transaction() as db:
        case = db.get_one(Case, 1)
        now: datetime = shop.clock.now
        write = tell_staff if message in TO_STAFF else tell_customer
        record(db, case, "ben", "tested", now)
        write(db, case, rules or shop.book.cases, message, now, **fields)
    return max(shop.rows(OutboxMessage), key=lambda each: each.id)


@pytest.mark.parametrize("message", get_args(CaseMessage))
def test_every_message_can_be_written(shop: Shop, message: CaseMessage) -> None:
    large_refund(shop)
    sent = tell(shop, message, amount="5.00", text="{case} 100% <b>", name="ben")
    assert sent.delivery is Delivery.PENDING
    assert (sent.case_id, sent.customer_id, sent.flow) == (1, 1, "cases")
    to_staff = message in TO_STAFF
    assert sent.audience is (Audience.STAFF if to_staff else Audience.CUSTOMER)
    assert sent.contact == (None if to_staff else "ann@example.com")
    assert sent.language == "en"
    if message in {"replied", "rejected", "written"}:
        assert "{case} 100% <b>" in sent.text


def test_a_customer_who_is_not_known_is_answered_in_the_conversation(shop: Shop) -> None:
    hand_over(shop, "转人工")
    sent = tell(shop, "taken", name="Ben")
    assert (sent.session_id, sent.contact, sent.customer_id) == ("s", None, None)
    assert (sent.language, sent.text) == ("zh", "接下来由同事 Ben 为您服务 (工单 C-1)。")


def test_the_customers_language_is_that_of_their_latest_message(shop: Shop) -> None:
    """Not that of the session in which the case began."""
    large_refund(shop)
    shop.log_in("t")
    shop.act("t", "greet", message="你好")
    assert tell(shop, "expired").language == "zh"
    [session] = [each for each in shop.rows(CustomerSession) if each.id == "s"]
    assert session.language == "en"


def test_the_staff_has_a_language_of_its_own(shop: Shop) -> None:
    large_refund(shop, message="hello")
    rules = shop.book.cases.model_copy(update={"staff_language": "zh"})
    assert tell(shop, "reminded", rules=rules).text == "工单 C-1 仍无人处理: 退款, Ann。"


def test_keys_are_unique_after_messages_were_erased(shop: Shop) -> None:
    """Recipients drop a key that they know."""
    desk, number = new_desk(shop), large_refund(shop)
    keys = set()
    for text in ("one", "two", "three"):
        desk.reply(BEN, number, text)
        sent = max(shop.rows(OutboxMessage), key=lambda each: each.id)
        keys.add(sent.key)
        with shop.database.transaction() as db:
            db.execute(delete(OutboxMessage).where(OutboxMessage.id == sent.id))
    assert len(keys) == 3
    assert all(key.startswith("case/1/") for key in keys)


def test_no_change_is_told_twice(shop: Shop) -> None:
    desk = new_desk(shop)
    number = hand_over(shop)
    desk.assign(BEN, number)
    desk.reply(BEN, number, "Hello")
    hear(shop, "hi")
    desk.close(BEN, number)
    assert len(changes(shop)) == 5
    assert (len(texts(shop)), len(texts(shop, Audience.STAFF))) == (2, 1)
    keys = [each.key for each in shop.rows(OutboxMessage)]
    assert len(keys) == len(set(keys))


def test_a_message_to_the_staff_is_no_answer_to_the_customer(shop: Shop) -> None:
    """The agent says if it repeats itself to the customer."""
    hand_over(shop)
    tell(shop, "written", text="hello?")
    with shop.database.transaction() as db:
        text = last_text(db, "s", None)
    assert text == "I have passed this to a colleague, who will contact you (case C-1)."


def test_codes_are_those_that_were_sent_from_the_session(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com", message="654321")
    shop.act("t", "greet", message="987654")
    with shop.database.transaction() as db:
        assert sent_codes(db, "s", shop.book) == [CODE]
        assert sent_codes(db, "t", shop.book) == []
        # Flows that verify nobody send no codes.
        flows = {"conversation": shop.book.flows["conversation"]}
        assert sent_codes(db, "s", replace(shop.book, flows=flows)) == []


@pytest.mark.parametrize(
    "text, hidden",
    [
        ("123456", "[code]"),
        ("it is 123 456, or 1-2-3 4 5 6.", "it is [code], or [code]."),
        ("验证码123456。", "验证码[code]。"),
        ("1123456 and 1234567", "1123456 and 1234567"),
        ("654321", "654321"),
        ("", ""),
    ],
)
def test_a_code_is_hidden_however_it_is_written(text: str, hidden: str) -> None:
    assert hide_codes(text, ["000000", "123456"]) == hidden


def test_without_codes_nothing_is_hidden() -> None:
    assert hide_codes("123456", []) == "123456"
