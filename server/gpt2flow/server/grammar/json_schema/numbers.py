"""Numbers of JSON schemas, kept exactly or refused.

The grammar compiler reads every number as a double, and writes the shortest digits that denote
this double. A number survives that exactly, or it would become another one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from math import inf
from typing import Any, Final

from gpt2flow.server.errors import GrammarError

# Each integer up to here is a double of its own, and so are its neighbours.
MAX_INTEGER: Final = 2**53 - 1

# Largest numerator of a divisor in the compiler, as a decimal fraction without a point.
_MAX_DIVISOR: Final = 2**32 - 1
# Smallest divisor, as a negative power of ten.
_MAX_DECIMALS: Final = 9
# Significant digits that every double keeps.
_DIGITS: Final = 15


@dataclass(frozen=True, slots=True)
class InexactNumber:
    """Number that would become another one, by its literal."""

    literal: str

    def __str__(self) -> str:
        text = self.literal if len(self.literal) <= 40 else f"{self.literal[:40]}…"
        nearest = float(self.literal)
        if abs(nearest) in {0.0, inf}:
            return f"{text} is out of range"
        return (
            f"{text} has too many digits: integers are exact up to {MAX_INTEGER}, other numbers "
            f"to {_DIGITS} digits"
        )


def parse_json(source: str) -> object:
    """Return a JSON value, with an `InexactNumber` for each number not kept.

    Raises:
        GrammarError: The text is not JSON.
    """
    try:
        return DECODER.decode(source)
    except ValueError as error:
        raise GrammarError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise GrammarError("nested too deeply") from error


def parse_count(value: object) -> int | None:
    """Return a number of items or characters; None if it is none.

    JSON Schema counts 2.0 as an integer.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value >= 0 and value == int(value) else None


def keeps_divisor(value: float) -> bool:
    """Return whether the compiler keeps a positive `multipleOf` exactly.

    It multiplies a double by ten until no fraction is left.
    """
    scaled, decimals = value, 0
    while scaled % 1 and decimals < _MAX_DECIMALS:
        scaled, decimals = scaled * 10, decimals + 1
    return scaled <= _MAX_DIVISOR and Decimal(scaled).scaleb(-decimals) == Decimal(repr(value))


def close_open_bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without the open bounds that the compiler would include.

    It admits 3 for numbers between an excluded 3 and an upper bound below 4, and so below zero.
    The bound moves by no more than the digits that every double keeps.
    """
    closed = _numeric(schema)
    low: Any = closed.get("exclusiveMinimum")
    high: Any = closed.get("exclusiveMaximum")
    most = min(_numbers(high, closed.get("maximum")), default=inf)
    least = max(_numbers(low, closed.get("minimum")), default=-inf)
    if _is_integral(low) and 0 <= low < most < low + 1:
        del closed["exclusiveMinimum"]
        closed["minimum"] = _next(low, 1)
    if _is_integral(high) and high - 1 < least < high <= 0:
        del closed["exclusiveMaximum"]
        closed["maximum"] = _next(high, -1)
    return closed


def _number(literal: str) -> int | float | InexactNumber:
    value = float(literal)
    try:
        exact = Decimal(repr(value)) == Decimal(literal)
    except DecimalException:  # The exponent has more digits than any number needs.
        exact = False
    if not exact or (value == int(value) and abs(value) > MAX_INTEGER):
        return InexactNumber(literal)
    # A negative zero is no integer.
    return int(value) if value == int(value) and not literal.startswith("-0") else value


def _reject_constant(literal: str) -> object:
    raise ValueError(f"{literal} is not a number")


def _numeric(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without the booleans of draft 4."""
    result = dict(schema)
    for bound, name in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(result.get(name), bool) and result.pop(name) and bound in result:
            result[name] = result.pop(bound)
    return result


def _numbers(*values: Any) -> list[float]:
    return [
        value for value in values if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _is_integral(value: Any) -> bool:
    return _numbers(value) == [value] and value == int(value)


def _next(bound: float, direction: int) -> float:
    """Return the next number of few digits beside an integer."""
    decimals = _DIGITS - (len(str(abs(int(bound)))) if bound else 0)
    return float(Decimal(int(bound)) + direction * Decimal(1).scaleb(-decimals))


DECODER: Final = json.JSONDecoder(
    parse_int=_number, parse_float=_number, parse_constant=_reject_constant
)
