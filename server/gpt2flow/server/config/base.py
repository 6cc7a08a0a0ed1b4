"""Base class of settings, types of their values, and errors."""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from gpt2flow.files.documents import first_error
from gpt2flow.server.errors import ConfigError

_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
# Start of the address of a Unix socket.
UNIX: Final = "unix:"
_OUT_OF_RANGE: Final = {"greater_than_equal", "less_than_equal"}
_CONFLICT: Final = "conflict"
_FORMAT: Final = "format"
_BYTES_RULE: Final = "must be a number of bytes or of KB, MB, GB, KiB, MiB or GiB"


class Settings(BaseModel):
    """Group of settings: frozen, strictly typed, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is unusable, or two contradict each other.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _config_error(type(self), error) from error


def setting(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    option: str | None = None,
    shown: str | None = None,
) -> Any:
    """Return a pydantic field that describes itself.

    Args:
        default: Default value, or a function that makes it.
        meaning: Description for `--help` and for the reference in `docs/`.
        low: Least allowed value.
        high: Greatest allowed value.
        option: Command-line option; None derives it from the field's name.
        shown: Default as the documentation shows it; None is the value itself.
    """
    maker = {"default_factory": default} if callable(default) else {"default": default}
    return Field(
        **maker,
        description=meaning,
        ge=low,
        le=high,
        json_schema_extra={"option": option, "shown": shown},
    )


def conflict(message: str) -> PydanticCustomError:
    """Return the error of contradictory settings, shown as it is."""
    return PydanticCustomError(_CONFLICT, "{message}", {"message": message})


def value_type(info: FieldInfo) -> tuple[Any, list[Any]]:
    """Return the type of a field without None, and its metadata."""
    annotation: Any = info.annotation
    metadata = list(info.metadata)
    choices = [each for each in get_args(annotation) if each is not NoneType]
    if len(choices) == 1 and get_origin(annotation) is not tuple:
        [annotation] = choices
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata += more
    return annotation, metadata


def parse_address(address: str, field: str = "address") -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets.

    Args:
        address: Text of a user.
        field: Name of the setting, for the error.

    Raises:
        ConfigError: The text has another form.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ConfigError(f"{field} {address!r} is not of the form host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_endpoint(address: str, field: str = "address") -> tuple[str, int | None]:
    """Split `host:port`; a Unix socket, `unix:PATH`, has no port.

    Args:
        address: Text of a user.
        field: Name of the setting, for the error.

    Raises:
        ConfigError: The text has another form.
    """
    if address.startswith(UNIX):
        return address, None
    try:
        return parse_address(address, field)
    except ConfigError as error:
        raise ConfigError(f"{error} or {UNIX}PATH") from error


def parse_bytes(field: str, text: str) -> int:
    """Read an amount of memory: `1000000`, `512MB` (10^6), `1.5 GiB` (2^30).

    Raises:
        ConfigError: The text has another form.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f"{field} is {text!r}, {_BYTES_RULE}")
    return int(Decimal(match[1]) * _UNITS[match[2]])


def _read_bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes("", value)
    except ConfigError as error:
        raise PydanticCustomError(_FORMAT, _BYTES_RULE) from error


def _read_files(value: object) -> object:
    """Return files by name, from a table or texts NAME=FILE."""
    if isinstance(value, Mapping):
        if not all(name and isinstance(path, str | Path) for name, path in value.items()):
            raise PydanticCustomError(_FORMAT, "must have a name and a path for each file")
        return value
    if not isinstance(value, list | tuple):
        raise PydanticCustomError(_FORMAT, "must be a table of files by name")
    files: dict[str, Path] = {}
    for entry in value:
        name, equals, path = str(entry).partition("=")
        if not (name and equals and path):
            raise PydanticCustomError(_FORMAT, "must be of the form NAME=FILE")
        if name in files:
            raise PydanticCustomError(_FORMAT, "must not have two files of one name")
        files[name] = Path(path)
    return files


def _read_address(value: object) -> object:
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    try:
        return parse_address(value)
    except ConfigError as error:
        raise PydanticCustomError(_FORMAT, "must be of the form host:port") from error


def _check_port(address: tuple[str, int]) -> tuple[str, int]:
    if not 0 <= address[1] <= 65535:
        raise PydanticCustomError(_FORMAT, "must have a port in [0, 65535]")
    return address


ByteCount = Annotated[int, BeforeValidator(_read_bytes)]
"""Number of bytes; text such as `512MB` is accepted."""

Address = Annotated[tuple[str, int], BeforeValidator(_read_address), AfterValidator(_check_port)]
"""Host and port; text such as `127.0.0.1:9464` is accepted."""

FilePath = Annotated[Path, Field(strict=False)]
"""Path of a file or directory."""

ChoiceFiles = Annotated[Mapping[str, FilePath], BeforeValidator(_read_files)]
"""Files by name; a list of texts such as `articles=articles.txt` is accepted."""


def _config_error(kind: type[Settings], error: ValidationError) -> ConfigError:
    """Return the error of a group as one line."""
    first = first_error(error)
    path = ".".join(map(str, first["loc"]))
    if first["type"] == _CONFLICT:
        return ConfigError(first["msg"])
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(kind.model_fields))
        return ConfigError(f"{path} is unknown, must be one of {allowed}", field=path)
    value = f"{path} is {first['input']!r}"
    return ConfigError(f"{value}, {_rule(kind, first)}", field=path)


def _rule(kind: type[Settings], error: ErrorDetails) -> str:
    """Return what a value must be."""
    if error["type"] in _OUT_OF_RANGE:
        low, high = _range(kind.model_fields[str(error["loc"][0])])
        return f"must be in [{low}, {high}]"
    if error["type"] == "model_type":
        return "must be a table"
    return error["msg"].replace("Input should", "must")


def _range(field: FieldInfo) -> tuple[float, float]:
    """Return the least and the greatest value of a field."""
    limits = {
        name: value
        for metadata in value_type(field)[1]
        for name in ("ge", "le")
        if (value := getattr(metadata, name, None)) is not None
    }
    return limits["ge"], limits["le"]
