"""JSON without optional white space as a regular expression, for engines that write it without end.

Random weights like white space, and a grammar that allows any amount of it never ends then.
"""

import re
from typing import Any


def compact_regex(schema: dict[str, Any]) -> str:
    """Return what matches an object's JSON, its fields in order.

    Fields are enumerations of texts, integers from a power of ten to below another one, and
    texts of bounded length.
    """
    fields = [f'"{name}":{_value(field)}' for name, field in schema["properties"].items()]
    return r"\{" + ",".join(fields) + r"\}"


def _value(field: dict[str, Any]) -> str:
    if "enum" in field:
        return '"(' + "|".join(re.escape(text) for text in field["enum"]) + ')"'
    if field["type"] == "integer":
        fewest, most = (len(str(field[bound])) - 1 for bound in ("minimum", "maximum"))
        return f"[1-9][0-9]{{{fewest},{most}}}"
    return f'"[^"\\\\\\n\\r\\t]{{{field["minLength"]},{field["maxLength"]}}}"'
