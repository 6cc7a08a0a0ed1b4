"""Token files: making, reading and finding tokens, and their errors."""

import tomllib
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpt2flow.files.tokens import (
    Right,
    find_entry,
    make_token,
    read_token_file,
    token_digest,
)

DIGEST = "0" * 64
GOOD = f"[[token]]\nname = 'a'\nsha256 = '{DIGEST}'\n"
SECOND = "[[token]]\nname = 'b'\n"
FIELDS = (
    "name, sha256, models, max_requests, max_priority, max_new_tokens, max_candidates, "
    "max_beams, manage_models, may, up_to, expires"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def test_a_made_token_is_found_by_its_entry(path: Path) -> None:
    token, entry = make_token("shop-agent", LookupError)
    assert len(token) >= 43
    assert token.startswith("g2f_")
    assert token not in entry
    assert make_token("shop-agent", LookupError)[0] != token
    path.write_text(GOOD + entry)
    entries = read_token_file(path, LookupError)
    found = find_entry(entries, token)
    assert found is not None
    assert (found.name, found.sha256) == ("shop-agent", [token_digest(token)])
    assert (found.may, found.up_to, found.expires) == (None, None, None)
    for other in (token[:-1], token + " ", token.upper(), "", token_digest(token), "\udc80"):
        assert find_entry(entries, other) is None


def test_a_holder_may_have_several_tokens(path: Path) -> None:
    tokens = [make_token("a", LookupError)[0] for _ in range(2)]
    digests = ", ".join(f"'{token_digest(token)}'" for token in tokens)
    path.write_text(f"[[token]]\nname = 'a'\nsha256 = [{digests}]\n")
    entries = read_token_file(path, LookupError)
    assert [find_entry(entries, token) for token in tokens] == [entries[0]] * 2


@pytest.mark.parametrize("name", ["", "-a", "a b", 'a"', "a\n", "x" * 65, "ü"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(LookupError, match="must be 1 to 64 of the characters"):
        make_token(name, LookupError)


@pytest.mark.parametrize(
    "content,expected",
    [
        ("", "has no [[token]] entry"),
        ("token = []", "has no [[token]] entry"),
        ("token = 'x'", "has no [[token]] entry"),
        ("tokens = 1\n" + GOOD, "tokens: unknown; the file has [[token]] entries only"),
        ("token = ['x']", "[[token]] entry 1: must be a table"),
        ("name =", "Invalid value (at end of document)"),
        (GOOD + SECOND, "[[token]] entry 2 ('b'): sha256: Field required"),
        (GOOD + "max_requests = 0", "entry 1 ('a'): max_requests: Input should be greater than or"),
        (GOOD + "max_requests = true", "max_requests: Input should be a valid integer"),
        (GOOD + "max_priority = 101", "max_priority: Input should be less than or equal to 100"),
        (GOOD + "max_new_tokens = '5'", "max_new_tokens: Input should be a valid integer"),
        (GOOD + "max_candidates = 0", "max_candidates: Input should be greater than or equal to 1"),
        (GOOD + "max_beams = 1.5", "max_beams: Input should be a valid integer"),
        (GOOD + "models = []", "models: List should have at least 1 item"),
        (GOOD + "models = 'm'", "models: Input should be a valid list"),
        (GOOD + "may = 'steal'", "may: Input should be 'handle' or 'approve'"),
        (GOOD + "may = true", "may: Input should be 'handle' or 'approve'"),
        (GOOD + "up_to = -1", "up_to: Input should be greater than or equal to 0"),
        (GOOD + "up_to = '1e13'", "up_to: must be an amount of at most 1,000,000,000,000"),
        (GOOD + "up_to = 'nan'", "up_to: Input should be a finite number"),
        (GOOD + "up_to = '0.001'", "up_to: Decimal input should have no more than 2 decimal"),
        (GOOD + "up_to = 'much'", "up_to: Input should be a valid decimal"),
        (GOOD + "up_to = true", "up_to: "),
        (GOOD + "expires = 2030-01-01", "expires: Input should be a valid datetime"),
        (GOOD + "expires = 2030-01-01T00:00:00", "expires: Input should have timezone info"),
        (GOOD + "limit = 1", f"entry 1 ('a'): limit: unknown field; allowed: {FIELDS}"),
        (GOOD + GOOD, "two [[token]] entries have the name 'a'"),
        (GOOD + SECOND + f"sha256 = '{DIGEST}'", f"have the sha256 '{DIGEST}'"),
        (SECOND + "sha256 = 'g2f_secret'", "sha256: must be 64 digits 0-9 a-f, or a list of such"),
        (SECOND + "sha256 = []", "sha256: must be 64 digits 0-9 a-f, or a list of such"),
        (SECOND + "sha256 = 7", "sha256: must be 64 digits 0-9 a-f, or a list of such"),
        (SECOND + "token = 'g2f_secret'", "token: unknown field"),
        (f"[[token]]\nname = 'a b'\nsha256 = '{DIGEST}'", "entry 1 ('a b'): name: must be 1 to 64"),
        (f"[[token]]\nname = 7\nsha256 = '{DIGEST}'", "entry 1: name: Input should be a valid str"),
    ],
)
def test_an_error_names_entry_and_field(path: Path, content: str, expected: str) -> None:
    path.write_text(content)
    with pytest.raises(LookupError) as caught:
        read_token_file(path, LookupError)
    message = str(caught.value)
    assert message.startswith(f"--tokens {path}: ")
    assert expected in message
    assert "\n" not in message
    assert "g2f_secret" not in message


def test_an_unreadable_file_is_refused(path: Path) -> None:
    with pytest.raises(LookupError, match=r"tokens\.toml: No such file or directory"):
        read_token_file(path, LookupError)
    path.write_bytes(b"\xff")
    with pytest.raises(LookupError, match=r"tokens\.toml: 'utf-8' codec can't decode"):
        read_token_file(path, LookupError)


@pytest.mark.parametrize(
    "written, limit",
    [("'500.50'", "500.50"), ("500", "500"), ("99.9", "99.9"), ("0", "0"), ("'1e3'", "1000")],
)
def test_a_limit_is_exact_however_it_is_written(path: Path, written: str, limit: str) -> None:
    path.write_text(GOOD + f"may = 'approve'\nup_to = {written}\n")
    [entry] = read_token_file(path, LookupError)
    assert (entry.may, entry.up_to) == ("approve", Decimal(limit))


@pytest.mark.parametrize("may", ["handle", "approve"])
def test_a_made_entry_has_the_rights_of_its_holder(path: Path, may: Right) -> None:
    limit = Decimal("500.50") if may == "approve" else None
    token, text = make_token("ben", LookupError, may=may, up_to=limit)
    path.write_text(text)
    [entry] = read_token_file(path, LookupError)
    assert find_entry([entry], token) is entry
    assert (entry.may, entry.up_to) == (may, limit)


@pytest.mark.parametrize("amount", ["-1", "0.001", "nan", "snan", "inf", "1e13", "1e30", "1e400"])
def test_an_invalid_limit_is_refused(amount: str) -> None:
    with pytest.raises(LookupError, match=r"^up-to is .*, must be an amount of 0 to 1,000,000,000"):
        make_token("ben", LookupError, may="approve", up_to=Decimal(amount))


@pytest.mark.parametrize("may", ["handle", None])
def test_a_limit_needs_the_right_to_approve(may: Right | None) -> None:
    with pytest.raises(LookupError, match=r"^up-to limits approvals, so it needs may=approve$"):
        make_token("ben", LookupError, may=may, up_to=Decimal(5))


LIMITS = {
    "models": ["shop", 'a "b"\\\x7f é😀'],
    "max_requests": 3,
    "max_priority": -5,
    "max_new_tokens": 256,
    "max_candidates": 4,
    "max_beams": 2,
    "manage_models": True,
    "expires": datetime(2027, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
}


def test_a_made_entry_has_the_given_limits(path: Path) -> None:
    token, text = make_token("a", LookupError, limits=LIMITS)
    path.write_text(text, encoding="utf-8")
    [entry] = read_token_file(path, LookupError)
    assert find_entry([entry], token) is entry
    assert entry.model_dump(include=set(LIMITS)) == LIMITS


@pytest.mark.parametrize(
    "field,value,message",
    [
        ("models", [""], "model is '', must have at least 1 character"),
        ("models", ["\udc80"], "model is '\\udc80', must be a valid string"),
        ("max_requests", 0, "max-requests is 0, must be greater than or equal to 1"),
        ("max_priority", 101, "max-priority is 101, must be less than or equal to 100"),
        ("max_new_tokens", -1, "max-new-tokens is -1, must be greater than or equal to 1"),
        ("max_candidates", 0, "max-candidates is 0, must be greater than or equal to 1"),
        ("max_beams", 0, "max-beams is 0, must be greater than or equal to 1"),
        ("expires", datetime(2027, 1, 1), "expires is datetime.datetime(2027"),  # noqa: DTZ001
    ],
)
def test_an_invalid_limit_of_a_new_token_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(LookupError) as caught:
        make_token("a", LookupError, limits={field: value})
    assert str(caught.value).startswith(message)


def test_a_made_entry_is_valid_toml() -> None:
    _, entry = make_token("a@b.c", LookupError)
    assert tomllib.loads(entry)["token"][0]["name"] == "a@b.c"
