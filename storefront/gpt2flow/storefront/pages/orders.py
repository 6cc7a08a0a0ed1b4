"""Pages of a customer's orders, and of changes to one."""

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import CLAIMS
from gpt2flow.storefront.reading.orders import Purchase, find_purchase, list_purchases
from gpt2flow.storefront.reading.shopping import find_shopper
from gpt2flow.storefront.site.forms import (
    ActionForm,
    Fields,
    FormFieldError,
    action_route,
    text_field,
)
from gpt2flow.storefront.site.notices import Notice, shown_again
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import PageNotFound, local_address, path_part

_ORDERS: Final = "/orders"
_MAX_DETAILS: Final = 1000
# Fields of a claim, which its form shows again.
_CLAIM_FIELDS: Final = ("claim", "reason", "details")


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def list_own(request: Request) -> Response:
        visit = site.visit(request)
        shopper = await site.read(lambda db: find_shopper(db, visit.session))
        if shopper.customer_id is None:
            return site.go(visit, f"/sign-in?next={_ORDERS}")
        number, language = shopper.customer_id, visit.words.language
        orders = await site.read(lambda db: list_purchases(db, number, language, site.clock()))
        return await site.show(visit, "orders.html", {"orders": orders})

    async def show(request: Request, template: str) -> Response:
        visit = site.visit(request)
        order = await _own_order(site, visit)
        if order is None:
            return _sign_in_first(site, visit)
        values = {"order": order, "kinds": CLAIMS, "reasons": _reasons(site, visit)}
        return await site.show(visit, template, values)

    async def show_claim(request: Request) -> Response:
        visit = site.visit(request)
        order = await _own_order(site, visit)
        if order is None:
            return _sign_in_first(site, visit)
        given = {name: request.query_params.get(name, "") for name in ("claim", "reason")}
        given["details"] = request.query_params.get("details", "").strip()[:_MAX_DETAILS]
        try:
            claim = _claim(site, given)
        except FormFieldError as error:
            text = visit.words(f"reason_{error.reason}")
            typed = shown_again(given, _CLAIM_FIELDS)
            site.leave_notice(visit, Notice(text, is_good=False, typed=typed))
            return site.go(visit, f"{_ORDERS}/{order.number}")
        values = {"order": order, "reasons": _reasons(site, visit)} | claim
        return await site.show(visit, "claim.html", values | {"details": given["details"]})

    path = f"{_ORDERS}/{{order}}"
    return [
        Route(_ORDERS, list_own),
        Route(path, partial(show, template="order.html")),
        Route(f"{path}/cancel", partial(show, template="cancel.html")),
        Route(f"{path}/claim", show_claim),
        *(action_route(site, form) for form in _forms(site)),
    ]


def _forms(site: Site) -> list[ActionForm]:
    async def read_order(visit: Visit, _fields: Fields) -> Arguments:
        order = await _own_order(site, visit)
        if order is None:
            raise FormFieldError("sign_in_first")
        return {"order": order.number}

    async def read_address(visit: Visit, fields: Fields) -> Arguments:
        return await read_order(visit, fields) | {"address": text_field(fields, "address")}

    async def read_claim(visit: Visit, fields: Fields) -> Arguments:
        reason = str(_claim(site, fields)["reason"])
        return await read_order(visit, fields) | {"reason": reason}

    def to_order(visit: Visit, _fields: Fields, _step: Step | None = None) -> str:
        return f"{_ORDERS}/{path_part(visit.request.path_params['order'])}"

    path = f"{_ORDERS}/{{order}}"
    return [
        ActionForm(f"{path}/cancel", "cancel_order", read_order, to_order, to_order),
        ActionForm(
            path=f"{path}/address",
            action="change_address",
            read=read_address,
            back=to_order,
            onward=to_order,
            shown=("address",),
        ),
        ActionForm(f"{path}/arrived", "confirm_delivery", read_order, to_order, to_order),
        ActionForm(
            path=f"{path}/claim",
            action=lambda fields: f"request_{_claim(site, fields)['claim']}",
            read=read_claim,
            back=to_order,
            onward=to_order,
            message="details",
            shown=_CLAIM_FIELDS,
        ),
    ]


def _claim(site: Site, fields: Fields) -> dict[str, Any]:
    """Return kind and reason of a claim.

    Raises:
        FormFieldError: One of them was not chosen.
    """
    kind, reason = fields.get("claim", ""), fields.get("reason", "")
    if kind not in set(CLAIMS):
        raise FormFieldError("claim_missing")
    if reason not in site.book.slots["reason"].values:
        raise FormFieldError("reason_missing")
    return {"claim": next(each for each in CLAIMS if each == kind), "reason": reason}


def _reasons(site: Site, visit: Visit) -> dict[str, str]:
    """Return the names of the reasons of a claim, by value."""
    slot, language = site.book.slots["reason"], visit.words.language
    return {
        value: slot.names[value][language] if value in slot.names else value.replace("_", " ")
        for value in slot.values
    }


async def _own_order(site: Site, visit: Visit) -> Purchase | None:
    """Return the order of a page; None if nobody is logged in.

    Another customer's order is treated like an unknown number.

    Raises:
        PageNotFound: The customer has no such order.
    """
    number: str = visit.request.path_params["order"]
    shopper = await site.read(lambda db: find_shopper(db, visit.session))
    if shopper.customer_id is None:
        return None
    owner, language = shopper.customer_id, visit.words.language
    order = await site.read(
        lambda db: find_purchase(db, number, language, site.clock(), customer_id=owner)
    )
    if order is None:
        raise PageNotFound
    return order


def _sign_in_first(site: Site, visit: Visit) -> Response:
    return site.go(visit, f"/sign-in?next={path_part(local_address(visit.request))}")
