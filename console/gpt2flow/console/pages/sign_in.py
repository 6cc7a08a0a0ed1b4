"""Pages for signing in and out, and for the language."""

from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.cases.people import NotAllowedError
from gpt2flow.agent.errors import InputError
from gpt2flow.console.pages.site import Site
from gpt2flow.web.website.requests import go_to, keep_language, local_target, read_fields

_TEMPLATE: Final = "sign_in.html"


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def show(request: Request) -> Response:
        visit = site.visit(request)
        target = local_target(request.query_params.get("next", "/"))
        if visit.person is not None:
            return go_to(target)
        return site.page(visit, _TEMPLATE, {"target": target, "failure": None})

    async def sign_in(request: Request) -> Response:
        visit = site.visit(request)
        fields = await read_fields(request, site.config)
        target = local_target(fields.get("next", "/"))
        try:
            person, digest = site.people.sign_in(fields.get("token", "").strip())
        except NotAllowedError as error:
            structlog.get_logger().warning("sign_in_refused")
            values = {"target": target, "failure": str(error)}
            return site.page(visit, _TEMPLATE, values, status=401)
        except InputError as error:
            values = {"target": target, "failure": str(error)}
            return site.page(visit, _TEMPLATE, values, status=500)
        structlog.get_logger().info("signed_in", person=person.name)
        _, cookie = site.sessions.open(person.name, digest)
        response = go_to(target)
        response.set_cookie(
            site.session_cookie,
            cookie,
            max_age=int(site.config.session_hours * 3600),
            secure=site.config.is_https,
            httponly=True,
            samesite="strict",
        )
        return response

    async def sign_out(request: Request) -> Response:
        visit = site.visit(request)
        await site.form(visit)
        session, _ = visit.signed_in
        site.sessions.close(session)
        response = go_to("/sign-in")
        response.delete_cookie(site.session_cookie, secure=site.config.is_https, httponly=True)
        return response

    async def choose_language(request: Request) -> Response:
        response = go_to(local_target(request.query_params.get("next", "/")))
        keep_language(response, request.path_params["language"], site.config)
        return response

    return [
        Route("/sign-in", show),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/language/{language}", choose_language),
    ]
