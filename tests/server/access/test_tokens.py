"""Token files: callers, expiry, and errors that never show a token."""

import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from gpt2flow.files.tokens import Right, make_token, read_token_file
from gpt2flow.server.access.permissions import Caller
from gpt2flow.server.access.tokens import read_tokens
from gpt2flow.server.errors import ConfigError, UnauthenticatedError

DIGEST = "0" * 64
GOOD = f"[[token]]\nname = 'a'\nsha256 = '{DIGEST}'\n"
SECOND = "[[token]]\nname = 'b'\n"
FIELDS = (
    "name, sha256, models, max_requests, max_priority, max_new_tokens, max_candidates, "
    "max_beams, may, up_to, expires"
)


def test_a_made_token_is_valid_for_its_entry(tmp_path: Path) -> None:
    token, entry = make_token("shop-agent", ConfigError)
    assert len(token) >= 43
    assert token not in entry
    assert make_token("shop-agent", ConfigError)[0] != token
    path = tmp_path / "tokens.toml"
    path.write_text(GOOD + entry + "max_requests = 3\nmax_candidates = 2\nmax_beams = 4\n")
    caller = read_tokens(path).caller_of(token)
    assert caller == Caller("shop-agent", max_requests=3, max_candidates=2, max_beams=4)
    with pytest.raises(UnauthenticatedError):
        read_tokens(path).caller_of(token[:-1])


def test_a_token_expires_at_the_time_of_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, entry = make_token("a", ConfigError)
    path = tmp_path / "tokens.toml"
    path.write_text(entry + "expires = 2030-01-01T00:00:00+01:00\n")
    tokens = read_tokens(path)
    for hour, minute, valid in ((22, 59, True), (23, 0, False)):
        now = datetime(2029, 12, 31, hour, minute, tzinfo=UTC)
        monkeypatch.setattr(tokens, "_clock", lambda now=now: now)
        if valid:
            assert tokens.caller_of(token).name == "a"
        else:
            with pytest.raises(UnauthenticatedError, match="the token of 'a' has expired"):
                tokens.caller_of(token)


@pytest.mark.parametrize("name", ["", "-a", "a b", 'a"', "a\n", "x" * 65, "ü"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 64 of the characters"):
        make_token(name, ConfigError)


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
        (GOOD + "up_to = -1", "up_to: Input should be greater than or equal to 0"),
        (GOOD + "up_to = 'nan'", "up_to: Input should be a finite number"),
        (GOOD + "up_to = '0.001'", "up_to: Decimal input should have no more than 2 decimal"),
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
    ],
)
def test_an_error_names_entry_and_field(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    message = str(caught.value)
    assert message.startswith(f"--tokens {path}: ")
    assert expected in message
    assert "\n" not in message
    assert "g2f_secret" not in message


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    with pytest.raises(ConfigError, match=r"tokens\.toml: No such file or directory"):
        read_tokens(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"tokens\.toml: 'utf-8' codec can't decode"):
        read_tokens(path)


def test_an_approver_has_a_limit(tmp_path: Path) -> None:
    _, entry = make_token("ben", ConfigError, may="approve", up_to=Decimal("500.50"))
    path = tmp_path / "tokens.toml"
    path.write_text(
        entry
        + entry.replace("ben", "eva")
        .replace('"500.50"', "500")
        .replace(token := tomllib.loads(entry)["token"][0]["sha256"], token[::-1])
    )
    assert [(each.may, each.up_to) for each in read_token_file(path, ConfigError)] == [
        ("approve", Decimal("500.50")),
        ("approve", Decimal(500)),
    ]


@pytest.mark.parametrize(
    "amount,may",
    [("-1", "approve"), ("0.001", "approve"), ("nan", "approve"), ("5", "handle"), ("5", None)],
)
def test_an_invalid_limit_is_refused(amount: str, may: Right | None) -> None:
    with pytest.raises(ConfigError, match="up-to"):
        make_token("ben", ConfigError, may=may, up_to=Decimal(amount))


def test_a_made_entry_is_valid_toml() -> None:
    _, entry = make_token("a@b.c", ConfigError)
    assert tomllib.loads(entry)["token"][0]["name"] == "a@b.c"
