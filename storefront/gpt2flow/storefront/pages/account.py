"""Pages of the account: registration, login, name."""

from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.report import Step
from gpt2flow.storefront.reading.shopping import read_sent_code
from gpt2flow.storefront.site.forms import (
    ActionForm,
    Fields,
    action_route,
    code_field,
    contact_field,
    no_arguments,
    text_field,
)
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import local_target, path_part

_ACCOUNT: Final = "/account"


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def show(request: Request, template: str) -> Response:
        visit = site.visit(request)
        target = local_target(request.query_params.get("next", _ACCOUNT))
        code = await site.read(lambda db: read_sent_code(db, visit.session, site.book))
        return await site.show(visit, template, {"target": target, "code": code})

    pages = {
        "/register": "register.html",
        "/sign-in": "log_in.html",
        "/code": "code.html",
        _ACCOUNT: "account.html",
    }
    shown = [Route(path, partial(show, template=name)) for path, name in pages.items()]
    return [*shown, *(action_route(site, form) for form in _forms())]


def _forms() -> list[ActionForm]:
    return [
        ActionForm(
            path="/register",
            action="register",
            read=_read_new,
            back=_back_to("/register"),
            onward=_to_code,
            shown=("name", "contact"),
        ),
        ActionForm(
            path="/sign-in",
            action="log_in",
            read=_read_contact,
            back=_back_to("/sign-in"),
            onward=_to_code,
            shown=("contact",),
        ),
        ActionForm("/code", "verify", _read_code, _back_to("/code"), _to_target),
        ActionForm("/code/resend", "resend_code", no_arguments, _back_to("/code"), _to_code),
        ActionForm(
            path="/code/contact",
            action="correct_contact",
            read=_read_contact,
            back=_back_to("/code"),
            onward=_to_code,
            shown=("contact",),
        ),
        *_account_forms(),
    ]


def _account_forms() -> list[ActionForm]:
    return [
        ActionForm(
            path="/account/name",
            action="correct_name",
            read=_read_name,
            back=_back_to(_ACCOUNT),
            onward=_to_account,
            shown=("name",),
        ),
        ActionForm(
            path="/account/log-out",
            action="log_out",
            read=no_arguments,
            back=_back_to(_ACCOUNT),
            onward=_to_account,
            ends_visit=True,
        ),
    ]


async def _read_new(_visit: Visit, fields: Fields) -> Arguments:
    return {"name": text_field(fields, "name"), "contact": contact_field(fields)}


async def _read_contact(_visit: Visit, fields: Fields) -> Arguments:
    return {"contact": contact_field(fields)}


async def _read_name(_visit: Visit, fields: Fields) -> Arguments:
    return {"name": text_field(fields, "name")}


async def _read_code(_visit: Visit, fields: Fields) -> Arguments:
    return {"code": code_field(fields)}


def _back_to(page: str) -> Callable[[Visit, Fields], str]:
    """Return the function that leads back to a page."""
    return lambda _visit, fields: _with_target(page, fields)


def _with_target(page: str, fields: Fields) -> str:
    """Return a page that leads on to the customer's target."""
    target = local_target(fields.get("next", _ACCOUNT))
    return page if target == _ACCOUNT else f"{page}?next={path_part(target)}"


def _to_code(_visit: Visit, fields: Fields, _step: Step) -> str:
    return _with_target("/code", fields)


def _to_target(_visit: Visit, fields: Fields, _step: Step) -> str:
    return local_target(fields.get("next", _ACCOUNT))


def _to_account(_visit: Visit, _fields: Fields, _step: Step) -> str:
    return _ACCOUNT
