"""Pictures of stopped screens, for the people who handle the case."""

import pytest
from tests.support.console import RunningConsole, Visitor, plain_text
from tests.support.desk import hand_over, large_refund
from tests.support.shop import CODE, Shop
from tests.support.stopped_screens import REASON, png, stopped

from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.turns.execution import Event, Task

pytestmark = pytest.mark.process


def test_a_picture_is_a_png_that_nothing_stores(shop: Shop, hal: Visitor) -> None:
    stopped(shop, picture=png(40))
    response = hal.client.get("/cases/C-1/pictures/1")
    assert (response.status_code, response.content) == (200, png(40))
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_picture_is_for_people_who_signed_in(shop: Shop, console: RunningConsole) -> None:
    stopped(shop, picture=png())
    with console.visitor() as stranger:
        response = stranger.client.get("/cases/C-1/pictures/1")
    assert response.status_code == 303
    assert response.headers["location"] == "/sign-in?next=%2Fcases%2FC-1%2Fpictures%2F1"
    assert not response.content


def test_a_picture_of_another_case_is_not_there(shop: Shop, ben: Visitor) -> None:
    stopped(shop, picture=png())
    number = large_refund(shop)
    assert number == "C-2"
    for path in ("C-2/pictures/1", "C-9/pictures/1", "C-1/pictures/2", "x/pictures/1"):
        response = ben.client.get(f"/cases/{path}")
        assert response.status_code == 404
        assert "There is no such page" in response.text
    assert "<img" not in ben.read("/cases/C-2")


@pytest.mark.parametrize("picture", ["0", "-1", "x", "１", "01", "9" * 10, "1.png", "1%00"])
def test_a_bad_id_is_a_page_that_says_so(shop: Shop, ben: Visitor, picture: str) -> None:
    stopped(shop, picture=png())
    response = ben.client.get(f"/cases/C-1/pictures/{picture}")
    assert response.status_code == 404
    assert "There is no such page" in response.text


def test_the_page_says_why_the_agent_stopped(shop: Shop, ben: Visitor) -> None:
    stopped(shop, picture=png())
    stopped(shop, picture=png())
    content = ben.read("/cases/C-1")
    page = plain_text(content)
    assert "Reason stopped at a screen" in page
    assert "stopped · agent" in page
    assert "Stop at a screen · 4 Mar 2026 10:30 UTC" in page
    assert page.count(REASON.replace('"', "&#34;")) == 6
    images = [part for part in content.split('"') if part.startswith("/cases/C-1/pictures/")]
    assert images[0] == "/cases/C-1/pictures/2"
    assert set(images) == {"/cases/C-1/pictures/1", "/cases/C-1/pictures/2"}
    assert "stopped at a screen" in plain_text(ben.read("/"))
    ben.client.cookies.set("gpt2flow-language", "zh")
    chinese = plain_text(ben.read("/cases/C-1"))
    for text in ("智能体停在页面上", "已停下 · agent", "停在页面上 ·", "截图"):
        assert text in chinese, text


def test_the_timeline_of_the_conversation_leads_to_the_picture(shop: Shop, ben: Visitor) -> None:
    hand_over(shop)
    stopped(shop, picture=png())
    stopped(shop)
    page = ben.read("/conversations/s")
    assert page.count('<a href="/cases/C-1/pictures/1">Picture in C-1</a>') == 1
    assert plain_text(page).count("Stop at a screen") == 2


def test_an_event_that_stopped_has_its_picture_too(shop: Shop, ben: Visitor) -> None:
    shop.log_in("s")
    event = Event("order_submitted", shop.order())
    task = Task("k", "s", event.subject, Choice("assign_courier"), event=event)
    error = ScreenStopped(f"expected {CODE}, found nothing", png())
    shop.executor.cases.report_stopped_screen(task, error)
    page = plain_text(ben.read("/cases/C-1"))
    assert "expected [code], found nothing" in page
    assert CODE not in page
    assert ben.client.get("/cases/C-1/pictures/1").content == png()
