"""Page of the inbox, and of all cases."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.cases.inbox import count_cases, list_cases
from gpt2flow.agent.shop import INBOX, CaseKind, CaseStatus
from gpt2flow.console.pages.site import Site
from gpt2flow.web.website.requests import page_number

PAGE_SIZE: Final = 50


@dataclass(frozen=True)
class Selection:
    """Cases that a page shows.

    Attributes:
        view: `inbox`, `mine` or `all`.
        kind: Kind of the cases; None is all.
        page: Number of the page, from 1.
    """

    view: str
    kind: CaseKind | None
    page: int

    @classmethod
    def of(cls, query: QueryParams) -> "Selection":
        """Return the selection of a query, without unknown values."""
        view = query.get("view", "inbox")
        kind = query.get("kind", "")
        return cls(
            view=view if view in ("inbox", "mine", "all") else "inbox",
            kind=CaseKind(kind) if kind in set(CaseKind) else None,
            page=page_number(query),
        )

    def conditions(self, name: str) -> dict[str, Any]:
        """Return the arguments of `list_cases`.

        Args:
            name: Name of the person who asks.
        """
        return {
            "statuses": tuple(CaseStatus) if self.view == "all" else INBOX,
            "assignee": name if self.view == "mine" else None,
            "kinds": tuple(CaseKind) if self.kind is None else (self.kind,),
        }

    def address(self, **changes: Any) -> str:
        """Return the address of this selection, with some of it changed."""
        values = {"view": self.view, "kind": self.kind, "page": self.page} | changes
        defaults = {"view": "inbox", "kind": None, "page": 1}
        given = {name: value for name, value in values.items() if value != defaults[name]}
        return f"/?{urlencode(given)}" if given else "/"


def routes(site: Site) -> list[Route]:
    """Return the routes of the page."""

    async def show(request: Request) -> Response:
        visit = site.visit(request)
        _, person = visit.signed_in
        selection = Selection.of(request.query_params)
        conditions = selection.conditions(person.name)

        def query(db: Session) -> dict[str, Any]:
            skipped = (selection.page - 1) * PAGE_SIZE
            return {
                "cases": list_cases(db, **conditions, limit=PAGE_SIZE, offset=skipped),
                "total": count_cases(db, **conditions),
                "skipped": skipped,
            }

        found = await site.read(query)
        values = found | {"selection": selection, "kinds": tuple(CaseKind), "size": PAGE_SIZE}
        return site.page(visit, "inbox.html", values)

    return [Route("/", show)]
