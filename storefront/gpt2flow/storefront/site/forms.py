"""Forms of the pages: read, checked, carried out, and answered."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.agent.report import Step
from gpt2flow.agent.turns.execution.arguments import is_plausible
from gpt2flow.storefront.counter import NotAllowedNow, Submission, find_step
from gpt2flow.storefront.site.notices import Notice, shown_again
from gpt2flow.storefront.site.site import Site
from gpt2flow.storefront.site.visits import Visit
from gpt2flow.web.website.requests import RefusedRequest, SignInRequired, read_fields

Fields = Mapping[str, str]
SERVE: Final = "/office/serve"
"""Page on which an operator chooses a conversation to serve."""
_FORM_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,6}")
_SIX_DIGITS: Final = re.compile(r"[0-9]{6}")
_MAX_TEXT: Final = 1000


class FormFieldError(Exception):
    """Field of a form that is not valid.

    Args:
        reason: Key of the reason among the words.
        fields: Fields of its text.
    """

    def __init__(self, reason: str, **fields: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fields = fields


@dataclass(frozen=True)
class ActionForm:
    """Form that carries out one action of the flows.

    Attributes:
        path: Path that takes the form.
        action: Name of the action, or how to read it from the fields.
        read: Function that reads the arguments; it raises `FormFieldError`.
        back: Page of the form, which shows a refusal.
        onward: Page after success.
        order: Name of the path's part that is the order of an office form; None for the shop.
        message: Field with what the customer wrote beside the values; None without one.
        shown: Names of the fields that the page shows again after a refusal.
        ends_visit: Whether the browser is somebody else's after success.
    """

    path: str
    action: str | Callable[[Fields], str]
    read: Callable[[Visit, Fields], Awaitable[Arguments]]
    back: Callable[[Visit, Fields], str]
    onward: Callable[[Visit, Fields, Step], str]
    order: str | None = None
    message: str | None = None
    shown: Sequence[str] = ()
    ends_visit: bool = False


def action_route(site: Site, form: ActionForm) -> Route:
    """Return the route that takes a form."""

    async def take(request: Request) -> Response:
        visit = site.admit(request)
        if form.order is not None and visit.operator is None:
            raise SignInRequired
        fields = await read_fields(request, site.config)
        return await _carry_out(site, form, visit, fields)

    return Route(form.path, take, methods=["POST"])


async def _carry_out(site: Site, form: ActionForm, visit: Visit, fields: Fields) -> Response:
    session = visit.in_office.conversation if form.order is not None else visit.session
    if session is None:
        # An operator who serves nobody.
        return await refuse(site, visit, {}, SERVE, "serve_first")
    number = form_id(fields)
    earlier = await site.read(lambda db: find_step(db, session, number))
    if earlier is not None:
        notice = outcome_notice(visit, earlier, hint=visit.words("sent_before"))
        return _answer(site, form, visit, notice, _next(form, visit, fields, earlier))
    back, typed = form.back(visit, fields), shown_again(fields, form.shown)
    if not site.is_own_form(visit, fields.get("csrf", "")):
        return await refuse(site, visit, typed, back, "form_expired")
    try:
        submission = await _submission(form, visit, fields, session, number)
    except FormFieldError as error:
        return await refuse(site, visit, typed, back, error.reason, **error.fields)
    try:
        step = await run_in_threadpool(site.counter.carry_out, submission)
    except NotAllowedNow:
        return await refuse(site, visit, typed, back, "not_allowed_now")
    report = step.report
    structlog.get_logger().info(
        "action",
        session=session,
        action=report.action,
        outcome=report.outcome,
        person=submission.operator,
    )
    notice = outcome_notice(visit, step, typed)
    return _answer(site, form, visit, notice, _next(form, visit, fields, step))


async def _submission(
    form: ActionForm, visit: Visit, fields: Fields, session: str, number: str
) -> Submission:
    arguments = await form.read(visit, fields)
    operator = visit.operator.person.name if visit.operator else None
    return Submission(
        session=session,
        form=number,
        action=form.action if isinstance(form.action, str) else form.action(fields),
        arguments=arguments,
        language=visit.words.language,
        message=_text(fields, form.message) if form.message else "",
        order=visit.request.path_params[form.order] if form.order else None,
        operator=operator if form.order is not None else visit.served_by,
    )


def _next(form: ActionForm, visit: Visit, fields: Fields, step: Step) -> str:
    """Return the page after a form."""
    is_done = step.report.result == "ok"
    return form.onward(visit, fields, step) if is_done else form.back(visit, fields)


def _answer(site: Site, form: ActionForm, visit: Visit, notice: Notice, target: str) -> Response:
    """Return the way to the page that shows a form's notice."""
    if form.ends_visit and notice.is_good and visit.served_by is None:
        visit = site.begin_anew(visit)
    site.leave_notice(visit, notice)
    return site.go(visit, target)


