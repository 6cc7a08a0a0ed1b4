"""Lists of cases and conversations."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import insert
from tests.support.console import Visitor, plain_text
from tests.support.desk import change, hand_over, large_refund
from tests.support.shop import Shop

from gpt2flow.agent.shop import Case, CaseKind, CaseStatus

pytestmark = pytest.mark.process


def numbers(page: str) -> list[str]:
    """Return the cases of a list, in order."""
    return re.findall(r'<th scope="row"><a href="/cases/(C-\d+)">', page)


def add_cases(shop: Shop, count: int) -> None:
    """Add refunds of 1.00, 2.00 and so on, oldest first."""
    start = shop.clock()
    rows = [
        {
            "kind": CaseKind.REFUND,
            "status": CaseStatus.AWAITING_APPROVAL,
            "amount": Decimal(number % 1000 + 1),
            "reason": "defective",
            "note": f"case {number}",
            "inbox_since": start + timedelta(minutes=number),
            "created_at": start + timedelta(minutes=number),
        }
        for number in range(count)
    ]
    with shop.database.transaction() as db:
        db.execute(insert(Case), rows)


def test_the_most_urgent_case_comes_first(shop: Shop, ben: Visitor) -> None:
    add_cases(shop, 4)
    change(shop, "C-3", urgency=2)
    change(shop, "C-2", status=CaseStatus.CLOSED)
    page = ben.read("/")
    assert numbers(page) == ["C-3", "C-1", "C-4"]
    assert "escalated" in page


def test_a_list_can_be_narrowed(shop: Shop, ben: Visitor) -> None:
    refund, conversation = large_refund(shop), hand_over(shop)
    assert numbers(ben.read("/?kind=hand_over")) == [conversation]
    assert numbers(ben.read("/?view=mine")) == []
    ben.submit(f"/cases/{refund}", "assign")
    assert numbers(ben.read("/?view=mine")) == [refund]
    ben.submit(f"/cases/{refund}", "approve")
    assert numbers(ben.read("/")) == [conversation]
    assert set(numbers(ben.read("/?view=all"))) == {refund, conversation}


def test_ten_thousand_cases_come_in_pages(shop: Shop, ben: Visitor) -> None:
    add_cases(shop, 10_000)
    first = ben.read("/")
    assert numbers(first) == [f"C-{number}" for number in range(1, 51)]
    assert "1–50 of 10000" in plain_text(first)
    assert 'rel="next" href="/?page=2"' in first
    last = ben.read("/?page=200")
    assert numbers(last) == [f"C-{number}" for number in range(9_951, 10_001)]
    assert 'rel="next"' not in last
    assert numbers(ben.read("/?page=201")) == []


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=99999999999999", "view=x", "kind=x", "page=²"]
)
def test_a_query_that_means_nothing_shows_the_inbox(shop: Shop, ben: Visitor, query: str) -> None:
    number = large_refund(shop)
    assert numbers(ben.read(f"/?{query}")) == [number]


@pytest.mark.parametrize(
    "text",
    ["human", "HUMAN", "Ann", "ann@example.com", "s", "SO-1001", "so-1001", "C-1", "c-2", ""],
)
def test_a_conversation_is_found(shop: Shop, ben: Visitor, text: str) -> None:
    assert is_found(shop, ben, text)


@pytest.mark.parametrize(
    "text", ["lamp", "%", "_", "hum_n", "SO-1002", "C-99", "C-999999999999", "' OR 1=1 --"]
)
def test_another_conversation_is_not_found(shop: Shop, ben: Visitor, text: str) -> None:
    assert not is_found(shop, ben, text)


def is_found(shop: Shop, visitor: Visitor, text: str) -> bool:
    """Return whether a search finds the only conversation."""
    large_refund(shop)
    hand_over(shop)
    response = visitor.client.get("/conversations", params={"q": text})
    assert response.status_code == 200
    return 'href="/conversations/s"' in response.text


def test_conversations_come_in_pages_latest_first(shop: Shop, ben: Visitor) -> None:
    for number in range(55):
        shop.clock.forward(minutes=1)
        shop.act(f"session {number}/ü", "greet")
    first = ben.read("/conversations")
    found = re.findall(r'href="/conversations/(session%20\d+)', first)
    assert found[:2] == ["session%2054", "session%2053"]
    assert len(found) == 50
    second = ben.read("/conversations?q=&page=2")
    assert len(re.findall(r'href="/conversations/session%20\d+', second)) == 5
    assert "Hello" in ben.read("/conversations/session%2054%2F%C3%BC")


def test_an_unknown_conversation_is_a_page_that_says_so(ben: Visitor) -> None:
    response = ben.client.get("/conversations/nobody")
    assert response.status_code == 404
    assert "there is no conversation nobody" in response.text


def test_the_language_is_the_browsers_until_one_is_chosen(ben: Visitor) -> None:
    assert "收件箱" in ben.client.get("/", headers={"Accept-Language": "zh-CN,en;q=0.8"}).text
    assert "Inbox" in ben.client.get("/", headers={"Accept-Language": "de, en;q=0.5"}).text
    response = ben.client.get("/language/zh?next=/conversations")
    assert response.headers["location"] == "/conversations"
    assert "对话" in ben.read("/conversations")
    ben.client.get("/language/en")
    assert "Conversations" in ben.read("/conversations")
    assert ben.client.get("/language/fr").status_code == 303
