"""Parts that the pages share: who asks, what is shown, and how."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote

from jinja2 import Environment
from sqlalchemy.orm import Session as DatabaseSession
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.people import Person
from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.wording import Language
from gpt2flow.console.access.people import People
from gpt2flow.console.access.sessions import Session, Sessions
from gpt2flow.console.config import ConsoleConfig
from gpt2flow.console.errors import RefusedRequest, SignInRequired
from gpt2flow.console.pages.words import LANGUAGES, Words, accepted_language, words
from gpt2flow.web.asgi import BodyTooLargeError, read_body

LANGUAGE_COOKIE: Final = "gpt2flow-language"
_FORM_BYTES: Final = 9
_MAX_FIELDS: Final = 50
_PAGE_DIGITS: Final = 7
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
        """Name of the cookie of a session.

        The prefix keeps it to this host and to TLS.
        """
        return "__Host-gpt2flow" if self.config.is_https else "gpt2flow-session"

    def visit(self, request: Request) -> Visit:
        """Return the request with its language and its person."""
        chosen = request.cookies.get(LANGUAGE_COOKIE, "")
        language: Language = next(
            (each for each in LANGUAGES if each == chosen),
            accepted_language(request.headers.get("accept-language", "")),
        )
        session = self.sessions.resume(request.cookies.get(self.session_cookie, ""))
        person = None
        if session is not None:
            person = self.people.resume(session.name, session.digest)
        return Visit(request, words(language), session if person else None, person)

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
        fields = await self.fields(visit.request)
        if not self.sessions.check_form(session, fields.get("csrf", "")):
            raise RefusedRequest(403, "form_expired")
        return fields

    async def fields(self, request: Request) -> dict[str, str]:
        """Return the fields of a form.

        Raises:
            RefusedRequest: The body is too large, too slow or no form.
        """
        config = self.config
        try:
            body = await read_body(request, config.max_body_bytes, config.body_seconds)
            pairs = parse_qsl(
                body.decode("utf-8", "strict"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MAX_FIELDS,
            )
        except BodyTooLargeError as error:
            raise RefusedRequest(413, "too_large") from error
        except TimeoutError as error:
            raise RefusedRequest(408, "too_slow") from error
        except ValueError as error:
            raise RefusedRequest(400, "no_form") from error
        return dict(pairs)

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
            csrf=self.sessions.form_token(session) if session else "",
            form_id=secrets.token_urlsafe(_FORM_BYTES),
            now=self.clock(),
            **values,
        )
        return HTMLResponse(content, status)


def local_address(request: Request) -> str:
    """Return path and query of a request."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def path_part(text: str) -> str:
    """Return a text as one part of an address."""
    return quote(text, safe="")


def local_target(text: str) -> str:
    """Return an address on this console, the inbox by default."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local and text.isascii() else "/"


def page_number(query: QueryParams) -> int:
    """Return the page number of a query, from 1."""
    text = query.get("page", "1")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _PAGE_DIGITS
    return max(int(text), 1) if is_number else 1


def go_to(address: str) -> Response:
    """Return the answer that makes a browser read another page."""
    return RedirectResponse(address, 303)
