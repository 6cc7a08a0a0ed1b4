"""Schema of `cases.yaml`: deadlines of cases, and messages about them."""

from collections.abc import Collection, Sequence
from string import Formatter
from typing import Final, Literal, get_args

from pydantic import Field, field_validator

from gpt2flow.agent.flows.schema import Wording
from gpt2flow.files.documents import StrictModel

# Status in the inbox, in which deadlines apply.
Waiting = Literal["open", "awaiting_approval", "due"]
# Messages about cases: the first nine are to customers, the others to the staff.
CaseMessage = Literal[
    "approved",
    "approved_amount",
    "rejected",
    "replied",
    "taken",
    "expired",
    "undo_failed",
    "unavailable",
    "stopped",
    "due",
    "reminded",
    "escalated",
    "lapsed",
    "written",
]
# Messages to customers about payments.
PaymentMessage = Literal["refunded", "charge_refused"]
_LANGUAGES = ("en", "zh")
_MAX_MINUTES = 366 * 24 * 60
# Fields of every template, and those of single ones.
_FIELDS = ("case", "kind", "customer", "order")
_OWN_FIELDS: Final[dict[CaseMessage, str]] = {
    "approved_amount": "amount",
    "rejected": "text",
    "replied": "text",
    "taken": "name",
    "written": "text",
}
_PAYMENT_FIELDS = ("order", "amount")
# Messages that a file need not have, since they came later, and what is sent in their place.
_SUBSTITUTES: Final[dict[CaseMessage, CaseMessage]] = {"stopped": "unavailable"}
# Without it, the message would not say what somebody wrote or decided.
_NEEDED = ("amount", "text")


class Deadlines(StrictModel):
    """Minutes until a case that nobody took changes, from the change before.

    Attributes:
        remind: Minutes until the staff is reminded of it.
        escalate: Minutes from then until it is escalated.
        expire: Minutes from then until it expires.
    """

    remind: int = Field(gt=0, le=_MAX_MINUTES, strict=True)
    escalate: int = Field(gt=0, le=_MAX_MINUTES, strict=True)
    expire: int = Field(gt=0, le=_MAX_MINUTES, strict=True)


class CaseRules(StrictModel):
    """Deadlines of cases, and messages about them.

    Attributes:
        deadlines: Deadlines by status in the inbox.
        staff_language: Language of messages to the staff.
        messages: Message templates, by what happened.
        payments: Message templates about payments, by what happened.
    """

    deadlines: dict[Waiting, Deadlines]
    staff_language: Literal["en", "zh"] = "en"
    messages: dict[CaseMessage, Wording]
    payments: dict[PaymentMessage, Wording]

    @field_validator("deadlines")
    @classmethod
    def _has_every_status(cls, given: dict[Waiting, Deadlines]) -> dict[Waiting, Deadlines]:
        _check_complete(given, get_args(Waiting))
        return given

    @field_validator("messages")
    @classmethod
    def _are_complete(cls, given: dict[CaseMessage, Wording]) -> dict[CaseMessage, Wording]:
        # A template that fails when it is filled in would stop a decision, or a deadline.
        _check_complete(given, [name for name in get_args(CaseMessage) if name not in _SUBSTITUTES])
        for name, wording in given.items():
            own = _OWN_FIELDS.get(name)
            needed = [own] if own in _NEEDED else []
            _check_wording(name, wording, (*_FIELDS, own) if own else _FIELDS, needed)
        return {name: given[other] for name, other in _SUBSTITUTES.items()} | given

    @field_validator("payments")
    @classmethod
    def _name_the_amount(
        cls, given: dict[PaymentMessage, Wording]
    ) -> dict[PaymentMessage, Wording]:
        _check_complete(given, get_args(PaymentMessage))
        for name, wording in given.items():
            _check_wording(name, wording, _PAYMENT_FIELDS, _PAYMENT_FIELDS)
        return given


def _check_complete(given: Collection[str], needed: Sequence[str], where: str = "") -> None:
    if missing := [each for each in needed if each not in given]:
        raise ValueError(f"{where}lacks {', '.join(missing)}")


def _check_wording(
    name: str, wording: Wording, allowed: Sequence[str], needed: Sequence[str | None]
) -> None:
    _check_complete(wording, _LANGUAGES, f"{name}: ")
    for language, template in wording.items():
        where = f"{name}.{language}"
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        for _, field, form, conversion in parts:
            if field is not None and (field not in allowed or form or conversion):
                raise ValueError(
                    f"{where}: unknown field {{{field}}}; allowed: {', '.join(allowed)}"
                )
        used = [field for _, field, *_ in parts]
        for each in needed:
            if each not in used:
                raise ValueError(f"{where}: lacks the field {{{each}}}")
        if not template.strip():
            raise ValueError(f"{where}: is empty")
