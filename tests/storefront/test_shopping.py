"""Customers who shop: search, cart, account, checkout, orders."""

import pytest
from tests.support.shop import CODE, Shop
from tests.support.storefront import RunningStorefront, Shopper
from tests.support.website import plain_text

from gpt2flow.agent.shop import (
    CartLine,
    Case,
    CaseKind,
    CaseStatus,
    Customer,
    CustomerSession,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    PaymentStatus,
    Product,
    Verification,
)

pytestmark = pytest.mark.process
COOKIE = "gpt2flow-shop"


def deliver(shop: Shop, number: str) -> None:
    """Let an order arrive, as its customer reports."""
    [session] = [each.id for each in shop.rows(CustomerSession) if each.customer_id]
    shop.act(session, "confirm_delivery", order=number)


def test_a_customer_registers_orders_and_sees_the_order(shop: Shop, stranger: Shopper) -> None:
    assert "Added 2 × umbrella" in stranger.do("/products/umbrella", quantity="2")
    assert stranger.client.get("/checkout").headers["location"] == "/sign-in?next=/checkout"
    page = stranger.do("/register", name="Ann", contact="Ann@Example.com")
    assert "A code was sent to ann@example.com." in page
    assert CODE not in page
    assert "Thank you, Ann, you are logged in." in stranger.do("/code", code="123 456")
    review = plain_text(stranger.do("/checkout", address="5 Oak Rd"))
    assert "25.80" in review
    assert "5 Oak Rd" in review
    page = stranger.do("/checkout/review", "/checkout/confirm")
    [order] = shop.rows(Order)
    assert f"Order {order.number} is submitted" in page
    assert order.status is OrderStatus.SUBMITTED
    assert [payment.status for payment in shop.rows(Payment)] == [PaymentStatus.PAID]
    assert shop.rows(CartLine) == []
    assert order.number in stranger.read("/orders")


def test_a_code_goes_to_its_contact_and_to_no_page(shop: Shop, stranger: Shopper) -> None:
    pages = stranger.do("/register", name="Ann", contact="ann@example.com")
    pages += stranger.read("/account") + stranger.read("/code")
    [message] = shop.rows(OutboxMessage)
    assert CODE in message.text
    assert (message.contact, message.key.split("/")[0]) == ("ann@example.com", "web")
    assert CODE not in pages


def test_the_page_of_a_code_says_where_it_went_and_until_when(
    shop: Shop, stranger: Shopper
) -> None:
    stranger.do("/register", name="Ann", contact="ann@example.com")
    page = plain_text(stranger.read("/code"))
    assert "A code was sent to ann@example.com." in page
    assert "10:30:00 UTC" in page
    assert "10:45:00 UTC" in page
    # Nothing on it changes with time alone: a program compares the page before and after a step.
    shop.clock.forward(hours=2)
    assert plain_text(stranger.read("/code")) == page
    shop.clock.forward(hours=-2)
    shop.clock.forward(seconds=7)
    assert "A new code was sent" in stranger.do("/code", "/code/resend")
    page = plain_text(stranger.read("/code"))
    assert "10:30:07 UTC" in page
    stranger.do("/code", "/code/contact", contact="138 0013 8000")
    assert [each.contact for each in shop.rows(Verification)] == ["13800138000"]


def test_a_login_comes_back_to_the_page_that_was_wanted(
    storefront: RunningStorefront, shop: Shop, ann: Shopper
) -> None:
    number = ann.order("umbrella")
    with storefront.shopper() as other:
        address = other.client.get(f"/orders/{number}").headers["location"]
        assert address == f"/sign-in?next=%2Forders%2F{number}"
        other.do(address, "/sign-in", contact="ann@example.com")
        page = other.do(f"/code?next=%2Forders%2F{number}", "/code", code=CODE)
        assert f"Order {number}" in page
    assert len(shop.rows(Customer)) == 1


@pytest.mark.parametrize(
    "code, words", [("654321", "That code is not right"), ("12345", "A code has six digits")]
)
def test_a_wrong_code_logs_nobody_in(shop: Shop, stranger: Shopper, code: str, words: str) -> None:
    stranger.do("/register", name="Ann", contact="ann@example.com")
    page = stranger.do("/code", code=code)
    assert words in page
    assert 'role="alert"' in page
    assert shop.rows(Customer) == []
    # A robot that did not see the answer reads whether the code was tried.
    assert ("Wrong codes 1 of at most 5" in plain_text(stranger.read("/code"))) == (
        len(code) == len(CODE)
    )


