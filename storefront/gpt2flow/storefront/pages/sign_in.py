"""Pages on which operators sign in, and serve a conversation."""

from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.cases.people import NotAllowedError
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import CustomerSession
from gpt2flow.storefront.site.forms import SERVE, Fields, refuse
from gpt2flow.storefront.site.notices import shown_again
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import go_to, local_target, path_part, read_fields

_OFFICE: Final = "/office"
_SIGN_IN: Final = "/office/sign-in"


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def show(request: Request) -> Response:
        visit = site.visit(request)
        target = local_target(request.query_params.get("next", _OFFICE))
        if visit.operator is not None:
            return site.go(visit, target)
        return await site.show(visit, "sign_in.html", {"target": target})

    async def sign_in(request: Request) -> Response:
        return await _sign_in(site, request)

    async def sign_out(request: Request) -> Response:
        visit, _ = await _office_form(site, request)
        site.serve(visit.in_office, None)
        site.sessions.close(visit.in_office.session)
        response = go_to(_SIGN_IN)
        response.delete_cookie(
            site.operator_cookie, secure=site.config.is_https, httponly=True, samesite="strict"
        )
        return response

    async def show_serve(request: Request) -> Response:
        visit = site.visit(request)
        _ = visit.in_office
        return await site.show(visit, "serve.html", {})

    async def serve(request: Request) -> Response:
        visit, fields = await _office_form(site, request)
        if fields is None:
            return await refuse(site, visit, {}, SERVE, "form_expired")
        return await _serve(site, visit, fields)

    async def stop(request: Request) -> Response:
        visit, fields = await _office_form(site, request)
        if fields is None:
            return await refuse(site, visit, {}, SERVE, "form_expired")
        site.serve(visit.in_office, None)
        return site.go(visit, SERVE)

    return [
        Route(_SIGN_IN, show),
        Route(_SIGN_IN, sign_in, methods=["POST"]),
        Route("/office/sign-out", sign_out, methods=["POST"]),
        Route(SERVE, show_serve),
        Route(SERVE, serve, methods=["POST"]),
        Route("/office/stop", stop, methods=["POST"]),
    ]


async def _office_form(site: Site, request: Request) -> tuple[Visit, Fields | None]:
    """Return the visit and the fields of an operator's form.

    The fields are None if the form has expired.

    Raises:
        SignInRequired: Nobody is signed in.
        RefusedRequest: The body is no form.
    """
    visit = site.visit(request)
    _ = visit.in_office
    fields = await read_fields(request, site.config)
    return visit, fields if site.is_own_form(visit, fields.get("csrf", "")) else None


async def _sign_in(site: Site, request: Request) -> Response:
    visit = site.visit(request)
    fields = await read_fields(request, site.config)
    target = local_target(fields.get("next", _OFFICE))
    try:
        person, digest = site.people.sign_in(fields.get("token", "").strip())
    except InputError as error:
        structlog.get_logger().warning("sign_in_refused")
        values = {"target": target, "failure": str(error)}
        status = 401 if isinstance(error, NotAllowedError) else 500
        return await site.show(visit, "sign_in.html", values, status=status)
    structlog.get_logger().info("signed_in", person=person.name)
    _, cookie = site.sessions.open(person.name, digest)
    response = site.go(visit, target)
    response.set_cookie(
        site.operator_cookie,
        cookie,
        max_age=int(site.config.session_hours * 3600),
        secure=site.config.is_https,
        httponly=True,
        samesite="strict",
    )
    return response


async def _serve(site: Site, visit: Visit, fields: Fields) -> Response:
    """Serve a conversation that is there."""
    conversation = fields.get("conversation", "").strip()
    is_there = conversation.isprintable() and await site.read(
        lambda db: db.get(CustomerSession, conversation) is not None
    )
    if not is_there:
        typed, shown = shown_again(fields, ["conversation"]), conversation[:80]
        return await refuse(site, visit, typed, SERVE, "conversation_unknown", conversation=shown)
    site.serve(visit.in_office, conversation)
    person = visit.in_office.person.name
    structlog.get_logger().info("serving", person=person, conversation=path_part(conversation))
    return site.go(visit, "/account")
