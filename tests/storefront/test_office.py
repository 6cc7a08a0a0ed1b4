"""Back office: orders, couriers, claims, calls, and serving a conversation."""

import pytest
from tests.support.shop import CODE, Shop
from tests.support.storefront import RunningStorefront, Shopper
from tests.support.website import plain_text

from gpt2flow.agent.shop import (
    CartLine,
    Case,
    CaseKind,
    Courier,
    Customer,
    CustomerSession,
    ExecutedAction,
    Order,
    OrderStatus,
    OutboxMessage,
    Shipment,
)

pytestmark = pytest.mark.process
PAGES = ["/office", "/office/orders/SO-1001", "/office/couriers", "/office/claims"]
PAGES += ["/office/calls", "/office/serve", "/office/orders/SO-1001/cancel"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_of_the_office_is_for_operators(stranger: Shopper, path: str) -> None:
    response = stranger.client.get(path)
    assert response.headers["location"].startswith("/office/sign-in?next=%2Foffice")


@pytest.mark.parametrize(
    "path", ["/orders/SO-1001/courier", "/orders/SO-1001/cancel", "/couriers/NW/pause", "/serve"]
)
def test_a_form_of_the_office_is_for_operators(shop: Shop, ann: Shopper, path: str) -> None:
    ann.order("umbrella")
    hidden = ann.forms("/account")["/account/name"]
    response = ann.client.post(f"/office{path}", data=hidden)
    assert response.headers["location"] == "/office/sign-in"
    assert shop.rows(Shipment) == []
    assert all(each.active for each in shop.rows(Courier))
    assert [each.status for each in shop.rows(Order)] == [OrderStatus.SUBMITTED]


@pytest.mark.parametrize("name", ["bot", None])
def test_a_token_of_nobody_opens_nothing(
    storefront: RunningStorefront, stranger: Shopper, name: str | None
) -> None:
    token = storefront.tokens.secrets[name] if name else "g2f_wrong"
    response = stranger.client.post("/office/sign-in", data={"token": token})
    assert response.status_code == 401
    assert "gpt2flow-office" not in stranger.client.cookies
    assert token not in response.text


def test_an_order_gets_a_courier_and_its_customer_the_details(
    shop: Shop, ann: Shopper, hal: Shopper
) -> None:
    number = ann.order("umbrella")
    path = f"/office/orders/{number}"
    assert number in hal.read("/office")
    assert "without a courier" in hal.read("/office")
    assert "This is not possible now" in hal.do(path, f"{path}/details")
    assert f"Order {number} has a courier." in hal.do(path, f"{path}/courier")
    [parcel] = shop.rows(Shipment)
    assert "This is not possible now" in hal.do(path, f"{path}/courier")
    page = plain_text(hal.do(path, f"{path}/details"))
    assert f"The delivery details of order {number} were sent to ann@example.com." in page
    assert parcel.tracking in page
    message = shop.rows(OutboxMessage)[-1]
    assert message.contact == "ann@example.com"
    assert parcel.tracking in message.text
    assert plain_text(ann.read(f"/orders/{number}")).count(parcel.tracking) == 1


def test_the_office_writes_to_a_customer_in_the_customers_language(
    shop: Shop, stranger: Shopper, hal: Shopper
) -> None:
    stranger.read("/?language=zh")
    stranger.do("/register", name="王芳", contact="13800138000")
    stranger.do("/code", code=CODE)
    path = f"/office/orders/{stranger.order('umbrella')}"
    hal.do(path, f"{path}/courier")
    hal.do(path, f"{path}/details")
    assert "运单号" in shop.rows(OutboxMessage)[-1].text


def test_the_office_cancels_an_order_and_its_customer_hears_of_it(
    shop: Shop, ann: Shopper, hal: Shopper
) -> None:
    number = ann.order("umbrella")
    page = hal.do(f"/office/orders/{number}/cancel")
    assert f"Order {number} is cancelled; ann@example.com was informed." in page
    message = shop.rows(OutboxMessage)[-1]
    assert (message.contact, message.session_id) == ("ann@example.com", "office-hal")
    assert [each.status for each in shop.rows(Order)] == [OrderStatus.CANCELLED]


def test_orders_without_a_courier_come_first(shop: Shop, ann: Shopper, hal: Shopper) -> None:
    numbers = [ann.order("umbrella") for _ in range(3)]
    for number in (numbers[0], numbers[2]):
        hal.do(f"/office/orders/{number}", f"/office/orders/{number}/courier")
    page = hal.read("/office")
    places = [page.index(f">{number}</a>") for number in (numbers[1], numbers[2], numbers[0])]
    assert places == sorted(places)
    assert len(shop.rows(Order)) == 3


def test_a_paused_courier_gets_no_parcels(shop: Shop, ann: Shopper, hal: Shopper) -> None:
    for code in ("BC", "HL", "NW"):
        hal.do("/office/couriers", f"/office/couriers/{code}/pause")
    assert not any(each.active for each in shop.rows(Courier))
    number = ann.order("umbrella")
    path = f"/office/orders/{number}"
    assert "No courier is active." in hal.do(path, f"{path}/courier")
    assert [each.kind for each in shop.rows(Case)] == [CaseKind.NO_COURIER]
    page = hal.do("/office/couriers", "/office/couriers/HL/resume")
    assert "Pause: Harbour Line" in page
    hal.do(path, f"{path}/courier")
    assert [each.courier_code for each in shop.rows(Shipment)] == ["HL"]


def test_claims_and_calls_are_listed_with_links_to_the_console(
    shop: Shop, ann: Shopper, hal: Shopper
) -> None:
    number = shop.order(delivered_days_ago=2)
    path = f"/orders/{number}/claim"
    ann.do(f"{path}?claim=return&reason=late", path)
    ann.do("/call", time="tomorrow at 3pm", details="")
    claims = plain_text(hal.read("/office/claims"))
    for shown in ("C-1", "Ann", number, "Return", "too late", "12.90", "approved"):
        assert shown in claims
    assert "Thursday 5 March 2026, 15:00 UTC" in plain_text(hal.read("/office/calls"))


def test_an_operator_acts_for_the_conversation_that_is_served(
    shop: Shop, storefront: RunningStorefront
) -> None:
    shop.log_in("chat-7")
    before = [entry["action"] for entry in past(shop, "chat-7")]
    with storefront.operator("hal", "chat-7") as hal:
        page = hal.read("/account")
        assert "Serving conversation chat-7" in page
        assert "ann@example.com" in page
        number = hal.order("umbrella")
        cookies = dict(hal.client.cookies)
        hal.do("/account", "/account/log-out")
        # It is the customer who logs out, and the browser is the operator's.
        assert dict(hal.client.cookies) == cookies
        assert "Serving conversation chat-7" in hal.read("/cart")
        hal.do("/account", "/office/stop")
        assert "Serving conversation" not in hal.read("/cart")
    [order] = shop.rows(Order)
    assert order.number == number
    keys = [each.key for each in shop.rows(ExecutedAction) if each.action == "confirm_order"]
    assert keys[0].startswith("web/chat-7/")
    # What an operator does is no deed of the customer.
    assert [entry["action"] for entry in past(shop, "chat-7")] == before


def past(shop: Shop, session: str) -> list[dict[str, object]]:
    [found] = [each for each in shop.rows(CustomerSession) if each.id == session]
    return found.past


def test_a_served_customer_gets_a_code_and_logs_in(
    shop: Shop, storefront: RunningStorefront
) -> None:
    shop.act("chat-7", "add_to_cart", product="umbrella")
    with storefront.operator("hal", "chat-7") as hal:
        hal.do("/register", name="Ann", contact="ann@example.com")
        hal.do("/code", code=CODE)
    assert [each.contact for each in shop.rows(Customer)] == ["ann@example.com"]
    assert "member" in shop.facts("chat-7")


def test_an_operator_who_serves_nobody_changes_no_cart(shop: Shop, hal: Shopper) -> None:
    page = hal.do("/products/umbrella", quantity="1")
    assert "Please serve a conversation first." in page
    assert shop.rows(CartLine) == []


def test_only_a_conversation_that_is_there_is_served(shop: Shop, hal: Shopper) -> None:
    page = hal.do("/office/serve", conversation="nobody")
    assert "There is no conversation “nobody”." in page
    assert "Serving conversation" not in page
    assert shop.rows(CustomerSession) == []


def test_two_operators_serve_two_conversations(shop: Shop, storefront: RunningStorefront) -> None:
    for session in ("chat-1", "chat-2"):
        shop.act(session, "greet")
    with (
        storefront.operator("hal", "chat-1") as hal,
        storefront.operator("ben", "chat-2") as ben,
    ):
        hal.do("/products/umbrella", quantity="1")
        ben.do("/products/desk-lamp", quantity="1")
    lines = sorted((line.session_id, line.sku) for line in shop.rows(CartLine))
    assert lines == [("chat-1", "umbrella"), ("chat-2", "desk-lamp")]


def test_a_signed_out_operator_serves_nobody(shop: Shop, hal: Shopper) -> None:
    shop.act("chat-7", "greet")
    hal.submit("/office/serve", conversation="chat-7")
    stolen = dict(hal.client.cookies)
    response = hal.submit("/office", "/office/sign-out")
    assert response.headers["location"] == "/office/sign-in"
    hal.client.cookies.update(stolen)
    assert hal.client.get("/office").status_code == 303
    assert "Serving conversation" not in hal.read("/cart")


def test_a_form_of_another_conversation_acts_for_none(shop: Shop, hal: Shopper) -> None:
    """Two tabs: one still shows the conversation that was served before."""
    for session in ("chat-1", "chat-2"):
        shop.act(session, "greet")
    hal.submit("/office/serve", conversation="chat-1")
    form = hal.forms("/products/umbrella")["/products/umbrella"]
    hal.submit("/office/serve", conversation="chat-2")
    response = hal.client.post("/products/umbrella", data={**form, "quantity": "1"})
    assert "The form has expired." in hal.read(response.headers["location"])
    hal.submit("/office", "/office/stop")
    hal.client.post("/products/umbrella", data={**form, "quantity": "1"})
    assert shop.rows(CartLine) == []


def test_an_operator_keeps_the_language_of_the_customer(
    shop: Shop, storefront: RunningStorefront
) -> None:
    shop.act("chat-7", "greet", message="你好")
    with storefront.operator("hal", "chat-7") as hal:
        page = hal.do("/register", name="王芳", contact="13800138000")
        assert "A code was sent to 13800138000." in page
        assert "验证码" in shop.rows(OutboxMessage)[-1].text
        hal.do("/code", code=CODE)
        hal.do("/account", "/account/name", name="王芳芳")
    assert [each.language for each in shop.rows(Customer)] == ["zh"]


def test_what_the_office_tries_in_vain_is_no_news_for_the_customer(
    shop: Shop, ann: Shopper, hal: Shopper
) -> None:
    number = ann.order("umbrella")
    path = f"/office/orders/{number}"
    hal.do(path, f"{path}/courier")
    shop.clock.forward(days=1)
    before = len(shop.rows(OutboxMessage))
    page = hal.do(f"{path}/cancel")
    assert f"Order {number} can no longer be cancelled." in page
    assert 'role="alert"' in page
    assert len(shop.rows(OutboxMessage)) == before
