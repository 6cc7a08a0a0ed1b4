"""Page of one case: its facts, its timeline, and decisions."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import structlog
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from gpt2flow.agent.cases.decisions import CaseChangedError, DecisionError, Desk
from gpt2flow.agent.cases.inbox import SHOWN, CaseView, parse_case_number, view_case
from gpt2flow.agent.cases.life import AGENT
from gpt2flow.agent.cases.people import NotAllowedError, Person
from gpt2flow.agent.cases.pictures import read_picture
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import CLAIMS, INBOX, Case, CaseKind, CaseStatus
from gpt2flow.console.pages.site import Site, Visit
from gpt2flow.console.reading.timeline import timeline
from gpt2flow.web.website.requests import PageNotFound, go_to

_TEMPLATE: Final = "case.html"
_AMOUNT = re.compile(r"[0-9]{1,12}([.,][0-9]{1,2})?")
# PostgreSQL has no larger ids.
_PICTURE = re.compile(r"[1-9][0-9]{0,8}")
_CLOSABLE: Final = (CaseStatus.OPEN, CaseStatus.DUE, CaseStatus.SCHEDULED, CaseStatus.APPROVED)

_Decision = Callable[[Desk, Person, str, Mapping[str, str]], CaseView]


def _assign(desk: Desk, person: Person, number: str, fields: Mapping[str, str]) -> CaseView:
    return desk.assign(person, number, fields.get("to") or None)


def _approve(desk: Desk, person: Person, number: str, fields: Mapping[str, str]) -> CaseView:
    amount = _parse_amount(fields.get("amount", ""))
    return desk.approve(person, number, seen=fields.get("seen", ""), amount=amount)


def _reject(desk: Desk, person: Person, number: str, fields: Mapping[str, str]) -> CaseView:
    return desk.reject(person, number, fields.get("reason", ""), seen=fields.get("seen", ""))


def _reply(desk: Desk, person: Person, number: str, fields: Mapping[str, str]) -> CaseView:
    return desk.reply(person, number, fields.get("text", ""))


def _close(desk: Desk, person: Person, number: str, fields: Mapping[str, str]) -> CaseView:
    return desk.close(
        person, number, fields.get("note") or None, correct=fields.get("correct") or None
    )


DECISIONS: Final[Mapping[str, _Decision]] = {
    "assign": _assign,
    "approve": _approve,
    "reject": _reject,
    "reply": _reply,
    "close": _close,
}


def routes(site: Site) -> list[Route]:
    """Return the routes of the page."""

    async def show(request: Request) -> Response:
        visit = site.person_visit(request)
        return await _page(site, visit, {}, None)

    async def changed(request: Request) -> Response:
        visit = site.person_visit(request)
        view = await site.read(lambda db: _view(site, db, _number(request)))
        if request.query_params.get("state") == state_of(view):
            # htmx leaves the page alone.
            return HTMLResponse(status_code=204)
        return site.page(visit, "changed.html", {"view": view})

    async def picture(request: Request) -> Response:
        site.person_visit(request)
        content = await site.read(lambda db: _picture(db, request))
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})

    async def decide(request: Request) -> Response:
        visit = site.visit(request)
        session, person = visit.signed_in
        fields = await site.form(visit)
        number, name = _number(request), request.path_params["decision"]
        if name not in DECISIONS:
            raise PageNotFound
        address = f"/cases/{number}"
        if not site.sessions.submit_once(session, fields.get("form", "")):
            return go_to(f"{address}?done=already")
        try:
            if name == "assign" and fields.get("to"):
                _check_assignee(site, fields["to"])
            await run_in_threadpool(DECISIONS[name], site.desk, person, number, fields)
        except InputError as error:
            return await _page(site, visit, fields, error)
        log = structlog.get_logger()
        log.info("decision", person=person.name, case=number, decision=name)
        return go_to(f"{address}?done={name}")

    return [
        Route("/cases/{number}", show),
        Route("/cases/{number}/changed", changed),
        Route("/cases/{number}/pictures/{picture}", picture),
        Route("/cases/{number}/{decision}", decide, methods=["POST"]),
    ]


def state_of(view: CaseView) -> str:
    """Return what changes whenever the page of a case would look different."""
    changes = view.earlier_changes + len(view.history)
    messages = view.earlier_messages + len(view.conversation)
    return f"{view.digest}-{changes}-{messages}"


async def _page(
    site: Site, visit: Visit, fields: Mapping[str, str], error: InputError | None
) -> Response:
    """Return the page; after a refusal, with what was typed."""
    request = visit.request
    _, person = visit.signed_in
    last = None if "all" in request.query_params else SHOWN

    def query(db: Session) -> tuple[CaseView, list[Any]]:
        view = _view(site, db, _number(request), last)
        case = db.get_one(Case, parse_case_number(view.case))
        return view, timeline(db, case.session_id, site.book, last)

    view, entries = await site.read(query)
    values = {
        "view": view,
        "entries": entries,
        "state": state_of(view),
        "typed": fields,
        "failure": _explain(error) if error else None,
        "done": request.query_params.get("done"),
        "people": site.people.names(),
        **_possible(view, person),
    }
    return site.page(visit, _TEMPLATE, values, status=_status(error))


def _possible(view: CaseView, person: Person) -> dict[str, bool]:
    """Return which decisions the page offers."""
    is_mine = view.assignee in (None, person.name)
    awaits = view.kind in CLAIMS and view.status is CaseStatus.AWAITING_APPROVAL
    return {
        "can_decide": awaits and person.may_approve and is_mine,
        "is_claim_waiting": awaits,
        "can_assign": view.status in INBOX,
        "can_reply": view.status is not CaseStatus.CLOSED and (is_mine or view.status not in INBOX),
        "can_close": view.status in _CLOSABLE and (is_mine or view.status not in INBOX),
        "can_return": view.status in INBOX and view.kind is CaseKind.HAND_OVER,
    }


def _view(site: Site, db: Session, number: str, last: int | None = SHOWN) -> CaseView:
    return view_case(db, _case(db, number), site.book, last)


def _case(db: Session, number: str) -> Case:
    try:
        case = db.get(Case, parse_case_number(number))
    except InputError as error:
        raise PageNotFound(str(error)) from error
    if case is None:
        raise PageNotFound(f"there is no case {number:.80}")
    return case


def _picture(db: Session, request: Request) -> bytes:
    """Return the picture that a request names, which must be its case's."""
    text = request.path_params["picture"]
    content = None
    if _PICTURE.fullmatch(text):
        content = read_picture(db, _case(db, _number(request)), int(text))
    if content is None:
        raise PageNotFound
    return content


def _number(request: Request) -> str:
    number: str = request.path_params["number"]
    return number


def _check_assignee(site: Site, name: str) -> None:
    known = [AGENT, *site.people.names()]
    if name not in known:
        raise InputError(f"assignee is {name!r:.80}, must be one of {', '.join(known)}")


def _parse_amount(text: str) -> Decimal | None:
    """Return the amount of a field; None if it is empty."""
    text = text.strip()
    if not text:
        return None
    if not _AMOUNT.fullmatch(text):
        raise InputError(f"amount is {text!r:.80}, must be an amount such as 99.90")
    return Decimal(text.replace(",", "."))


def _status(error: InputError | None) -> int:
    match error:
        case None:
            return 200
        case NotAllowedError():
            return 403
        case DecisionError():
            return 409
        case _:
            return 422


def _explain(error: InputError) -> dict[str, str]:
    """Return the reason of a refusal, in general and in detail."""
    match error:
        case CaseChangedError():
            return {"reason": "case_changed", "detail": str(error)}
        case NotAllowedError():
            return {"reason": "not_allowed", "detail": str(error)}
        case DecisionError():
            return {"reason": "not_possible", "detail": str(error)}
        case _:
            return {"reason": "check_field", "detail": str(error)}
