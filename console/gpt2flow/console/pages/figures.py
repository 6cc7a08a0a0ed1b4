"""Pages of figures: coverage of the flows, evaluations, and the live server."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gpt2flow.console.pages.site import Site
from gpt2flow.console.reading.coverage import coverage
from gpt2flow.console.reading.evaluations import Comparison, compare_reports
from gpt2flow.console.reading.server_metrics import MetricsError, read_figures
from gpt2flow.web.website.requests import PageNotFound


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def flows(request: Request) -> Response:
        visit = site.person_visit(request)
        found = await site.read(lambda db: coverage(db, site.book, visit.words.language))
        return site.page(visit, "flows.html", {"flows": found})

    async def evaluations(request: Request) -> Response:
        visit = site.person_visit(request)
        folder = site.config.reports
        found = Comparison([], [], {})
        if folder is not None:
            found = await run_in_threadpool(compare_reports, folder)
        values = {"comparison": found, "has_folder": folder is not None}
        return site.page(visit, "evaluations.html", values)

    async def live(request: Request) -> Response:
        visit = site.person_visit(request)
        return site.page(visit, "live.html", {"has_metrics": bool(site.config.metrics)})

    async def live_figures(request: Request) -> Response:
        site.person_visit(request)
        if not site.config.metrics:
            raise PageNotFound
        try:
            figures = await run_in_threadpool(read_figures, site.config.metrics)
        except MetricsError as error:
            return JSONResponse({"error": str(error)}, 502)
        return JSONResponse(figures)

    return [
        Route("/flows", flows),
        Route("/evaluations", evaluations),
        Route("/live", live),
        Route("/live.json", live_figures),
    ]