async def refuse(
    site: Site, visit: Visit, typed: Fields, back: str, reason: str, **words: object
) -> Response:
    """Return the way back to a form, whose page says why.

    Nothing is kept of what a browser typed that had no id yet: anybody can send a lot of it.

    Args:
        site: Storefront.
        visit: Request of the form.
        typed: Fields that the page shows again.
        back: Page of the form.
        reason: Key of the reason among the words.
        words: Fields of its text.
    """
    text = visit.words(f"reason_{reason}", **words)
    notice = Notice(text, is_good=False, typed={} if visit.is_new else typed)
    site.leave_notice(visit, notice, is_known=await site.knows(visit))
    return site.go(visit, back)


def outcome_notice(
    visit: Visit, step: Step, typed: Fields | None = None, *, hint: str = ""
) -> Notice:
    """Return what a page says about an action.

    A text that went to a contact, which may have a code, is never on a page.

    Args:
        visit: Request of the form.
        step: Action.
        typed: Fields that the page shows again if the action was refused.
        hint: Further text.
    """
    report = step.report
    is_good = report.result == "ok"
    typed = {} if is_good or typed is None else typed
    message = next(iter(report.messages), None)
    if message is not None and message.to is None:
        return Notice(message.text, is_good, hint, typed)
    values = {"contact": message.to if message else "", "order": report.used.get("order", "")}
    key = f"outcome_{report.action}_{report.outcome}"
    if not visit.words.has(key):
        # Flows of one's own may have other outcomes.
        key = "outcome_done" if is_good else "outcome_not_done"
    return Notice(visit.words(key, **values), is_good, hint, typed)


def form_id(fields: Fields) -> str:
    """Return the random id of a form.

    Raises:
        RefusedRequest: It has another form.
    """
    text = fields.get("form", "")
    if not _FORM_ID.fullmatch(text):
        raise RefusedRequest(400, "no_form")
    return text


async def no_arguments(_visit: Visit, _fields: Fields) -> Arguments:
    """Return the arguments of a form that has only a button."""
    return {}


def text_field(fields: Fields, name: str) -> str:
    """Return the text of a field that must have one.

    Raises:
        FormFieldError: It is empty, too long, or has control characters.
    """
    text = " ".join(_text(fields, name).split())
    if not text:
        raise FormFieldError(f"{name}_missing")
    return text


def _text(fields: Fields, name: str) -> str:
    text = fields.get(name, "").strip()
    if len(text) > _MAX_TEXT:
        raise FormFieldError("too_long", most=_MAX_TEXT)
    if not "".join(text.split()).isprintable():
        raise FormFieldError("unprintable")
    return text


def contact_field(fields: Fields) -> str:
    """Return the e-mail address or phone number of a form.

    Raises:
        FormFieldError: There is none, or it cannot be one.
    """
    text = text_field(fields, "contact")
    found = candidates(SlotKind.CONTACT, text)
    if len(found) != 1 or not is_plausible("contact", SlotKind.CONTACT, found[0]):
        raise FormFieldError("contact_wrong", contact=text[:80])
    return found[0]


def code_field(fields: Fields) -> str:
    """Return the code of a form.

    Raises:
        FormFieldError: It has another form.
    """
    text = re.sub(r"[ -]", "", fields.get("code", "").strip())
    if not _SIX_DIGITS.fullmatch(text):
        raise FormFieldError("code_wrong")
    return text


def quantity_field(fields: Fields) -> int:
    """Return the quantity of a form.

    Raises:
        FormFieldError: It is no whole number above 0.
    """
    text = fields.get("quantity", "").strip()
    if not _NUMBER.fullmatch(text) or int(text) < 1:
        raise FormFieldError("quantity_wrong", quantity=text[:20])
    return int(text)
