"""Application of the console: routes, files, and error pages."""

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.errors import DatabaseError
from gpt2flow.console.pages import case, conversations, figures, inbox, playground, sign_in
from gpt2flow.console.pages.site import Site
from gpt2flow.web.website.guard import Guard
from gpt2flow.web.website.requests import (
    PageNotFound,
    RefusedRequest,
    SignInRequired,
    ask_to_sign_in,
)
from gpt2flow.web.website.serving import report_defect, report_health, serving_files

_FOLDER: Final = Path(__file__).parent
# Files that pages load, and those that `make console-assets` brings.
STATIC: Final = _FOLDER / "static"
ASSETS: Final = _FOLDER / "assets"


def build_app(site: Site) -> Starlette:
    """Return the application of a console."""

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedRequest)
        visit = site.visit(request)
        if isinstance(error, SignInRequired):
            if "hx-request" in request.headers:
                # The rest of the page stays, with what was typed into it.
                return site.page(visit, "signed_out.html", {})
            return ask_to_sign_in(request, "/sign-in")
        values = {"reason": error.reason, "detail": error.detail}
        return site.page(visit, "refused.html", values, status=error.status)

    async def refuse_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = PageNotFound() if error.status_code == 404 else None
        visit = site.visit(request)
        values = {"reason": known.reason if known else "bad_request", "detail": ""}
        response = site.page(visit, "refused.html", values, status=error.status_code)
        response.headers.update(error.headers or {})
        return response

    async def report_database(request: Request, error: Exception) -> Response:
        values = {"reason": "database_away", "detail": str(error)}
        return site.page(site.visit(request), "refused.html", values, status=503)

    routes = [
        Route("/files/{name}", serving_files([STATIC, ASSETS])),
        Route("/health", report_health),
    ]
    for page in (sign_in, inbox, case, conversations, figures, playground):
        routes += page.routes(site)
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, config=site.config)],
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
