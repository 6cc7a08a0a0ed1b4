"""Regular expressions for JSON without optional white space.

Random weights favour white space. Under a grammar that allows any amount of it, an engine may write
it without end.
"""

import re
from typing import Any


def compact_regex(schema: dict[str, Any]) -> str:
    """Return a regular expression for an object's JSON, its fields in order.

    Fields are enumerations of strings, strings of bounded length, and integers from a power of
    ten to below another one.
    """
    fields = [f'"{name}":{_value(field)}' for name, field in schema["properties"].items()]
    return r"\{" + ",".join(fields) + r"\}"


def _value(field: dict[str, Any]) -> str:
    if "enum" in field:
        return '"(' + "|".join(re.escape(text) for text in field["enum"]) + ')"'
    if field["type"] == "integer":
        least, most = (len(str(field[bound])) - 1 for bound in ("minimum", "maximum"))
        return f"[1-9][0-9]{{{least},{most}}}"
    return f'"[^"\\\\\\n\\r\\t]{{{field["minLength"]},{field["maxLength"]}}}"'
