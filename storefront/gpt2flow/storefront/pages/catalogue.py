"""Pages of the catalogue: search, products, questions."""

from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.storefront.reading.catalogue import Ware, find_ware, search_products
from gpt2flow.storefront.site.forms import ActionForm, Fields, action_route, quantity_field
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import PageNotFound, path_part

_MAX_SEARCH: Final = 200


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def search(request: Request) -> Response:
        visit = site.visit(request)
        text = request.query_params.get("q", "").strip()[:_MAX_SEARCH]

        def query(db: Session) -> dict[str, Any]:
            return {"search": search_products(db, text, visit.words.language)}

        return await site.show(visit, "shop.html", await site.read(query) | {"text": text})

    async def show(request: Request) -> Response:
        visit = site.visit(request)
        product = await _product(site, visit)
        return await site.show(visit, "product.html", {"product": product})

    async def answer_questions(request: Request) -> Response:
        visit = site.visit(request)
        language = visit.words.language
        topics = site.book.slots["topic"].names if "topic" in site.book.slots else {}
        answers = [
            (topics[topic][language] if topic in topics else topic.replace("_", " "), text)
            for flow in site.book.flows.values()
            for topic, text in (
                (topic, wording[language].format_map(flow.policies))
                for topic, wording in flow.answers.items()
            )
        ]
        return await site.show(visit, "help.html", {"answers": answers})

    async def read_addition(visit: Visit, fields: Fields) -> Arguments:
        product = await _product(site, visit)
        return {"product": product.name, "quantity": quantity_field(fields)}

    add = ActionForm(
        path="/products/{sku}",
        action="add_to_cart",
        read=read_addition,
        back=lambda visit, _: f"/products/{path_part(visit.request.path_params['sku'])}",
        onward=lambda _visit, _fields, _step: "/cart",
        shown=("quantity",),
    )
    return [
        Route("/", search),
        Route("/help", answer_questions),
        Route("/products/{sku}", show),
        action_route(site, add),
    ]


async def _product(site: Site, visit: Visit) -> Ware:
    sku: str = visit.request.path_params["sku"]
    product = await site.read(lambda db: find_ware(db, sku, visit.words.language))
    if product is None:
        raise PageNotFound
    return product
