"""Notices after forms: their owners, their fields, and floods."""

import pickle
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx
import pytest
from tests.support.shop import CODE, Shop
from tests.support.storefront import RunningStorefront, Shopper
from tests.support.website import Tokens, client_of, running_website

from gpt2flow.agent.shop import CartLine, CustomerSession
from gpt2flow.storefront.config import StorefrontConfig
from gpt2flow.storefront.process import new_server, open_site
from gpt2flow.storefront.site.notices import Notices
from gpt2flow.storefront.site.site import Site

Serving = Callable[[Notices], AbstractContextManager[tuple[Site, RunningStorefront]]]
Browsers = Literal["new", "named"]
pytestmark = pytest.mark.process
COOKIE = "gpt2flow-shop"
MOST = 3
FORM = {"content-type": "application/x-www-form-urlencoded"}
# Four bytes a character in memory, and nearly as large as a body may be.
LARGE = "name={0}&contact={0}&junk={0}&form=abcdefgh".format("😀" * 5000).encode()


@pytest.fixture
def serving(shop: Shop, database: Path, tokens: Tokens) -> Serving:
    """Function that serves the shop with notices that the test reads."""

    @contextmanager
    def serve(notices: Notices) -> Iterator[tuple[Site, RunningStorefront]]:
        config = StorefrontConfig(tokens=tokens.path, database=str(database), address="127.0.0.1:0")
        with open_site(config, shop.clock, lambda: CODE) as opened:
            site = replace(opened, notices=notices)
            with running_website(lambda: new_server(site)) as url:
                yield site, RunningStorefront(url, tokens)

    return serve


def flood(url: str, browsers: Browsers, count: int) -> None:
    """Send forms that are refused, each from another browser.

    Args:
        url: Address of the storefront.
        browsers: Whether they have no id, or choose one themselves.
        count: Number of forms.
    """
    for _ in range(count):
        with client_of(url) as client:
            if browsers == "named":
                client.cookies.set(COOKIE, f"web-{secrets.token_hex(16)}")
            response = client.post("/register", content=LARGE, headers=FORM)
            assert response.status_code == 303, response.text


def refused(shopper: Shopper, page: str, **typed: str) -> httpx.Response:
    """Send a form whose token is wrong."""
    return shopper.client.post(page, data={**shopper.forms(page)[page], **typed, "csrf": ""})


@pytest.mark.parametrize("browsers", ["new", "named"])
def test_a_flood_of_strangers_takes_no_notice_from_others(
    serving: Serving, browsers: Browsers
) -> None:
    with (
        serving(Notices(MOST)) as (_, storefront),
        storefront.shopper() as ann,
        storefront.operator("hal") as hal,
    ):
        ann.register()
        pages = {ann: "/products/umbrella", hal: "/office/serve"}
        for shopper, page in pages.items():
            refused(shopper, page)
        flood(storefront.url, browsers, 2 * MOST)
        for shopper, page in pages.items():
            assert "The form has expired." in shopper.read(page)
            assert "The form has expired." not in shopper.read(page)


def test_a_flood_of_customers_takes_no_notice_from_operators(shop: Shop, serving: Serving) -> None:
    with (
        serving(Notices(MOST)) as (_, storefront),
        storefront.operator("hal") as hal,
    ):
        refused(hal, "/office/serve")
        for _ in range(2 * MOST):
            with storefront.shopper() as shopper:
                shopper.submit("/products/umbrella", quantity="1")
        assert "The form has expired." in hal.read("/office/serve")
    assert len(shop.rows(CustomerSession)) == 2 * MOST


@pytest.mark.parametrize(
    "browsers, most_bytes",
    # Of a browser with an id, the page shows two fields of 1,000 characters again.
    [("new", 1_000), ("named", 2 * 4 * 1_000 + 1_000)],
)
def test_a_flood_needs_little_memory(serving: Serving, browsers: Browsers, most_bytes: int) -> None:
    count = 20
    with serving(Notices()) as (site, storefront):
        flood(storefront.url, browsers, count)
        kept = len(pickle.dumps(site.notices))
    assert 50 * count < kept < most_bytes * count


def test_there_is_one_notice_for_an_owner(serving: Serving) -> None:
    with (
        serving(Notices()) as (site, storefront),
        storefront.shopper() as ann,
    ):
        # The first is that of a stranger, and the last that of a customer.
        for quantity in ("none", "no", "1"):
            ann.submit("/products/umbrella", quantity=quantity)
        owner = ann.client.cookies[COOKIE]
        first, second = site.notices.take(owner), site.notices.take(owner)
    assert first is not None
    assert "Added 1 × umbrella" in first.text
    assert second is None


@pytest.mark.parametrize(
    "page, typed, shown",
    [
        ("/register", {"name": "Ann", "contact": "none"}, {"name": "Ann", "contact": "none"}),
        ("/sign-in", {"contact": "none", "name": "Ann"}, {"contact": "none"}),
        ("/products/umbrella", {"quantity": "x" * 1_500}, {"quantity": "x" * 1_000}),
        ("/office/sign-in", {"token": "secret"}, {}),
    ],
)
def test_only_the_fields_of_the_page_are_kept(
    serving: Serving, page: str, typed: dict[str, str], shown: dict[str, str]
) -> None:
    with (
        serving(Notices()) as (site, storefront),
        storefront.shopper() as ann,
    ):
        ann.submit("/products/umbrella", quantity="1")
        owner = ann.client.cookies[COOKIE]
        site.notices.take(owner)
        ann.submit(page, junk="junk", **typed)
        notice = site.notices.take(owner)
    assert (dict(notice.typed) if notice else {}) == shown


def test_nothing_is_kept_of_what_a_new_browser_typed(shop: Shop, stranger: Shopper) -> None:
    page = stranger.do("/products/umbrella", quantity="none")
    assert 'role="alert"' in page
    assert 'value="none"' not in page
    # The answer gave it an id, so that the next page knows what it typed.
    assert 'value="none"' in stranger.do("/products/umbrella", quantity="none")
    assert shop.rows(CartLine) == []
