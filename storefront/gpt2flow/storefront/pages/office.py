"""Pages of the back office: orders, couriers, claims, calls."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import Courier
from gpt2flow.storefront.reading.cases import list_calls, list_claims, list_couriers
from gpt2flow.storefront.reading.orders import find_purchase, list_work
from gpt2flow.storefront.site.forms import ActionForm, Fields, action_route, refuse
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import PageNotFound, page_number, path_part, read_fields

PAGE_SIZE: Final = 50
_ORDERS: Final = "/office/orders"
_COURIERS: Final = "/office/couriers"


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def list_orders(request: Request) -> Response:
        visit = site.visit(request)
        language = visit.words.language
        return await _list(
            site,
            visit,
            "office.html",
            lambda db, skipped, limit: list_work(db, language, site.clock(), skipped, limit),
        )

    async def show_claims(request: Request) -> Response:
        return await _list(site, site.visit(request), "office_claims.html", list_claims)

    async def show_calls(request: Request) -> Response:
        return await _list(site, site.visit(request), "office_calls.html", list_calls)

    async def show_couriers(request: Request) -> Response:
        visit = site.visit(request)
        _ = visit.in_office
        couriers = await site.read(lambda db: list_couriers(db, visit.words.language))
        return await site.show(visit, "couriers.html", {"couriers": couriers})

    async def show_order(request: Request, template: str) -> Response:
        visit = site.visit(request)
        _ = visit.in_office
        number, language = request.path_params["order"], visit.words.language
        order = await site.read(lambda db: find_purchase(db, number, language, site.clock()))
        if order is None:
            raise PageNotFound
        return await site.show(visit, template, {"order": order})

    return [
        Route("/office", list_orders),
        Route("/office/claims", show_claims),
        Route("/office/calls", show_calls),
        Route(_COURIERS, show_couriers),
        Route(f"{_COURIERS}/{{code}}/{{change}}", partial(_change_courier, site), methods=["POST"]),
        Route(f"{_ORDERS}/{{order}}", partial(show_order, template="office_order.html")),
        Route(f"{_ORDERS}/{{order}}/cancel", partial(show_order, template="office_cancel.html")),
        *(action_route(site, form) for form in _forms(site)),
    ]


async def _list(
    site: Site, visit: Visit, template: str, query: Callable[[Session, int, int], list[Any]]
) -> Response:
    """Return a page of a list, newest first."""
    _ = visit.in_office
    number = page_number(visit.request.query_params)
    skipped = (number - 1) * PAGE_SIZE
    rows = await site.read(lambda db: query(db, skipped, PAGE_SIZE + 1))
    values = {"rows": rows[:PAGE_SIZE], "number": number, "has_more": len(rows) > PAGE_SIZE}
    return await site.show(visit, template, values)


def _forms(site: Site) -> list[ActionForm]:
    async def read_order(visit: Visit, _fields: Fields) -> Arguments:
        number, language = visit.request.path_params["order"], visit.words.language
        order = await site.read(lambda db: find_purchase(db, number, language, site.clock()))
        if order is None:
            raise PageNotFound
        return {"order": order.number}

    def to_order(visit: Visit, _fields: Fields, _step: Step | None = None) -> str:
        return f"{_ORDERS}/{path_part(visit.request.path_params['order'])}"

    actions = {
        "courier": "assign_courier",
        "details": "send_delivery_details",
        "cancel": "cancel_order",
    }
    return [
        ActionForm(
            path=f"{_ORDERS}/{{order}}/{name}",
            action=action,
            read=read_order,
            back=to_order,
            onward=to_order,
            order="order",
        )
        for name, action in actions.items()
    ]


async def _change_courier(site: Site, request: Request) -> Response:
    """Let a courier take parcels again, or no more."""
    visit = site.visit(request)
    person = visit.in_office.person.name
    fields = await read_fields(request, site.config)
    if not site.is_own_form(visit, fields.get("csrf", "")):
        return await refuse(site, visit, {}, _COURIERS, "form_expired")
    code, change = request.path_params["code"], request.path_params["change"]
    if change not in ("pause", "resume"):
        raise PageNotFound

    def run() -> None:
        with site.database.translate_errors(), site.database.transaction() as db:
            courier = db.get(Courier, code) if code.isprintable() else None
            if courier is None:
                raise PageNotFound
            courier.active = change == "resume"

    await run_in_threadpool(run)
    structlog.get_logger().info("courier_changed", person=person, courier=code, change=change)
    return site.go(visit, _COURIERS)
