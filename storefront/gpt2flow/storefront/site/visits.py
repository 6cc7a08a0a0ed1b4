"""Visits: who asks for a page, and for which conversation."""

import re
import secrets
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from gpt2flow.agent.cases.people import Person
from gpt2flow.web.website.requests import SignInRequired
from gpt2flow.web.website.sessions import Session
from gpt2flow.web.website.words import Words

_PREFIX: Final = "web-"
_ID_BYTES: Final = 16
# Ids of other channels, such as of a chat platform, are never taken from a cookie.
_CUSTOMER_ID: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{{2 * _ID_BYTES}}}")


@dataclass(frozen=True)
class Operator:
    """Person of the back office who is signed in.

    Attributes:
        session: Session of the person.
        person: Person.
        serves: Id of the conversation that the person serves; None without one.
    """

    session: Session
    person: Person
    serves: str | None

    @property
    def conversation(self) -> str:
        """Id of the session that actions of the back office belong to."""
        return self.serves or f"office-{self.person.name}"


@dataclass(frozen=True)
class Visit:
    """Request of a page, with who makes it.

    Attributes:
        request: Request.
        words: Words in the language of the page.
        customer: Id of the browser's own conversation; None before its first form.
        operator: Operator who is signed in; None for customers.
        is_new: Whether the answer has to give the browser its id.
    """

    request: Request
    words: Words
    customer: str | None
    operator: Operator | None
    is_new: bool = False

    @property
    def session(self) -> str | None:
        """Id of the conversation that the pages of the shop act for."""
        served = self.operator.serves if self.operator else None
        return served or self.customer

    @property
    def owner(self) -> str:
        """Id that the notices of a browser are kept for."""
        return self.operator.session.id if self.operator else self.customer or ""

    @property
    def form_owner(self) -> str:
        """Id that the tokens of the page's forms are made for.

        An operator's form holds for the conversation that was served when it was shown.
        """
        if self.operator is None:
            # A browser has no id until its first form.
            return "" if self.is_new else self.owner
        return f"{self.owner} {self.operator.serves or ''}"

    @property
    def served_by(self) -> str | None:
        """Name of the operator who acts for the customer, if one does."""
        return self.operator.person.name if self.operator and self.operator.serves else None

    @property
    def in_office(self) -> Operator:
        """Operator of a page that only operators may see.

        Raises:
            SignInRequired: Nobody is signed in.
        """
        if self.operator is None:
            raise SignInRequired
        return self.operator


def new_customer_id() -> str:
    """Return a random id of a browser's conversation."""
    return f"{_PREFIX}{secrets.token_hex(_ID_BYTES)}"


def customer_id(cookie: str) -> str | None:
    """Return the id in a cookie; None if it has another form."""
    return cookie if _CUSTOMER_ID.fullmatch(cookie) else None
