"""Ways in which pages change on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.shop import Shop
from tests.support.storefront import RunningStorefront, running_storefront
from tests.support.website import Tokens

from gpt2flow.agent.shop import CartLine, Checkout, Order

pytestmark = pytest.mark.process


@contextmanager
def disturbed(
    shop: Shop, database: Path, tokens: Tokens, *ways: str, seconds: float = 1.0
) -> Iterator[RunningStorefront]:
    with running_storefront(
        database, tokens, shop.clock, disturb=ways, disturb_seconds=seconds
    ) as running:
        yield running


@pytest.mark.parametrize(
    "language, names",
    [
        ("en", {"Add to cart": "Into the basket", "Place order": "Buy now"}),
        ("zh", {"加入购物车": "放进篮子", "提交订单": "立即购买"}),
    ],
)
def test_labels_are_renamed(
    shop: Shop, database: Path, tokens: Tokens, language: str, names: dict[str, str]
) -> None:
    with (
        disturbed(shop, database, tokens, "renamed-label") as storefront,
        storefront.shopper() as ann,
    ):
        ann.register()
        pages = [ann.read(f"/products/umbrella?language={language}")]
        ann.do("/products/umbrella", quantity="1")
        pages.append(ann.do("/checkout", address="5 Oak Rd"))
    for page, (before, name) in zip(pages, names.items(), strict=True):
        assert f">{name}</button>" in page
        assert f">{before}</button>" not in page


def test_fields_and_buttons_are_moved_and_still_work(
    shop: Shop, database: Path, tokens: Tokens
) -> None:
    with (
        disturbed(shop, database, tokens, "moved-fields") as storefront,
        storefront.shopper() as ann,
    ):
        page = ann.read("/register")
        places = [page.index(part) for part in (">Send code<", 'name="contact"', 'name="name"')]
        assert places == sorted(places)
        ann.register()
        ann.order("umbrella")
    assert len(shop.rows(Order)) == 1


def test_a_question_has_to_be_answered(shop: Shop, database: Path, tokens: Tokens) -> None:
    with (
        disturbed(shop, database, tokens, "extra-question") as storefront,
        storefront.shopper() as ann,
    ):
        ann.register()
        ann.do("/products/umbrella", quantity="1")
        page = ann.do("/checkout", address="5 Oak Rd")
        assert "Please answer how you heard of us." in page
        assert 'value="5 Oak Rd"' in page
        assert shop.rows(Checkout) == []
        page = ann.do("/checkout", address="5 Oak Rd", source="friends")
        assert "Review order" in page
    assert [each.address for each in shop.rows(Checkout)] == ["5 Oak Rd"]


def test_every_third_form_is_answered_late_and_has_acted_before(
    shop: Shop, database: Path, tokens: Tokens
) -> None:
    with (
        disturbed(shop, database, tokens, "slow-page", seconds=600) as storefront,
        storefront.shopper() as shopper,
    ):
        for _ in range(2):
            shopper.do("/products/umbrella", quantity="1")
        form = {**shopper.forms("/products/umbrella")["/products/umbrella"], "quantity": "1"}
        with pytest.raises(httpx.ReadTimeout):
            shopper.client.post("/products/umbrella", data=form, timeout=5)
        assert [line.quantity for line in shop.rows(CartLine)] == [3]
        shopper.client.post("/products/umbrella", data=form)
        assert "This form was sent before" in shopper.read("/cart")
        assert [line.quantity for line in shop.rows(CartLine)] == [3]


def test_the_session_of_an_operator_ends_after_five_requests(
    shop: Shop, database: Path, tokens: Tokens
) -> None:
    with (
        disturbed(shop, database, tokens, "ended-session") as storefront,
        storefront.operator("hal") as hal,
    ):
        statuses = [hal.client.get("/office").status_code for _ in range(7)]
        assert statuses == [200] * 5 + [303] * 2
        # A customer is not disturbed.
        assert hal.client.get("/cart").status_code == 200
