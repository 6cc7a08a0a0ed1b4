"""Application of the storefront: routes, files, and error pages."""

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.errors import DatabaseError
from gpt2flow.storefront.disturbances import SlowPages
from gpt2flow.storefront.pages import account, cart, catalogue, contact, office, orders, sign_in
from gpt2flow.storefront.site.site import Site
from gpt2flow.web.website.guard import Guard
from gpt2flow.web.website.requests import (
    PageNotFound,
    RefusedRequest,
    SignInRequired,
    ask_to_sign_in,
)
from gpt2flow.web.website.serving import report_defect, report_health, serving_files

# Files that pages load.
STATIC: Final = Path(__file__).parent / "static"
SIGN_IN: Final = "/office/sign-in"


def build_app(site: Site) -> Starlette:
    """Return the application of a storefront."""

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedRequest)
        if isinstance(error, SignInRequired):
            return ask_to_sign_in(request, SIGN_IN)
        values = {"reason": error.reason}
        return await site.show(
            site.visit(request), "refused.html", values, status=error.status, takes_notice=False
        )

    async def refuse_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = PageNotFound() if error.status_code == 404 else None
        values = {"reason": known.reason if known else "bad_request"}
        visit = site.visit(request)
        response = await site.show(
            visit, "refused.html", values, status=error.status_code, takes_notice=False
        )
        response.headers.update(error.headers or {})
        return response

    async def report_database(request: Request, _error: Exception) -> Response:
        return site.show_away(site.visit(request))

    routes = [
        Route("/files/{name}", serving_files([STATIC])),
        Route("/health", report_health),
    ]
    for page in (catalogue, cart, account, orders, contact, sign_in, office):
        routes += page.routes(site)
    middleware = [Middleware(Guard, config=site.config)]
    if "slow-page" in site.config.disturb:
        middleware.append(Middleware(SlowPages, seconds=site.config.disturb_seconds))
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            RefusedRequest: refuse,
            HTTPException: refuse_route,
            DatabaseError: report_database,
            Exception: report_defect,
        },
    )
    # A redirect would name the host that the request named.
    app.router.redirect_slashes = False
    return app
