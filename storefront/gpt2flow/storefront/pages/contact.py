"""Ways to reach the agent and people: a chat box, and calls."""

from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.storefront.chat import AgentAwayError
from gpt2flow.storefront.reading.cases import list_own_calls
from gpt2flow.storefront.reading.shopping import find_shopper
from gpt2flow.storefront.site.forms import (
    ActionForm,
    Fields,
    action_route,
    form_id,
    refuse,
    text_field,
)
from gpt2flow.storefront.site.notices import Notice, shown_again
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import PageNotFound, local_target, read_fields

_CALL: Final = "/call"
_MAX_MESSAGE: Final = 1000
# Fields of the chat box that a page shows again.
_SHOWN: Final = ("message", "again")


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""
    return [*_chat_routes(site), *_call_routes(site)]


def _chat_routes(site: Site) -> list[Route]:
    """Return the routes of the chat box."""

    async def send(request: Request) -> Response:
        chat = site.chat
        visit = site.admit(request)
        # An operator does not write as the customer.
        if chat is None or visit.operator is not None or visit.customer is None:
            raise PageNotFound
        fields = await read_fields(request, site.config)
        back = f"{local_target(fields.get('back', '/'))}#chat"
        if not site.is_own_form(visit, fields.get("csrf", "")):
            again = shown_again(fields, _SHOWN) if fields.get("again") else {}
            return await refuse(site, visit, again, back, "form_expired")
        text = fields.get("message", "").strip()
        if not text or len(text) > _MAX_MESSAGE:
            return await refuse(site, visit, {}, back, "message_wrong", most=_MAX_MESSAGE)
        # A message that is sent again has its id.
        number = form_id({"form": fields.get("again") or fields.get("form", "")})
        try:
            await chat.send(visit.customer, number, text)
        except AgentAwayError:
            # Kept for new browsers too: the agent may have the message, under this id.
            kept = shown_again(fields | {"again": number}, _SHOWN)
            notice = Notice(visit.words("reason_agent_away"), is_good=False, typed=kept)
            site.leave_notice(visit, notice, is_known=await site.knows(visit))
        return site.go(visit, back)

    async def show(request: Request) -> Response:
        """Return the conversation alone, for the script of the chat box."""
        visit = site.visit(request)
        if site.chat is None or (visit.operator and not visit.served_by):
            raise PageNotFound
        return await site.show(visit, "said.html", {}, takes_notice=False)

    return [Route("/chat", send, methods=["POST"]), Route("/chat", show)]


def _call_routes(site: Site) -> list[Route]:
    """Return the routes of the page of calls."""

    async def show(request: Request) -> Response:
        visit = site.visit(request)

        def query(db: Session) -> dict[str, Any]:
            number = find_shopper(db, visit.session).customer_id
            return {"member": number, "calls": list_own_calls(db, number) if number else []}

        found = await site.read(query)
        if found["member"] is None:
            return site.go(visit, f"/sign-in?next={_CALL}")
        return await site.show(visit, "call.html", found)

    form = ActionForm(
        path=_CALL,
        action="schedule_follow_up",
        read=_read_time,
        back=lambda _visit, _fields: _CALL,
        onward=lambda _visit, _fields, _step: _CALL,
        message="details",
        shown=("time", "details"),
    )
    return [Route(_CALL, show), action_route(site, form)]


async def _read_time(_visit: Visit, fields: Fields) -> Arguments:
    return {"time": text_field(fields, "time")}
