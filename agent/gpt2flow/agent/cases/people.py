"""People who handle cases, identified by their tokens."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from gpt2flow.agent.cases.life import AGENT, CUSTOMER
from gpt2flow.agent.errors import InputError
from gpt2flow.files.tokens import TokenEntry, find_entry, read_token_file


class NotAllowedError(InputError):
    """Person who may not do this; nothing was changed."""


@dataclass(frozen=True)
class Person:
    """Person who handles cases.

    Attributes:
        name: Name in the file of tokens.
        may_approve: Whether the person may approve and reject claims.
        up_to: Largest amount that the person may approve; None is any.
    """

    name: str
    may_approve: bool = False
    up_to: Decimal | None = None

    def check_approval(self, amount: Decimal | None) -> None:
        """Check that the person may decide a claim.

        Args:
            amount: Amount to approve; None for a rejection.

        Raises:
            NotAllowedError: The person may not decide claims, or not approve that much.
        """
        if not self.may_approve:
            raise NotAllowedError(
                f"{self.name} may not decide claims; the entry in the tokens file needs"
                ' may = "approve"'
            )
        if amount is not None and self.up_to is not None and amount > self.up_to:
            raise NotAllowedError(
                f"{self.name} may approve up to {self.up_to:.2f}, and this is {amount:.2f}"
            )


def identify(tokens: Path, token: str, now: datetime) -> Person:
    """Return the person who holds a token.

    Args:
        tokens: File of tokens.
        token: Token of the person.
        now: Current time.

    Raises:
        InputError: The file is invalid.
        NotAllowedError: The token is unknown or has expired, or is no person's.
    """
    entry = find_entry(read_token_file(tokens, InputError), token)
    if entry is None:
        raise NotAllowedError(f"the token is unknown in {tokens}")
    return person_of(entry, tokens, now)


def person_of(entry: TokenEntry, tokens: Path, now: datetime) -> Person:
    """Return the person of an entry.

    Args:
        entry: Entry of the file of tokens.
        tokens: File of tokens, for the error.
        now: Current time.

    Raises:
        NotAllowedError: The entry has expired, or is no person's.
    """
    if _is_expired(entry, now):
        raise NotAllowedError(f"the token of {entry.name!r} has expired")
    if entry.may is None:
        raise NotAllowedError(
            f"{entry.name!r} may not handle cases; the entry in {tokens} needs"
            ' may = "handle" or may = "approve"'
        )
    if _is_reserved(entry.name):
        raise NotAllowedError(
            f"{entry.name!r} is no name of a person; rename the entry in {tokens}"
        )
    return Person(entry.name, may_approve=entry.may == "approve", up_to=entry.up_to)


def check_assignee(tokens: Path, name: str, now: datetime) -> None:
    """Check that an assignee is a known person, or the agent.

    A case of somebody whom nobody knows would wait forever: an assigned case has no deadline.

    Args:
        tokens: File of tokens.
        name: Name of the person.
        now: Current time.

    Raises:
        InputError: The file is invalid, or there is no such person in it.
    """
    people = [
        entry.name
        for entry in read_token_file(tokens, InputError)
        if entry.may is not None and not _is_expired(entry, now) and not _is_reserved(entry.name)
    ]
    if name.strip() not in (AGENT, *people):
        raise InputError(
            f"assignee is {name!r:.80}, must be {AGENT} or a person in {tokens}:"
            f" {', '.join(people) or 'none'}"
        )


def _is_expired(entry: TokenEntry, now: datetime) -> bool:
    return entry.expires is not None and now >= entry.expires


def _is_reserved(name: str) -> bool:
    return name.casefold() in {AGENT, CUSTOMER}
