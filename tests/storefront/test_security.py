"""Forms, cookies and sessions that somebody tampers with."""

import html
import http.client
import re
import threading
from pathlib import Path

import httpx
import pytest
from tests.support.shop import Shop
from tests.support.storefront import RunningStorefront, Shopper, running_storefront
from tests.support.website import Tokens, new_tls_files

from gpt2flow.agent.shop import (
    CartLine,
    CustomerSession,
    ExecutedAction,
    Order,
    OrderStatus,
    OutboxMessage,
)

pytestmark = pytest.mark.process
COOKIE = "gpt2flow-shop"
SCRIPT = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"


def test_a_page_gives_no_cookie_and_the_first_form_does(stranger: Shopper) -> None:
    stranger.read("/")
    stranger.read("/cart")
    assert dict(stranger.client.cookies) == {}
    response = stranger.submit("/products/umbrella", quantity="1")
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert len(stranger.client.cookies[COOKIE]) == len("web-") + 32


@pytest.mark.parametrize(
    "forged", ["chat-7", "web-1", "web-" + "g" * 32, "web-" + "A" * 32, "office-hal", "", "web-%"]
)
def test_a_cookie_takes_no_conversation_of_another_channel(
    shop: Shop, stranger: Shopper, forged: str
) -> None:
    shop.log_in("chat-7")
    shop.act("web-1", "add_to_cart", product="umbrella")
    stranger.client.cookies.set(COOKIE, forged)
    assert "Your cart is empty." in stranger.read("/cart")
    assert "You are not logged in." in stranger.read("/account")
    stranger.do("/products/desk-lamp", quantity="1")
    assert {line.sku for line in shop.rows(CartLine) if line.session_id in {"chat-7", "web-1"}} == {
        "umbrella"
    }


def test_a_guessed_session_sees_nothing(storefront: RunningStorefront, ann: Shopper) -> None:
    number = ann.order("umbrella")
    with storefront.shopper() as guesser:
        guesser.client.cookies.set(COOKIE, "web-" + "0" * 32)
        assert guesser.client.get(f"/orders/{number}").status_code == 303
        assert "You are not logged in." in guesser.read("/account")


@pytest.mark.parametrize("part", ["", "/cancel", "/claim?claim=refund&reason=damaged"])
def test_another_customers_order_is_not_there(
    shop: Shop, storefront: RunningStorefront, ann: Shopper, part: str
) -> None:
    number = ann.order("umbrella")
    with storefront.shopper() as bob:
        bob.register("Bob", "bob@example.com")
        response = bob.client.get(f"/orders/{number}{part}")
        assert response.status_code == 404
        assert "umbrella" not in response.text
        assert bob.client.get("/orders/SO-9999").status_code == 404
    assert [each.status for each in shop.rows(Order)] == [OrderStatus.SUBMITTED]


@pytest.mark.parametrize("part", ["cancel", "address", "arrived", "claim"])
def test_a_form_for_another_customers_order_changes_nothing(
    shop: Shop, storefront: RunningStorefront, ann: Shopper, part: str
) -> None:
    number = ann.order("umbrella")
    with storefront.shopper() as bob:
        bob.register("Bob", "bob@example.com")
        fields = {"address": "9 Ash Way", "claim": "refund", "reason": "late", "details": ""}
        hidden = bob.forms("/account")["/account/name"]
        response = bob.client.post(f"/orders/{number}/{part}", data={**hidden, **fields})
        assert response.status_code == 404
    [order] = shop.rows(Order)
    assert (order.status, order.address) == (OrderStatus.SUBMITTED, "5 Oak Rd")


@pytest.mark.parametrize("number", ["SO-0", "SO--1", "1001", "SO-1e3", "SO-99999999999", "'"])
def test_a_number_that_is_none_is_not_found(ann: Shopper, number: str) -> None:
    assert ann.client.get(f"/orders/{number}").status_code == 404


@pytest.mark.parametrize("csrf", ["", "0" * 64, None])
def test_a_form_without_its_token_changes_nothing(
    shop: Shop, ann: Shopper, csrf: str | None
) -> None:
    hidden = dict(ann.forms("/products/umbrella")["/products/umbrella"])
    del hidden["csrf"]
    fields = hidden | ({"csrf": csrf} if csrf is not None else {}) | {"quantity": "7"}
    response = ann.client.post("/products/umbrella", data=fields)
    page = ann.read(response.headers["location"])
    assert "The form has expired." in page
    # What was typed is still there.
    assert 'value="7"' in page
    assert shop.rows(CartLine) == []


