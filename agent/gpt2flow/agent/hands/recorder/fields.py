"""Fields of templates, in place of what a person typed and saw."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.recording import SESSION, message_fields
from gpt2flow.agent.hands.templates import one_line
from gpt2flow.agent.wording import Language

# SO-1 is not a part of SO-10, nor 2 of 12.2, 2.50 or SO-2.
_BEFORE: Final = r"(?<![A-Za-z0-9])"
_AFTER: Final = r"(?![A-Za-z0-9])"
_NUMBER_BEFORE: Final = _BEFORE + r"(?<![A-Za-z0-9][-.,:])"
_NUMBER_AFTER: Final = _AFTER + r"(?![-.,:][0-9])"
# Shorter ones, such as one digit of a code, are also parts of what is no secret.
_SECRET_LENGTH: Final = 4
# What may be a verification code that nobody has typed.
_CODE_LIKE: Final = re.compile(r"(?<!\d)\d{3}[ -]?\d{3}(?!\d)")

_Encoding = Callable[[str], str]


def parse_arguments(
    book: FlowBook, action: str | None, given: Iterable[str], language: Language
) -> dict[str, str]:
    """Return the values of `--argument` by name.

    The name of a value of a list, as people read it, is the field `<argument>_name`.

    Args:
        book: Loaded flows.
        action: Action to record; None for the sign-in.
        given: Options, each `name=value`.
        language: Language of the pages.

    Raises:
        InputError: An option is malformed, or names no argument of the action.
    """
    allowed = argument_names(book, action)
    arguments = dict[str, str]()
    for each in given:
        name, _, value = each.partition("=")
        if not one_line(value):
            raise InputError("--argument must be name=value, both not empty")
        if name not in allowed:
            raise InputError(f"--argument names {name!r}, expected one of {sorted(allowed)}")
        if name in arguments:
            raise InputError(f"--argument names {name!r} twice")
        twin = next((n for n, v in arguments.items() if one_line(v) == one_line(value)), None)
        if twin is not None:
            raise InputError(
                f"--argument: {twin} and {name} have the same value; choose different ones, so"
                " that the recording can tell them apart"
            )
        arguments[name] = value
    return arguments | _value_names(book, arguments, language)


def _value_names(
    book: FlowBook, arguments: Mapping[str, str], language: Language
) -> dict[str, str]:
    """Return the names of arguments that are values of a list.

    Raises:
        InputError: The list has no such value.
    """
    names = dict[str, str]()
    for name, value in arguments.items():
        slot = book.slots.get(name)
        if slot is None or not slot.values:
            continue
        if value not in slot.values:
            raise InputError(f"--argument: {name} is {value!r}, expected one of {slot.values}")
        if value in slot.names:
            names[f"{name}_name"] = slot.names[value][language]
    return names


def argument_names(book: FlowBook, action: str | None) -> set[str]:
    """Return the arguments of an action, and the fields of its messages.

    Args:
        book: Loaded flows.
        action: Name of the action; None for the sign-in.
    """
    if action is None:
        return {SESSION}
    return {SESSION, *book.actions[action].slots, *message_fields(book, action)}


class TemplateFields:
    """Values that become fields of templates, longest value first.

    Args:
        arguments: Values by name.
    """

    def __init__(self, arguments: Mapping[str, str]) -> None:
        self._values = {one_line(value): name for name, value in arguments.items()}
        self._secrets = dict[str, str]()

    def hide(self, field: str, secret: str) -> None:
        """Put a field in place of a secret from now on."""
        if len(secret := one_line(secret)) >= _SECRET_LENGTH:
            self._secrets[secret] = field

    def typed(self, text: str) -> str:
        """Return the template of a typed text: one field, or none."""
        name = (self._values | self._secrets).get(one_line(text))
        return self._substitute(text, {}) if name is None else f"{{{name}}}"

    def shown(self, text: str) -> str:
        """Return the template of a text that a page shows."""
        return self._substitute(text, self._values)

    def said(self, text: str) -> str:
        """Return the template of a message, without possible verification codes."""
        return _CODE_LIKE.sub("...", self.shown(one_line(text)))

    def path(self, path: str) -> str:
        """Return the template of a path, where values are percent-encoded."""
        return self._substitute(path, self._values, (str, quote, quote_plus))

    def _substitute(
        self, text: str, values: Mapping[str, str], encodings: Iterable[_Encoding] = (str,)
    ) -> str:
        """Return a text with fields in place of secrets and values."""
        fields = [(value, name, _anywhere) for value, name in self._secrets.items()]
        fields += [(value, name, _bounded) for value, name in values.items()]
        forms = {
            encode(value): (pattern(encode(value)), name)
            for value, name, pattern in reversed(fields)
            for encode in encodings
        }
        ordered = [forms[form] for form in sorted(forms, key=len, reverse=True)]
        if not ordered:
            return _escaped(text)
        found = re.compile("|".join(f"({pattern})" for pattern, _ in ordered))
        parts, end = list[str](), 0
        for match in found.finditer(text):
            assert match.lastindex is not None
            parts += [_escaped(text[end : match.start()]), f"{{{ordered[match.lastindex - 1][1]}}}"]
            end = match.end()
        return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _anywhere(value: str) -> str:
    return re.escape(value)


def _bounded(value: str) -> str:
    """Return the pattern of a value outside of longer words and numbers."""
    is_number = value.isascii() and value.isdigit()
    before = (_NUMBER_BEFORE if is_number else _BEFORE) if _is_word(value[0]) else ""
    after = (_NUMBER_AFTER if is_number else _AFTER) if _is_word(value[-1]) else ""
    return before + re.escape(value) + after


def _is_word(character: str) -> bool:
    return character.isascii() and character.isalnum()
