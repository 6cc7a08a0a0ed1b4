"""Token files: who holds a bearer token, and what each may do.

Only the SHA-256 of a token is stored. A token has 256 random bits, so it cannot be found by brute
force; a slow hash, as for passwords, would add nothing.
"""

import hashlib
import hmac
import json
import re
import secrets
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

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

# Bound of a request's priority, either way.
MAX_PRIORITY = 100
# What a person may do with cases: handle them, or also approve and reject claims.
Right = Literal["handle", "approve"]
# Bound of a limit on approvals.
_MAX_AMOUNT = Decimal(10**12)

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


def _as_amount(value: Any) -> Any:
    # TOML has no decimals, and a float would round the cents.
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Amount = Annotated[
    Decimal,
    BeforeValidator(_as_amount),
    Field(ge=0, le=_MAX_AMOUNT, decimal_places=2, allow_inf_nan=False, strict=False),
]


class TokenEntry(BaseModel):
    """Entry of the file: a holder, its tokens and its limits.

    Attributes:
        name: Name of the holder.
        sha256: Digests of the holder's tokens.
        models: Models that the holder may call; None is all.
        max_requests: Most requests at a time.
        max_priority: Highest priority of a request.
        max_new_tokens: Most new tokens of a request.
        max_candidates: Most candidates of a request.
        max_beams: Most beams of a request.
        manage_models: Whether the holder may load and unload models.
        may: What a person may do with cases; None is nothing.
        up_to: Largest amount that the person may approve; None is any.
        expires: Time from which the tokens are invalid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: _Name
    sha256: Annotated[list[_Digest], BeforeValidator(_as_list), Field(min_length=1)]
    models: Annotated[list[_ModelName], Field(min_length=1)] | None = None
    max_requests: int | None = Field(default=None, ge=1)
    max_priority: int | None = Field(default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_candidates: int | None = Field(default=None, ge=1)
    max_beams: int | None = Field(default=None, ge=1)
    manage_models: bool = False
    may: Right | None = None
    up_to: _Amount | None = None
    expires: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    token: list[TokenEntry] = Field(min_length=1)


def read_token_file(path: Path, error: type[Exception]) -> list[TokenEntry]:
    """Read a file of tokens.

    Args:
        path: Path of the file.
        error: Class of the error to raise.

    Raises:
        error: The file is unreadable or invalid; the message names file, entry and field.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = _File.model_validate(content).token
    except OSError as cause:
        raise error(f"--tokens {path}: {cause.strerror}") from cause
    except ValidationError as cause:
        raise error(f"--tokens {path}: {_explain(cause, content)}") from cause
    except ValueError as cause:  # Neither TOML nor UTF-8.
        raise error(f"--tokens {path}: {' '.join(str(cause).split())}") from cause
    digests = [digest for entry in entries for digest in entry.sha256]
    for field, values in (("name", [entry.name for entry in entries]), ("sha256", digests)):
        [(value, count)] = Counter(values).most_common(1)
        if count > 1:
            raise error(f"--tokens {path}: two [[token]] entries have the {field} {value!r}")
    return entries


def find_entry(entries: Sequence[TokenEntry], token: str) -> TokenEntry | None:
    """Return the entry of a token; None if it is unknown."""
    digest = token_digest(token)
    found = None
    # All are compared, each in constant time, so that the duration discloses nothing.
    for entry in entries:
        for each in entry.sha256:
            if hmac.compare_digest(each, digest):
                found = entry
    return found


def make_token(
    name: str,
    error: type[Exception],
    *,
    may: Right | None = None,
    up_to: Decimal | None = None,
    limits: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, str]:
    """Generate a token.

    Args:
        name: Name of its holder.
        error: Class of the error to raise.
        may: What the holder may do with cases.
        up_to: Largest amount that the holder may approve.
        limits: Further fields of its entry; None leaves one out.

    Returns:
        The token, and its entry for the file of tokens.

    Raises:
        error: The name, the amount or a limit is invalid.
    """
    if not re.fullmatch(_NAME, name):
        raise error(f"name is {name!r}, must be {_NAME_RULE}")
    if up_to is not None:
        if may != "approve":
            raise error("up-to limits approvals, so it needs may=approve")
        is_in_range = up_to.is_finite() and 0 <= up_to <= _MAX_AMOUNT
        # Rounding fails on huge numbers.
        if not is_in_range or up_to != round(up_to, 2):
            raise error(
                f"up-to is {up_to}, must be an amount of 0 to {_MAX_AMOUNT:,} with two decimals"
            )
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    given = {field: value for field, value in limits.items() if value is not None}
    _check_limits(name, given, error)
    lines = ["[[token]]", f'name = "{name}"', f'sha256 = "{token_digest(token)}"']
    lines += [f"{field} = {_toml(value)}" for field, value in given.items()]
    lines += [f'may = "{may}"'] if may else []
    lines += [f'up_to = "{up_to}"'] if up_to is not None else []
    return token, "\n".join(lines) + "\n"


def _check_limits(name: str, limits: Mapping[str, Any], error: type[Exception]) -> None:
    """Check limits as those of a file are."""
    try:
        TokenEntry.model_validate({"name": name, "sha256": token_digest(""), **limits})
    except ValidationError as cause:
        first = first_error(cause)
        field = str(first["loc"][0])
        rule = re.sub(r"^(Input|List|String) should", "must", _rule(field, first))
        option = field.removesuffix("s") if field == "models" else field.replace("_", "-")
        raise error(f"{option} is {first['input']!r}, {rule}") from cause


def _toml(value: Any) -> str:
    """Return a value of a limit as TOML has it."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case datetime():
            return value.isoformat()
        case str():
            # Strings of JSON are those of TOML, except for one control character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return str(value)


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
        return f"unknown field; allowed: {', '.join(TokenEntry.model_fields)}"
    if field == "sha256" and error["type"] != "missing":
        # The value is not shown: by mistake it may be the token itself.
        return "must be 64 digits 0-9 a-f, or a list of such"
    if field == "name" and error["type"] == "string_pattern_mismatch":
        return f"must be {_NAME_RULE}"
    if field == "up_to" and error["type"] == "less_than_equal":
        return f"must be an amount of at most {_MAX_AMOUNT:,}"
    return error["msg"]
