"""Pages of the conversations: search, and one with its timeline."""

from typing import Any, Final

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.cases.inbox import SHOWN
from gpt2flow.console.pages.site import Site
from gpt2flow.console.reading.conversations import find_conversation, search_conversations
from gpt2flow.console.reading.timeline import timeline
from gpt2flow.web.website.requests import PageNotFound, page_number

PAGE_SIZE: Final = 50
_MAX_QUERY: Final = 200


def routes(site: Site) -> list[Route]:
    """Return the routes of the pages."""

    async def search(request: Request) -> Response:
        visit = site.person_visit(request)
        text = request.query_params.get("q", "").strip()[:_MAX_QUERY]
        page = page_number(request.query_params)

        def query(db: Session) -> dict[str, Any]:
            found, has_more = search_conversations(
                db, site.book, text, skipped=(page - 1) * PAGE_SIZE, limit=PAGE_SIZE
            )
            return {"conversations": found, "has_more": has_more}

        found = await site.read(query)
        return site.page(visit, "conversations.html", found | {"text": text, "number": page})

    async def show(request: Request) -> Response:
        visit = site.person_visit(request)
        session_id: str = request.path_params["session"]
        last = None if "all" in request.query_params else SHOWN

        def query(db: Session) -> dict[str, Any]:
            conversation = find_conversation(db, session_id)
            if conversation is None:
                raise PageNotFound(f"there is no conversation {session_id:.80}")
            return {
                "conversation": conversation,
                "entries": timeline(db, session_id, site.book, last),
            }

        return site.page(visit, "conversation.html", await site.read(query))

    return [
        Route("/conversations", search),
        Route("/conversations/{session:path}", show),
    ]
