"""Parts that the pages share: who asks, what is shown, and how."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from jinja2 import Environment
from sqlalchemy.orm import Session as DatabaseSession
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gpt2flow.agent.cases.staff import People
from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.shop import CustomerSession, Database
from gpt2flow.storefront.chat import AgentChat
from gpt2flow.storefront.config import StorefrontConfig
from gpt2flow.storefront.counter import Counter
from gpt2flow.storefront.disturbances import Disturber
from gpt2flow.storefront.reading.shopping import Shopper, find_shopper, read_chat
from gpt2flow.storefront.site.notices import Notice, Notices, Reader
from gpt2flow.storefront.site.visits import Operator, Visit, customer_id, new_customer_id
from gpt2flow.web.website.requests import go_to, keep_language
from gpt2flow.web.website.sessions import FormTokens, Sessions
from gpt2flow.web.website.words import LANGUAGES, chosen_language, read_words

WORDS: Final = Path(__file__).parent.parent / "words"
_CUSTOMER_SECONDS: Final = 30 * 24 * 3600
_FORM_BYTES: Final = 12
# Conversations that operators serve at a time.
_MAX_SERVED: Final = 1000
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Site:
    """Storefront of one process.

    Attributes:
        config: Settings.
        people: People of the back office.
        sessions: Their sessions.
        counter: Counter at which actions are carried out.
        database: Shop database.
        reader: Reader of the shop database.
        book: Loaded flows.
        clock: Source of the current time.
        templates: Templates of the pages.
        chat: Connection to the agent; None has no chat box.
        disturber: Ways in which pages change on purpose.
        forms: Tokens of the customers' forms.
        notices: Notices that wait for a page.
        served: Conversation that each operator's session serves.
    """

    config: StorefrontConfig
    people: People
    sessions: Sessions
    counter: Counter
    database: Database
    reader: ShopReader
    book: FlowBook
    clock: Clock
    templates: Environment
    chat: AgentChat | None
    disturber: Disturber
    forms: FormTokens = field(default_factory=FormTokens)
    notices: Notices = field(default_factory=Notices)
    served: OrderedDict[str, str] = field(default_factory=OrderedDict)

    @property
    def customer_cookie(self) -> str:
        """Name of the cookie of a customer's browser."""
        return self.config.cookie_name("gpt2flow-shop", "gpt2flow-shop")

    @property
    def operator_cookie(self) -> str:
        """Name of the cookie of an operator's session."""
        return self.config.cookie_name("gpt2flow-office", "gpt2flow-office")

    def visit(self, request: Request) -> Visit:
        """Return the request with its language, its customer and its operator."""
        known: Visit | None = getattr(request.state, "visit", None)
        if known is not None:
            return known
        asked = request.query_params.get("language")
        language = next((each for each in LANGUAGES if each == asked), chosen_language(request))
        customer = customer_id(request.cookies.get(self.customer_cookie, ""))
        visit = Visit(request, read_words(WORDS, language), customer, self._operator(request))
        request.state.visit = visit
        return visit

    def _operator(self, request: Request) -> Operator | None:
        session = self.sessions.resume(request.cookies.get(self.operator_cookie, ""))
        if session is None:
            return None
        person = self.people.resume(session.name, session.digest)
        if self.disturber.ends_session(session.id):
            self.sessions.close(session)
        return Operator(session, person, self.served.get(session.id)) if person else None

    def admit(self, request: Request) -> Visit:
        """Return the visit of a form; a new browser gets its id."""
        visit = self.visit(request)
        return self.begin_anew(visit) if visit.session is None and not visit.operator else visit

    def begin_anew(self, visit: Visit) -> Visit:
        """Return the visit as that of a browser that gets another id."""
        visit = replace(visit, customer=new_customer_id(), is_new=True)
        visit.request.state.visit = visit
        return visit

    def serve(self, operator: Operator, conversation: str | None) -> None:
        """Let an operator's browser act for a conversation, or for none."""
        self.served.pop(operator.session.id, None)
        if conversation is not None:
            self.served[operator.session.id] = conversation
            if len(self.served) > _MAX_SERVED:
                self.served.popitem(last=False)

    def is_own_form(self, visit: Visit, token: str) -> bool:
        """Return whether a form is one that this visitor was shown."""
        tokens = self.sessions.forms if visit.operator else self.forms
        return tokens.check(visit.form_owner, token)

    def leave_notice(self, visit: Visit, notice: Notice, *, is_known: bool = True) -> None:
        """Keep a notice for the visitor's next page.

        Args:
            visit: Request of the form.
            notice: Notice.
            is_known: Whether the shop has a conversation of the visitor.
        """
        reader = Reader.CUSTOMER if is_known else Reader.STRANGER
        self.notices.put(visit.owner, notice, Reader.OPERATOR if visit.operator else reader)

    async def knows(self, visit: Visit) -> bool:
        """Return whether the shop has a conversation of the visitor."""
        session = visit.session
        if session is None or visit.is_new:
            return False
        return await self.read(lambda db: db.get(CustomerSession, session) is not None)

    async def read(self, query: Callable[[DatabaseSession], _Found]) -> _Found:
        """Run a query in a thread, without a write lock."""

        def run() -> _Found:
            with self.reader.reading() as db:
                return query(db)

        return await run_in_threadpool(run)

    async def show(
        self,
        visit: Visit,
        template: str,
        values: Mapping[str, Any],
        *,
        status: int = 200,
        takes_notice: bool = True,
    ) -> Response:
        """Return a rendered page.

        Args:
            visit: Request of the page.
            template: Name of its template.
            values: Values of the template.
            status: HTTP status.
            takes_notice: Whether the page shows the notice that waits.
        """

        def query(db: DatabaseSession) -> dict[str, Any]:
            said = read_chat(db, visit.session, self.book) if self.chat else []
            return {"shopper": find_shopper(db, visit.session), "said": said}

        known = await self.read(query)
        notice = self.notices.take(visit.owner) if takes_notice else None
        return self._render(visit, template, known | dict(values), notice, status)

    def show_away(self, visit: Visit) -> Response:
        """Return the page that needs no database."""
        values = {"reason": "database_away", "shopper": Shopper(), "said": []}
        return self._render(visit, "refused.html", values, None, 503)

    def _render(
        self,
        visit: Visit,
        template: str,
        values: Mapping[str, Any],
        notice: Notice | None,
        status: int,
    ) -> Response:
        tokens = self.sessions.forms if visit.operator else self.forms
        content = self.templates.get_template(template).render(
            w=visit.words,
            label=lambda key: visit.words(self.disturber.label(key)),
            language=visit.words.language,
            visit=visit,
            path=visit.request.url.path,
            languages=_language_links(visit.request),
            csrf=tokens.token(visit.form_owner),
            new_form=lambda: secrets.token_urlsafe(_FORM_BYTES),
            disturbs=self.config.disturb,
            has_chat=self.chat is not None and (not visit.operator or visit.served_by),
            notice=notice,
            typed=notice.typed if notice else {},
            console=self.config.console.rstrip("/"),
            now=self.clock(),
            **values,
        )
        return self._finish(visit, HTMLResponse(content, status))

    def go(self, visit: Visit, address: str) -> Response:
        """Return the answer that makes a browser read another page."""
        return self._finish(visit, go_to(address))

    def _finish(self, visit: Visit, response: Response) -> Response:
        keep_language(response, visit.request.query_params.get("language", ""), self.config)
        if visit.is_new and visit.customer is not None:
            response.set_cookie(
                self.customer_cookie,
                visit.customer,
                max_age=_CUSTOMER_SECONDS,
                secure=self.config.is_https,
                httponly=True,
                samesite="lax",
            )
        return response


def _language_links(request: Request) -> dict[str, str]:
    """Return the address of this page in each language.

    It is relative, because a path such as `//name` would be the address of another host.
    """
    return {
        language: f"?{request.url.include_query_params(language=language).query}"
        for language in LANGUAGES
    }