def test_a_form_of_another_customer_changes_nothing(
    shop: Shop, storefront: RunningStorefront, ann: Shopper
) -> None:
    with storefront.shopper() as bob:
        bob.register("Bob", "bob@example.com")
        form = bob.forms("/products/umbrella")["/products/umbrella"]
    ann.client.post("/products/umbrella", data={**form, "quantity": "1"})
    assert shop.rows(CartLine) == []


def test_a_form_of_nobody_changes_nothing_for_a_customer(
    shop: Shop, storefront: RunningStorefront, ann: Shopper
) -> None:
    with storefront.shopper() as nobody:
        form = nobody.forms("/products/umbrella")["/products/umbrella"]
    ann.client.post("/products/umbrella", data={**form, "quantity": "1"})
    assert shop.rows(CartLine) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_request_from_another_site_is_refused(
    shop: Shop, stranger: Shopper, headers: dict[str, str]
) -> None:
    form = stranger.forms("/products/umbrella")["/products/umbrella"]
    response = stranger.client.post(
        "/products/umbrella", data={**form, "quantity": "1"}, headers=headers
    )
    assert response.status_code == 403
    assert shop.rows(CustomerSession) == []


def test_a_foreign_name_is_refused(stranger: Shopper) -> None:
    assert stranger.client.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_no_link_leads_to_the_host_in_a_path(storefront: RunningStorefront) -> None:
    connection = http.client.HTTPConnection(storefront.url.removeprefix("http://"))
    for path in ("//evil.example/x", "//evil.example/x?q=1", "//evil.example/%2e%2e/office"):
        # A client with a URL of its own would not send this path.
        connection.request("GET", path)
        response = connection.getresponse()
        page = response.read().decode()
        assert response.status == 404
        assert "//evil.example" not in page.replace('name="back" value="//evil.example', "")
        assert re.search(r'href="\?[^"]*language=zh"', page)
    connection.close()


def test_the_links_of_languages_keep_page_and_query(stranger: Shopper) -> None:
    page = stranger.read("/?q=kettle&language=en")
    [link] = re.findall(r'href="([^"]*)" lang="zh-Hans"', page)
    address = stranger.client.get("/?q=kettle").url.join(html.unescape(link))
    assert (address.path, dict(address.params)) == ("/", {"q": "kettle", "language": "zh"})
    assert "搜索" in stranger.read(str(address))


def test_every_answer_forbids_scripts_of_others(stranger: Shopper) -> None:
    for path in ("/", "/nowhere", "/office", "/account"):
        headers = stranger.client.get(path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/files/..%2Fapp.py", "/files/app.py", "/files/", "/nowhere"])
def test_other_files_are_not_served(stranger: Shopper, path: str) -> None:
    response = stranger.client.get(path)
    assert response.status_code == 404
    assert "This did not work" in response.text


def test_what_customers_type_is_text(shop: Shop, ann: Shopper, hal: Shopper) -> None:
    ann.do("/account", "/account/name", name=SCRIPT)
    number = ann.order("umbrella", address=f"1 {SCRIPT}")
    pages = [ann.read(path) for path in ("/", "/account", "/orders", f"/orders/{number}")]
    pages += [ann.read(f"/?q={SCRIPT}"), ann.read(f"/account?language={SCRIPT}")]
    pages += [hal.read("/office"), hal.read(f"/office/orders/{number}")]
    for page in pages:
        assert "<script>document" not in page
        assert "<img" not in page
    assert sum("&lt;script&gt;" in page for page in pages) >= 6
    assert shop.rows(Order)[0].address == f"1 {SCRIPT}"


@pytest.mark.parametrize("form", ["", "x", "a/b" * 9, "<b>" * 9, "é" * 20])
def test_a_form_needs_the_id_that_it_was_given(shop: Shop, ann: Shopper, form: str) -> None:
    hidden = ann.forms("/products/umbrella")["/products/umbrella"]
    fields = {**hidden, "form": form, "quantity": "1"}
    assert ann.client.post("/products/umbrella", data=fields).status_code == 400
    assert shop.rows(CartLine) == []


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"csrf=%ff", b"&".join([b"a=1"] * 60), b"x" * 70_000]
)
def test_a_body_that_is_no_form_is_refused(ann: Shopper, body: bytes) -> None:
    response = ann.client.post("/products/umbrella", content=body)
    assert response.status_code in {400, 413}
    assert "Traceback" not in response.text


