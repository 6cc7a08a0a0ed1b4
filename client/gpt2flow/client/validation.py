"""Validation of what callers pass, before anything is sent.

Each function returns the value as the protocol takes it. It raises `SettingsError` for any other,
with the name of the parameter, its value, and what is allowed. Limits of a model are not checked
here: its server knows them.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from numbers import Real
from reprlib import Repr
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gpt2flow.client.errors import SettingsError

_Message = TypeVar("_Message", bound=Message)

UINT32 = (0, 2**32 - 1)
_UINT64 = (0, 2**64 - 1)
_INT32 = (-(2**31), 2**31 - 1)
_MAX_FLOAT = float.fromhex("0x1.fffffep+127")

# An iterable that is no sequence of values: its items are characters, bytes, keys, or unordered.
_NO_SEQUENCE = (str, bytes, bytearray, memoryview, Mapping, AbstractSet)

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def invalid(name: str, value: object, rule: str) -> SettingsError:
    """Return the error of a value, which states what is allowed."""
    try:
        shown = " ".join(_short.repr(value).split())
    except Exception:  # noqa: BLE001 - a huge number, or an object of the caller that cannot be shown
        shown = f"of type {type(value).__name__}"
    return SettingsError(f"{name} is {shown}, must be {rule}")


def check_type(name: str, value: object, kinds: tuple[type, ...], rule: str) -> None:
    """Check that a value is an instance of one of several classes."""
    if not isinstance(value, kinds):
        raise invalid(name, value, rule)


def text(name: str, value: object) -> str:
    """Return a text that UTF-8 can encode."""
    if not isinstance(value, str):
        raise invalid(name, value, "text (str)")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"{value[error.start]!a} at index {error.start}"
        raise invalid(name, value, f"text without lone surrogates, such as {found}") from None
    return value


def boolean(name: str, value: object) -> bool:
    """Return a value that must be True or False."""
    if not isinstance(value, bool):
        raise invalid(name, value, "True or False")
    return value


def integer(name: str, value: Any, bounds: tuple[int, int] | None = None) -> int:
    """Return a whole number, within bounds if given; NumPy's are accepted."""
    rule = f"a whole number from {bounds[0]} to {bounds[1]}" if bounds else "a whole number"
    try:
        whole = operator.index(value)
    except TypeError:
        raise invalid(name, value, rule) from None
    if isinstance(value, bool) or (bounds and not bounds[0] <= whole <= bounds[1]):
        raise invalid(name, value, rule)
    return whole


def number(name: str, value: object) -> float:
    """Return a number, which may be infinite or NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid(name, value, "a number (int or float)")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def float32(name: str, value: object) -> float:
    """Return a finite number that the protocol's `float` can hold."""
    converted = number(name, value)
    # Comparisons with NaN are false.
    if not -_MAX_FLOAT <= converted <= _MAX_FLOAT:
        raise invalid(name, value, f"finite, from {-_MAX_FLOAT:.4g} to {_MAX_FLOAT:.4g}")
    return converted


def sequence(name: str, value: Any, rule: str) -> list[Any]:
    """Return the items of any sequence or iterator, which is read once."""
    if isinstance(value, _NO_SEQUENCE):
        raise invalid(name, value, rule)
    try:
        items = iter(value)
    except TypeError:
        raise invalid(name, value, rule) from None
    return list(items)


def token_ids(name: str, value: object, rule: str = "token ids, such as (464, 2068)") -> list[int]:
    """Return a sequence of token ids."""
    items = sequence(name, value, rule)
    low, high = UINT32
    if all(type(item) is int and low <= item <= high for item in items):
        return items
    return [integer(f"{name}[{i}]", item, UINT32) for i, item in enumerate(items)]


_KINDS: dict[int, tuple[Callable[[str, Any], Any], str]] = {
    FieldDescriptor.TYPE_STRING: (text, 'texts, such as ("a", "b")'),
    FieldDescriptor.TYPE_BOOL: (boolean, "booleans"),
    FieldDescriptor.TYPE_FLOAT: (float32, "numbers, such as (0.5, 1.0)"),
    FieldDescriptor.TYPE_INT32: (lambda name, value: integer(name, value, _INT32), ""),
    FieldDescriptor.TYPE_UINT32: (
        lambda name, value: integer(name, value, UINT32),
        "whole numbers, such as (1, 2)",
    ),
    FieldDescriptor.TYPE_UINT64: (lambda name, value: integer(name, value, _UINT64), ""),
}


@dataclasses.dataclass(frozen=True)
class _Field:
    """Field of a message that holds numbers, texts or booleans.

    Attributes:
        name: Name of the field, and of the attribute of a dataclass.
        check: Check of one value.
        rule: Description of several values; empty if the field holds one.
        may_be_none: Whether the field may be absent.
    """

    name: str
    check: Callable[[str, Any], Any]
    rule: str
    may_be_none: bool

    def valid(self, value: Any) -> Any:
        """Return a value as the field takes it."""
        if self.rule:
            items = sequence(self.name, value, self.rule)
            return tuple(self.check(f"{self.name}[{i}]", item) for i, item in enumerate(items))
        return None if value is None and self.may_be_none else self.check(self.name, value)


@cache
def _fields(message: Any, owner: Any) -> tuple[_Field, ...]:
    """Return the fields of a message that a dataclass has as attributes.

    Args:
        message: Class of the message.
        owner: The dataclass.
    """
    names = {field.name for field in dataclasses.fields(owner)}
    found = []
    for field in message.DESCRIPTOR.fields:
        if field.type in _KINDS and field.name in names:
            check, rule = _KINDS[field.type]
            repeated = isinstance(field.default_value, list)
            found.append(_Field(field.name, check, rule if repeated else "", field.has_presence))
    return tuple(found)


def check_fields(instance: object, *messages: Any) -> None:
    """Check the attributes of a frozen dataclass that messages have as fields.

    Attributes are replaced by values of the field's type: a tuple for a repeated field.

    Args:
        instance: Instance of the dataclass.
        messages: Classes of the messages.

    Raises:
        SettingsError: A value does not fit its field.
    """
    owner: Any = type(instance)
    for message in messages:
        for field in _fields(message, owner):
            object.__setattr__(instance, field.name, field.valid(getattr(instance, field.name)))


def fill(message: type[_Message], source: object, **others: Any) -> _Message:
    """Return a message with fields from the attributes of a dataclass.

    Args:
        message: Class of the message.
        source: Instance of the dataclass, whose attributes are checked.
        others: Fields that hold messages.
    """
    kind: Any = message
    owner: Any = type(source)
    values = {field.name: getattr(source, field.name) for field in _fields(kind, owner)}
    return message(**values, **others)
