"""Bearer tokens: their file, their verification, their generation.

Only the SHA-256 of a token is stored. A token has 256 random bits, so it cannot be found by brute
force; a slow hash, as for passwords, would add nothing.
"""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails

from gpt2flow.files.documents import first_error
from gpt2flow.server.access.permissions import Caller
from gpt2flow.server.errors import ConfigError, UnauthenticatedError
from gpt2flow.server.params import MAX_PRIORITY

# Scanners for leaked secrets find tokens by this prefix.
_PREFIX = "g2f_"
_RANDOM_BYTES = 32
_NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_NAME_RULE = "1 to 64 of the characters A-Z a-z 0-9 . _ @ -, the first a letter or digit"

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
_ModelName = Annotated[str, StringConstraints(min_length=1)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Entry(BaseModel):
    """Entry of the file: a caller and its tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: _Name
    sha256: Annotated[list[_Digest], BeforeValidator(_as_list), Field(min_length=1)]
    models: Annotated[list[_ModelName], Field(min_length=1)] | None = None
    max_requests: int | None = Field(default=None, ge=1)
    max_priority: int | None = Field(default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_candidates: int | None = Field(default=None, ge=1)
    max_beams: int | None = Field(default=None, ge=1)
    expires: AwareDatetime | None = None

    def caller(self) -> Caller:
        return Caller(
            self.name,
            models=None if self.models is None else frozenset(self.models),
            max_requests=self.max_requests,
            max_priority=self.max_priority,
            max_new_tokens=self.max_new_tokens,
            max_candidates=self.max_candidates,
            max_beams=self.max_beams,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    token: list[_Entry] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class _Token:
    digest: str
    caller: Caller
    expires: datetime | None


class Tokens:
    """Tokens and their callers."""

    def __init__(
        self,
        tokens: Sequence[_Token],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tokens = tokens
        self._clock = clock

    def caller_of(self, token: str) -> Caller:
        """Return the caller of a token.

        Raises:
            UnauthenticatedError: The token is unknown or has expired.
        """
        digest = token_digest(token)
        found = None
        # All are compared, each in constant time, so that the duration discloses nothing.
        for each in self._tokens:
            if hmac.compare_digest(each.digest, digest):
                found = each
        if found is None:
            raise UnauthenticatedError("the token is unknown")
        if found.expires is not None and self._clock() >= found.expires:
            raise UnauthenticatedError(f"the token of {found.caller.name!r} has expired")
        return found.caller


def read_tokens(path: Path) -> Tokens:
    """Read a file of tokens.

    Raises:
        ConfigError: The file is unreadable or invalid; the error names file, entry and field.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        file = _File.model_validate(content)
    except OSError as error:
        raise ConfigError(f"--tokens {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"--tokens {path}: {_explain(error, content)}") from error
    except ValueError as error:  # Neither TOML nor UTF-8.
        raise ConfigError(f"--tokens {path}: {' '.join(str(error).split())}") from error
    _check_unique(path, "name", [entry.name for entry in file.token])
    _check_unique(path, "sha256", [digest for entry in file.token for digest in entry.sha256])
    return Tokens(
        [
            _Token(digest, entry.caller(), entry.expires)
            for entry in file.token
            for digest in entry.sha256
        ]
    )


def make_token(name: str) -> tuple[str, str]:
    """Generate a token.

    Args:
        name: Name of its caller.

    Returns:
        The token, and its entry for the file of tokens.

    Raises:
        ConfigError: The name is invalid.
    """
    if not re.fullmatch(_NAME, name):
        raise ConfigError(f"name is {name!r}, must be {_NAME_RULE}")
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return token, f'[[token]]\nname = "{name}"\nsha256 = "{token_digest(token)}"\n'


def token_digest(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _explain(error: ValidationError, content: dict[str, Any]) -> str:
    """Return the error of a file as one line."""
    first = first_error(error)
    match first["loc"]:
        case ("token", int(index)):
            return f"{_entry(content, index)}: must be a table"
        case ("token", int(index), str(field), *_):
            return f"{_entry(content, index)}: {field}: {_rule(field, first)}"
        case ("token",):
            return "has no [[token]] entry"
        case where:
            return f"{'.'.join(map(str, where))}: unknown; the file has [[token]] entries only"


def _entry(content: dict[str, Any], index: int) -> str:
    given = content["token"][index]
    name = given.get("name") if isinstance(given, dict) else None
    return f"[[token]] entry {index + 1}" + (f" ({name!r})" if isinstance(name, str) else "")


def _rule(field: str, error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown field; allowed: {', '.join(_Entry.model_fields)}"
    if field == "sha256" and error["type"] != "missing":
        # The value is not shown: by mistake it may be the token itself.
        return "must be 64 digits 0-9 a-f, or a list of such"
    if field == "name" and error["type"] == "string_pattern_mismatch":
        return f"must be {_NAME_RULE}"
    return error["msg"]


def _check_unique(path: Path, field: str, values: Sequence[str]) -> None:
    [(value, count)] = Counter(values).most_common(1)
    if count > 1:
        raise ConfigError(f"--tokens {path}: two [[token]] entries have the {field} {value!r}")