def test_an_unknown_contact_is_asked_to_register(shop: Shop, stranger: Shopper) -> None:
    page = stranger.do("/sign-in", contact="nobody@example.com")
    assert "There is no account for nobody@example.com" in page
    assert 'value="nobody@example.com"' in page
    assert shop.rows(OutboxMessage) == []


def test_a_customer_changes_the_name_and_logs_out(shop: Shop, ann: Shopper) -> None:
    assert "corrected your name to Anna" in ann.do("/account", "/account/name", name="Anna")
    assert [each.name for each in shop.rows(Customer)] == ["Anna"]
    page = ann.do("/account", "/account/log-out")
    assert "You are logged out" in page
    assert "Hello" not in page


def test_the_next_person_at_a_browser_is_somebody_else(shop: Shop, ann: Shopper) -> None:
    ann.do("/products/umbrella", quantity="1")
    before, form = dict(ann.client.cookies), ann.forms("/account")["/account/log-out"]
    ann.client.post("/account/log-out", data=form)
    after = dict(ann.client.cookies)
    assert after != before
    page = ann.read("/cart")
    assert "You are logged out" in page
    assert "Your cart is empty." in page
    ann.register("Bob", "bob@example.com")
    assert dict(ann.client.cookies) == after
    customers = {each.id: each.customer_id for each in shop.rows(CustomerSession)}
    assert customers[before[COOKIE]] is None
    assert customers[after[COOKIE]] is not None
    # The button was pressed twice: the second answer is the browser's last.
    ann.client.cookies.clear()
    headers = {"cookie": f"{COOKIE}={before[COOKIE]}"}
    ann.client.post("/account/log-out", data=form, headers=headers)
    assert ann.client.cookies[COOKIE] not in {before[COOKIE], after[COOKIE]}
    assert "You are logged out" in ann.read("/account")


def test_a_log_out_in_vain_leaves_the_browser_its_id(shop: Shop, stranger: Shopper) -> None:
    stranger.do("/products/umbrella", quantity="1")
    before = dict(stranger.client.cookies)
    hidden = stranger.forms("/sign-in")["/sign-in"]
    stranger.client.post("/account/log-out", data=hidden)
    assert "This is not possible now" in stranger.read("/cart")
    assert dict(stranger.client.cookies) == before
    assert [line.session_id for line in shop.rows(CartLine)] == [before[COOKIE]]


def test_a_review_without_a_summary_tells_declined_from_ordered(
    stranger: Shopper, ann: Shopper
) -> None:
    def review(shopper: Shopper) -> str:
        target: str = shopper.client.get("/checkout/review").headers["location"]
        return target

    assert review(stranger) == "/cart"
    stranger.do("/products/umbrella", quantity="1")
    assert review(stranger) == "/checkout"
    ann.do("/products/umbrella", quantity="1")
    assert review(ann) == "/checkout"
    ann.do("/checkout", address="5 Oak Rd")
    assert ann.client.get("/checkout/review").status_code == 200
    ann.do("/checkout/review", "/checkout/decline")
    assert review(ann) == "/checkout"
    ann.order("desk-lamp")
    assert review(ann) == "/cart"


def test_the_name_of_a_registration_is_corrected(stranger: Shopper) -> None:
    stranger.do("/register", name="Anm", contact="ann@example.com")
    stranger.do("/account", "/account/name", name="Ann")
    assert "Hello, Ann" in stranger.do("/code", code=CODE)


@pytest.mark.parametrize(
    "words, found",
    [
        ("kettle", ["electric kettle"]),
        ("ketle", ["electric kettle"]),
        ("电热水壶", ["electric kettle"]),
        ("cable", ["usb cable"]),
    ],
)
def test_the_search_takes_typos_and_both_languages(
    stranger: Shopper, words: str, found: list[str]
) -> None:
    page = stranger.read(f"/?q={words}")
    for name in found:
        assert f">{name}</a>" in page
    assert "picture frame" not in page


