"""Pages of the cart and the checkout."""

from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import Order
from gpt2flow.storefront.reading.catalogue import find_ware
from gpt2flow.storefront.reading.shopping import (
    Shopper,
    Summary,
    find_shopper,
    read_cart,
    read_summary,
    total,
)
from gpt2flow.storefront.site.forms import (
    ActionForm,
    Fields,
    FormFieldError,
    action_route,
    no_arguments,
    quantity_field,
    text_field,
)
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit

CART: Final = "/cart"
CHECKOUT: Final = "/checkout"
REVIEW: Final = "/checkout/review"
SOURCES: Final = ("friends", "search", "advertisement")
"""Answers to the question that a disturbed checkout asks."""


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def show_cart(request: Request) -> Response:
        visit = site.visit(request)
        lines = await site.read(lambda db: read_cart(db, visit.session, visit.words.language))
        return await site.show(visit, "cart.html", {"lines": lines, "total": total(lines)})

    async def show_checkout(request: Request) -> Response:
        visit = site.visit(request)

        def query(db: Session) -> dict[str, Any]:
            lines = read_cart(db, visit.session, visit.words.language)
            summary = read_summary(db, visit.session, visit.words.language)
            shopper = find_shopper(db, visit.session)
            address = summary.address if summary else shopper.address
            return {"lines": lines, "shopper": shopper, "last_address": address}

        found = await site.read(query)
        if not found["shopper"].is_member:
            return site.go(visit, "/sign-in?next=/checkout")
        sources = SOURCES if site.disturber.asks_more else ()
        values = found | {"total": total(found["lines"]), "sources": sources}
        return await site.show(visit, "checkout.html", values)

    async def show_review(request: Request) -> Response:
        visit = site.visit(request)

        def query(db: Session) -> tuple[Summary | None, Shopper]:
            summary = read_summary(db, visit.session, visit.words.language)
            return summary, find_shopper(db, visit.session)

        summary, shopper = await site.read(query)
        if summary is None:
            # An order empties the cart, and an order that was declined does not.
            return site.go(visit, CHECKOUT if shopper.cart_size else CART)
        values = {"summary": summary, "total": total(summary.lines)}
        return await site.show(visit, "review.html", values)

    return [
        Route(CART, show_cart),
        Route(CHECKOUT, show_checkout),
        Route(REVIEW, show_review),
        *(action_route(site, form) for form in (*_cart_forms(site), *_checkout_forms(site))),
    ]


def _cart_forms(site: Site) -> list[ActionForm]:
    async def read_line(visit: Visit, fields: Fields) -> Arguments:
        sku = fields.get("sku", "")
        product = await site.read(lambda db: find_ware(db, sku, visit.words.language))
        if product is None:
            raise FormFieldError("not_found")
        return {"product": product.name}

    async def read_quantity(visit: Visit, fields: Fields) -> Arguments:
        return await read_line(visit, fields) | {"quantity": quantity_field(fields)}

    def to_cart(*_: object) -> str:
        return CART

    return [
        ActionForm("/cart/update", "set_quantity", read_quantity, to_cart, to_cart),
        ActionForm("/cart/remove", "remove_from_cart", read_line, to_cart, to_cart),
    ]


def _checkout_forms(site: Site) -> list[ActionForm]:
    async def read_address(_visit: Visit, fields: Fields) -> Arguments:
        if site.disturber.asks_more and fields.get("source") not in SOURCES:
            raise FormFieldError("source_missing")
        return {"address": text_field(fields, "address")}

    return [
        ActionForm(
            path=CHECKOUT,
            action="check_out",
            read=read_address,
            back=lambda _visit, _fields: CHECKOUT,
            onward=lambda _visit, _fields, _step: REVIEW,
            shown=("address", "source"),
        ),
        ActionForm(
            path="/checkout/confirm",
            action="confirm_order",
            read=no_arguments,
            back=lambda _visit, _fields: REVIEW,
            onward=lambda _visit, _fields, step: f"/orders/{_new_order(step)}",
        ),
        ActionForm(
            path="/checkout/decline",
            action="decline_order",
            read=no_arguments,
            back=lambda _visit, _fields: CART,
            onward=lambda _visit, _fields, _step: CART,
        ),
    ]


def _new_order(step: Step) -> str:
    """Return the number of the order that an action submitted."""
    [number] = [
        Order(id=change.key["id"]).number
        for change in step.report.changes
        if (change.table, change.change) == (Order.__tablename__, "insert")
    ]
    return number
