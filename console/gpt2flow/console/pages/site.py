"""Parts that the pages share: who asks, what is shown, and how."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from jinja2 import Environment
from sqlalchemy.orm import Session as DatabaseSession
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.people import Person
from gpt2flow.agent.cases.staff import People
from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.console.config import ConsoleConfig
from gpt2flow.web.website.requests import (
    RefusedRequest,
    SignInRequired,
    local_address,
    read_fields,
)
from gpt2flow.web.website.sessions import Session, Sessions
from gpt2flow.web.website.words import Words, chosen_language, read_words

WORDS: Final = Path(__file__).parent.parent / "words"
_FORM_BYTES: Final = 9
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Visit:
    """Request of a page, with who makes it.

    Attributes:
        request: Request.
        words: Words in the language of the page.
        session: Session of the person; None if nobody is signed in.
        person: Person who is signed in.
    """

    request: Request
    words: Words
    session: Session | None
    person: Person | None

    @property
    def signed_in(self) -> tuple[Session, Person]:
        """Session and person of a page that only people may see.

        Raises:
            SignInRequired: Nobody is signed in.
        """
        if self.session is None or self.person is None:
            raise SignInRequired
        return self.session, self.person


@dataclass(frozen=True)
class Site:
    """Console of one process.

    Attributes:
        config: Settings.
        people: People who may use it.
        sessions: Their sessions.
        desk: Desk at which decisions are made.
        reader: Reader of the shop database.
        book: Loaded flows.
        clock: Source of the current time.
        templates: Templates of the pages.
    """

    config: ConsoleConfig
    people: People
    sessions: Sessions
    desk: Desk
    reader: ShopReader
    book: FlowBook
    clock: Clock
    templates: Environment

    @property
    def session_cookie(self) -> str:
        """Name of the cookie of a session."""
        return self.config.cookie_name("gpt2flow-session", "gpt2flow")

    def visit(self, request: Request) -> Visit:
        """Return the request with its language and its person."""
        session = self.sessions.resume(request.cookies.get(self.session_cookie, ""))
        person = None
        if session is not None:
            person = self.people.resume(session.name, session.digest)
        words = read_words(WORDS, chosen_language(request))
        return Visit(request, words, session if person else None, person)

    def person_visit(self, request: Request) -> Visit:
        """Return the request of a page that only people may see.

        Raises:
            SignInRequired: Nobody is signed in.
        """
        visit = self.visit(request)
        if visit.person is None:
            raise SignInRequired
        return visit

    async def read(self, query: Callable[[DatabaseSession], _Found]) -> _Found:
        """Run a query in a thread, without a write lock."""

        def run() -> _Found:
            with self.reader.reading() as db:
                return query(db)

        return await run_in_threadpool(run)

    async def form(self, visit: Visit) -> dict[str, str]:
        """Return the fields of a form, whose cross-site token is right.

        Raises:
            SignInRequired: Nobody is signed in.
            RefusedRequest: The body is too large, too slow or no form, or another site's.
        """
        session, _ = visit.signed_in
        fields = await read_fields(visit.request, self.config)
        if not self.sessions.forms.check(session.id, fields.get("csrf", "")):
            raise RefusedRequest(403, "form_expired")
        return fields

    def page(
        self, visit: Visit, template: str, values: Mapping[str, Any], *, status: int = 200
    ) -> HTMLResponse:
        """Return a rendered page."""
        session = visit.session
        content = self.templates.get_template(template).render(
            w=visit.words,
            language=visit.words.language,
            person=visit.person,
            path=visit.request.url.path,
            address=local_address(visit.request),
            csrf=self.sessions.forms.token(session.id) if session else "",
            form_id=secrets.token_urlsafe(_FORM_BYTES),
            now=self.clock(),
            **values,
        )
        return HTMLResponse(content, status)
