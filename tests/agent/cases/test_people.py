"""People and their tokens: who is known, and what each may do."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gpt2flow.agent.cases.people import NotAllowedError, Person, check_assignee, identify
from gpt2flow.agent.errors import InputError
from gpt2flow.files.tokens import Right, make_token

NOW = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)


def write_tokens(folder: Path, *entries: str) -> Path:
    path = folder / "tokens.toml"
    path.write_text("\n".join(entries), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "may, up_to, expected",
    [
        ("handle", None, Person("ben")),
        ("approve", None, Person("ben", may_approve=True)),
        ("approve", "99.90", Person("ben", may_approve=True, up_to=Decimal("99.90"))),
    ],
)
def test_a_person_is_known_by_their_token(
    tmp_path: Path, may: Right, up_to: str | None, expected: Person
) -> None:
    limit = None if up_to is None else Decimal(up_to)
    token, entry = make_token("ben", InputError, may=may, up_to=limit)
    _, other = make_token("eva", InputError, may="approve")
    assert identify(write_tokens(tmp_path, other, entry), token, NOW) == expected


@pytest.mark.parametrize("token", ["", "g2f_unknown", "\udc80", "x" * 10**6])
def test_an_unknown_token_is_refused(tmp_path: Path, token: str) -> None:
    _, entry = make_token("ben", InputError, may="approve")
    path = write_tokens(tmp_path, entry)
    with pytest.raises(NotAllowedError) as caught:
        identify(path, token, NOW)
    assert str(caught.value) == f"the token is unknown in {path}"


def test_a_token_expires(tmp_path: Path) -> None:
    token, entry = make_token("ben", InputError, may="approve")
    path = write_tokens(tmp_path, entry + "expires = 2026-03-04T10:30:00Z\n")
    assert identify(path, token, NOW - timedelta(seconds=1)).name == "ben"
    with pytest.raises(NotAllowedError, match=r"^the token of 'ben' has expired$"):
        identify(path, token, NOW)


def test_the_token_of_a_program_is_no_persons(tmp_path: Path) -> None:
    token, entry = make_token("shop-agent", InputError)
    path = write_tokens(tmp_path, entry)
    with pytest.raises(NotAllowedError, match=r"^'shop-agent' may not handle cases; the entry in"):
        identify(path, token, NOW)


@pytest.mark.parametrize("name", ["agent", "customer", "Agent", "CUSTOMER"])
def test_nobody_has_the_name_of_an_actor_that_is_no_person(tmp_path: Path, name: str) -> None:
    """The history would not say who it was."""
    token, entry = make_token(name, InputError, may="approve")
    path = write_tokens(tmp_path, entry)
    with pytest.raises(NotAllowedError, match=f"^'{name}' is no name of a person; rename"):
        identify(path, token, NOW)
    if name != "agent":
        with pytest.raises(InputError, match=r"must be agent or a person in .*: none$"):
            check_assignee(path, name, NOW)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = write_tokens(tmp_path, "[[token]]\nname = 'ben'\n")
    for use in (
        lambda: identify(path, "x", NOW),
        lambda: check_assignee(path, "ben", NOW),
    ):
        with pytest.raises(InputError, match=r"tokens\.toml: .*entry 1 \('ben'\): sha256"):
            use()
    with pytest.raises(InputError, match="No such file"):
        check_assignee(tmp_path / "nowhere", "ben", NOW)


def test_a_case_goes_to_somebody_who_can_take_it(tmp_path: Path) -> None:
    _, ben = make_token("ben", InputError, may="handle")
    _, eva = make_token("eva", InputError, may="approve")
    _, old = make_token("old", InputError, may="approve")
    _, program = make_token("shop-agent", InputError)
    path = write_tokens(tmp_path, ben, eva, old + "expires = 2026-03-04T10:30:00Z\n", program)
    for name in ("ben", "eva", " eva ", "agent"):
        check_assignee(path, name, NOW)
    for name in ("bne", "", "Ben", "old", "shop-agent", "x" * 1000):
        with pytest.raises(InputError, match=r"^assignee is .*toml: ben, eva$") as caught:
            check_assignee(path, name, NOW)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "person, amount",
    [
        (Person("ben", may_approve=True), Decimal(10**9)),
        (Person("ben", may_approve=True), None),
        (Person("ben", may_approve=True, up_to=Decimal(100)), Decimal("100.00")),
        (Person("ben", may_approve=True, up_to=Decimal(0)), None),
    ],
)
def test_an_approver_may_decide(person: Person, amount: Decimal | None) -> None:
    person.check_approval(amount)


@pytest.mark.parametrize(
    "person, amount, message",
    [
        (Person("hal"), None, "hal may not decide claims"),
        (Person("hal", up_to=Decimal(100)), Decimal(1), "hal may not decide claims"),
        (
            Person("eva", may_approve=True, up_to=Decimal(100)),
            Decimal("100.01"),
            r"eva may approve up to 100\.00, and this is 100\.01$",
        ),
    ],
)
def test_others_may_not(person: Person, amount: Decimal | None, message: str) -> None:
    with pytest.raises(NotAllowedError, match=f"^{message}"):
        person.check_approval(amount)