def test_a_search_without_a_hit_shows_the_closest_products(stranger: Shopper) -> None:
    page = stranger.read("/?q=grand+piano")
    assert "We have nothing that fits “grand piano”." in page
    assert page.count('href="/products/') == 3


def test_the_cart_is_changed_and_emptied(shop: Shop, stranger: Shopper) -> None:
    stranger.do("/products/umbrella", quantity="1")
    page = stranger.do("/cart", "/cart/update", quantity="3")
    assert "umbrella: 3 now" in page
    assert [line.quantity for line in shop.rows(CartLine)] == [3]
    page = stranger.do("/cart", "/cart/remove")
    assert "Removed umbrella" in page
    assert "Your cart is empty." in page


@pytest.mark.parametrize(
    "quantity, words",
    [
        ("0", "must be a whole number from 1"),
        ("-1", "must be a whole number from 1"),
        ("1.5", "must be a whole number from 1"),
        ("²", "must be a whole number from 1"),
        ("", "must be a whole number from 1"),
        ("51", "between 1 and 50"),
        ("999999", "between 1 and 50"),
    ],
)
def test_a_quantity_that_cannot_be_is_refused(
    shop: Shop, stranger: Shopper, quantity: str, words: str
) -> None:
    page = stranger.do("/products/umbrella", quantity=quantity)
    assert words in page
    assert 'role="alert"' in page
    assert shop.rows(CartLine) == []


def test_a_sold_out_product_cannot_be_added(shop: Shop, stranger: Shopper) -> None:
    assert "sold out" in stranger.read("/products/winter-jacket")
    assert "out of stock" in stranger.do("/products/winter-jacket", quantity="1")
    assert shop.rows(CartLine) == []


def test_a_changed_cart_has_to_be_reviewed_again(shop: Shop, ann: Shopper) -> None:
    ann.do("/products/umbrella", quantity="1")
    ann.do("/checkout", address="5 Oak Rd")
    ann.do("/products/desk-lamp", quantity="1")
    page = plain_text(ann.do("/checkout/review", "/checkout/confirm"))
    assert "Your order has changed" in page
    assert "Review order" in page
    assert "37.40" in page
    assert shop.rows(Order) == []
    assert "is submitted" in ann.do("/checkout/review", "/checkout/confirm")


def test_an_order_is_declined_and_the_cart_stays(shop: Shop, ann: Shopper) -> None:
    ann.do("/products/umbrella", quantity="1")
    ann.do("/checkout", address="5 Oak Rd")
    assert "I have not submitted it" in ann.do("/checkout/review", "/checkout/decline")
    assert (len(shop.rows(CartLine)), shop.rows(Order)) == (1, [])


def test_the_last_address_is_filled_in(ann: Shopper) -> None:
    ann.order("umbrella", address="7 Elm St")
    ann.do("/products/umbrella", quantity="1")
    assert 'value="7 Elm St"' in ann.read("/checkout")


def test_an_order_is_cancelled_and_paid_back(shop: Shop, ann: Shopper) -> None:
    number = ann.order("umbrella")
    assert f"Shall order {number} be cancelled?" in ann.read(f"/orders/{number}/cancel")
    page = ann.do(f"/orders/{number}/cancel")
    assert f"Order {number} is cancelled" in page
    assert [each.kind for each in shop.rows(Payment)] == ["charge", "refund"]
    [stock] = [each.stock for each in shop.rows(Product) if each.sku == "umbrella"]
    assert stock == 90


def test_an_address_is_changed_until_the_parcel_leaves(shop: Shop, ann: Shopper) -> None:
    number = ann.order("umbrella")
    path = f"/orders/{number}"
    assert f"Order {number} will go to 9 Ash Way" in ann.do(
        path, f"{path}/address", address="9 Ash Way"
    )
    deliver(shop, number)
    page = ann.do(path, f"{path}/arrived")
    assert "I have noted what you say" in page
    assert [each.kind for each in shop.rows(Case)] == [CaseKind.DELIVERY_REPORT] * 2