@pytest.mark.parametrize("text", ["x" * 1001, "a\x00b", "\u202eevil"])
def test_a_text_that_cannot_be_an_address_is_refused(shop: Shop, ann: Shopper, text: str) -> None:
    ann.do("/products/umbrella", quantity="1")
    assert 'role="alert"' in ann.do("/checkout", address=text)
    assert [each.action for each in shop.rows(ExecutedAction)][-1] == "add_to_cart"


def test_a_form_that_is_sent_twice_acts_once(shop: Shop, ann: Shopper) -> None:
    ann.do("/products/umbrella", quantity="1")
    ann.do("/checkout", address="5 Oak Rd")
    form = ann.forms("/checkout/review")["/checkout/confirm"]
    answers = [ann.client.post("/checkout/confirm", data=form) for _ in range(3)]
    assert len({answer.headers["location"] for answer in answers}) == 1
    page = ann.read(answers[0].headers["location"])
    assert "is submitted" in page
    assert "This form was sent before" in page
    assert len(shop.rows(Order)) == 1


def test_a_form_that_is_sent_many_times_at_once_acts_once(shop: Shop, ann: Shopper) -> None:
    form = {**ann.forms("/products/umbrella")["/products/umbrella"], "quantity": "1"}
    cookies = dict(ann.client.cookies)

    def send() -> None:
        url = ann.client.base_url
        with httpx.Client(base_url=url, cookies=cookies, trust_env=False, timeout=60) as client:
            assert client.post("/products/umbrella", data=form).status_code == 303

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.quantity for line in shop.rows(CartLine)] == [1]


def test_a_form_that_is_sent_again_after_a_restart_acts_once(
    shop: Shop, database: Path, tokens: Tokens
) -> None:
    with running_storefront(database, tokens, shop.clock) as first, first.shopper() as ann:
        ann.register()
        ann.do("/products/umbrella", quantity="1")
        ann.do("/checkout", address="5 Oak Rd")
        form = ann.forms("/checkout/review")["/checkout/confirm"]
        fresh = ann.forms("/products/umbrella")["/products/umbrella"]
        ann.client.post("/checkout/confirm", data=form)
        cookies = dict(ann.client.cookies)
    [order] = shop.rows(Order)
    with running_storefront(database, tokens, shop.clock) as second, second.shopper() as ann:
        ann.client.cookies.update(cookies)
        response = ann.client.post("/checkout/confirm", data=form)
        assert response.headers["location"] == f"/orders/{order.number}"
        page = ann.read(response.headers["location"])
        assert f"Order {order.number} is submitted" in page
        assert "This form was sent before" in page
        # One that has not acted yet is not carried out by a process that did not write it.
        response = ann.client.post("/products/umbrella", data={**fresh, "quantity": "4"})
        page = ann.read(response.headers["location"])
        assert "The form has expired." in page
        assert 'value="4"' in page
    assert (len(shop.rows(Order)), shop.rows(CartLine)) == (1, [])


def test_a_code_that_was_sent_twice_sends_one_message(shop: Shop, stranger: Shopper) -> None:
    form = stranger.forms("/register")["/register"]
    fields = {**form, "name": "Ann", "contact": "ann@example.com"}
    stranger.client.post("/register", data=fields)
    stranger.client.post("/register", data=fields)
    assert len(shop.rows(OutboxMessage)) == 1


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"]
)
def test_a_login_leads_to_no_other_site(stranger: Shopper, target: str) -> None:
    stranger.do("/register", name="Ann", contact="ann@example.com")
    response = stranger.submit("/code", code="123456", next=target)
    assert response.headers["location"] == "/"


def test_over_tls_the_cookies_belong_to_this_host(
    shop: Shop, database: Path, tokens: Tokens, tmp_path: Path
) -> None:
    files = new_tls_files(tmp_path)
    with (
        running_storefront(database, tokens, shop.clock, **files.settings) as storefront,
        files.client(storefront.url) as client,
    ):
        shopper = Shopper(client)
        response = shopper.submit("/products/umbrella", quantity="1")
        assert response.headers["set-cookie"].startswith("__Host-gpt2flow-shop=web-")
        assert "; Secure" in response.headers["set-cookie"]
        response = client.post("/office/sign-in", data={"token": tokens.secrets["hal"]})
        assert response.headers["set-cookie"].startswith("__Host-gpt2flow-office=")
        assert response.headers["strict-transport-security"]
