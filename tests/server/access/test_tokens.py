"""Token files of the server: callers with their limits, and expiry."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpt2flow.files.tokens import make_token
from gpt2flow.server.access.permissions import Caller
from gpt2flow.server.access.tokens import read_tokens
from gpt2flow.server.errors import ConfigError, UnauthenticatedError

GOOD = f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\n"


def test_a_caller_has_the_limits_of_their_entry(tmp_path: Path) -> None:
    token, entry = make_token("shop-agent", ConfigError)
    path = tmp_path / "tokens.toml"
    path.write_text(GOOD + entry + "max_requests = 3\nmax_candidates = 2\nmax_beams = 4\n")
    caller = read_tokens(path).caller_of(token)
    assert caller == Caller(
        "shop-agent", max_requests=3, max_candidates=2, max_beams=4, manage_models=False
    )
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


@pytest.mark.parametrize(
    "content, expected",
    [
        (None, "No such file or directory"),
        ("token = []", "has no [[token]] entry"),
        (GOOD + "max_beams = 0", "entry 1 ('a'): max_beams: Input should be greater than"),
    ],
)
def test_an_invalid_file_is_an_error_of_the_configuration(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    path = tmp_path / "tokens.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    assert str(caught.value).startswith(f"--tokens {path}: ")
    assert expected in str(caught.value)