def test_a_claim_is_reviewed_and_sent(shop: Shop, ann: Shopper) -> None:
    number = shop.order(delivered_days_ago=2, sku="rice-cooker", quantity=5)
    path = f"/orders/{number}"
    query = "claim=refund&reason=damaged&details=the+lid+is+cracked"
    review = plain_text(ann.read(f"{path}/claim?{query}"))
    for shown in (number, "Refund", "it came damaged", "295.00", "the lid is cracked"):
        assert shown in review
    page = ann.do(f"{path}/claim?{query}", f"{path}/claim")
    assert "approval (case C-1)" in page
    [case] = shop.rows(Case)
    assert (case.status, case.reason) == (CaseStatus.AWAITING_APPROVAL, "damaged")
    assert case.note == "the lid is cracked"
    assert "C-1 · Refund · waiting for approval" in ann.read(path)


@pytest.mark.parametrize(
    "query, words",
    [
        ("claim=money&reason=damaged", "Please choose a claim."),
        ("claim=refund&reason=", "Please choose a reason."),
        ("", "Please choose a claim."),
    ],
)
def test_a_claim_needs_its_kind_and_its_reason(
    shop: Shop, ann: Shopper, query: str, words: str
) -> None:
    number = shop.order(delivered_days_ago=2)
    assert words in ann.read(f"/orders/{number}/claim?{query}")
    assert shop.rows(Case) == []


def test_a_call_is_asked_for_in_words(shop: Shop, ann: Shopper) -> None:
    page = ann.do("/call", time="whenever", details="")
    assert "I could not tell when “whenever” is" in page
    assert 'value="whenever"' in page
    page = plain_text(ann.do("/call", time="tomorrow at 3pm", details="about my order"))
    assert "Thursday 5 March 2026, 15:00 UTC · planned" in page
    [case] = shop.rows(Case)
    assert (case.kind, case.note) == (CaseKind.FOLLOW_UP, "about my order")


@pytest.mark.parametrize("page", ["/checkout", "/orders", "/call", "/orders/SO-1001"])
def test_a_page_of_customers_asks_who_it_is(stranger: Shopper, page: str) -> None:
    assert stranger.client.get(page).headers["location"].startswith("/sign-in?next=")


def test_what_is_not_possible_now_changes_nothing(shop: Shop, stranger: Shopper) -> None:
    hidden = stranger.forms("/sign-in")["/sign-in"]
    response = stranger.client.post("/account/log-out", data=hidden)
    assert "This is not possible now" in stranger.read(response.headers["location"])
    assert shop.rows(CustomerSession) == []


def test_the_agent_learns_what_was_done_on_the_pages(shop: Shop, stranger: Shopper) -> None:
    stranger.do("/products/umbrella", quantity="2")
    [session] = shop.rows(CustomerSession)
    assert session.past[-1]["action"] == "add_to_cart"
    assert session.past[-1]["arguments"] == {"product": "umbrella", "quantity": 2}
    assert session.focus_sku == "umbrella"
    assert shop.rows(OutboxMessage) == []


def test_questions_are_answered(stranger: Shopper) -> None:
    page = plain_text(stranger.read("/help"))
    assert "Goods can be returned or refunded within 30 days of delivery" in page


def test_pages_and_messages_are_in_the_language_that_was_chosen(
    shop: Shop, stranger: Shopper
) -> None:
    assert "加入购物车" in stranger.read("/products/umbrella?language=zh")
    page = stranger.do("/products/umbrella", quantity="2")
    assert "已加入购物车: 雨伞 × 2" in page
    assert 'lang="zh-Hans"' in page
    stranger.do("/register", name="王芳", contact="13800138000")
    assert "验证码" in shop.rows(OutboxMessage)[-1].text
    stranger.do("/code", code=CODE)
    assert [each.language for each in shop.rows(Customer)] == ["zh"]
    page = plain_text(stranger.do("/call", time="明天下午三点", details=""))
    assert "2026年3月5日星期四 15:00 UTC" in page


def test_a_browsers_language_counts_until_one_is_chosen(stranger: Shopper) -> None:
    stranger.client.headers["accept-language"] = "zh-CN,zh;q=0.9"
    assert "购物车" in stranger.read("/cart")
    assert "Your cart is empty." in stranger.read("/cart?language=en")
    assert "Your cart is empty." in stranger.read("/cart")
