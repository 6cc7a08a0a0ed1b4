"""Grammar of the model's next action, in llguidance's Lark dialect."""

import json
import re
from collections.abc import Collection, Sequence

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import DONE, Choice
from gpt2flow.agent.flows.schema import Slot
from gpt2flow.agent.flows.slots import SlotKind, candidates


def action_grammar(
    book: FlowBook,
    names: Sequence[str],
    message: str,
    *,
    legal: Collection[str] = (),
    may_end: bool = True,
) -> str:
    """Build the grammar of one action.

    The grammar accepts every one of the actions, with any of its slots that have a
    candidate value in the message. Typed values such as order numbers are
    enumerated. A span is any substring of the message that respects word boundaries. A message
    that is a code alone is left to the actions that take a code, if one of them is legal.

    Args:
        book: Loaded flows.
        names: Names of the actions to choose from.
        message: Normalized message.
        legal: Names of the actions that are legal in this state.
        may_end: Whether the model may choose `done`.

    Returns:
        Lark grammar with the start rule `start`; it accepts JSON objects.
    """
    names = takers_of_code(book, legal, message) or names
    slots = _slot_rules(book, names, message)
    alternatives = [
        _action_rule(name, [s for s in book.actions[name].slots if s in slots]) for name in names
    ]
    if may_end:
        alternatives.append(_action_rule(DONE, []))
    rules = ["start: " + " | ".join(alternatives)]
    rules += [f"slot_{name}: {rule}" for name, rule in slots.items()]
    if _SPAN_RULE in slots.values():
        substring = json.dumps({"substring_chunks": split_chunks(message)}, ensure_ascii=False)
        rules.append(f"SPAN: %regex {substring}")
    return "\n".join(rules) + "\n"


# A span neither begins nor ends inside a word or a number. Chinese has no spaces
# between words, so any of its characters is a boundary.
_CHUNK = re.compile(r"[^\W\d_\u4e00-\u9fff]+|\d+|.", re.DOTALL)
_SPAN_RULE = '"\\"" SPAN "\\""'


_CODE_ALONE = re.compile(r"\d{3}[ -]?\d{3}[.!。！]?")


def split_chunks(text: str) -> list[str]:
    """Return the words, numbers and characters that spans consist of."""
    return _CHUNK.findall(text)


def is_span(value: str, message: str) -> bool:
    """Return whether a value is a part of the message between words."""
    parts, whole = split_chunks(value), split_chunks(message)
    starts = range(len(whole) - len(parts) + 1)
    return bool(parts) and any(whole[at : at + len(parts)] == parts for at in starts)


def admits(book: FlowBook, choice: Choice, message: str) -> bool:
    """Return whether a message's grammar admits the arguments of a choice."""
    for name, value in choice.arguments.items():
        slot = book.slots[name]
        if slot.kind is SlotKind.SPAN:
            found = is_span(str(value), message)
        elif slot.kind is SlotKind.ENUM:
            found = value in slot.values
        else:
            found = str(value) in candidates(slot.kind, message)
        if not found:
            return False
    return True


def takers_of_code(book: FlowBook, legal: Collection[str], message: str) -> list[str]:
    """Return the legal actions that take a code, if it is alone."""
    return book.taking(legal, SlotKind.CODE) if _CODE_ALONE.fullmatch(message) else []


def _action_rule(action: str, slots: Sequence[str]) -> str:
    """Return the rule of one action, in which every slot is optional."""
    fields = "".join(f" ({_quote(_slot_prefix(slot))} slot_{slot})?" for slot in slots)
    return f"{_quote(_action_prefix(action))}{fields} {_quote('}')}"


def _slot_rules(book: FlowBook, names: Sequence[str], message: str) -> dict[str, str]:
    """Return the value rules of the slots that have a candidate value."""
    slots = dict.fromkeys(slot for name in names for slot in book.actions[name].slots)
    rules = {slot: _slot_rule(book.slots[slot], message) for slot in slots}
    return {name: rule for name, rule in rules.items() if rule}


def _slot_rule(slot: Slot, message: str) -> str:
    if slot.kind is SlotKind.SPAN:
        return _SPAN_RULE if message else ""
    values = slot.values if slot.kind is SlotKind.ENUM else candidates(slot.kind, message)
    quoted = values if slot.kind is SlotKind.INTEGER else [f'"{value}"' for value in values]
    return " | ".join(map(_quote, quoted))


def _action_prefix(action: str) -> str:
    return f'{{"action":"{action}"'


def _slot_prefix(slot: str) -> str:
    return f',"{slot}":'


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
