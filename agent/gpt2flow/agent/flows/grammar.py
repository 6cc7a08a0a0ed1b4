"""The grammar of what the model may answer now, in llguidance's Lark dialect."""

import json
import re
from collections.abc import Sequence

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import DONE
from gpt2flow.agent.flows.schema import Slot
from gpt2flow.agent.flows.slots import SlotKind, candidates


def action_grammar(
    book: FlowBook, legal: Sequence[str], message: str, *, may_end: bool = True
) -> str:
    """Build the grammar of one action.

    Every legal action, with those of its slots for which the message offers a
    value: order numbers and the like are enumerated, spans are cut out of the
    message at the borders of words.

    Args:
        book: the flows.
        legal: the actions that may be chosen.
        message: the normalised message.
        may_end: whether `done` may be chosen.

    Returns:
        Lark text whose start rule is `start`; its language is JSON objects.
    """
    slots = _slot_rules(book, legal, message)
    choices = [_choice(name, [s for s in book.actions[name].slots if s in slots]) for name in legal]
    if may_end:
        choices.append(_choice(DONE, []))
    rules = ["start: " + " | ".join(choices)]
    rules += [f"slot_{name}: {rule}" for name, rule in slots.items()]
    if _SPAN_RULE in slots.values():
        substring = json.dumps({"substring_chunks": _CHUNK.findall(message)}, ensure_ascii=False)
        rules.append(f"SPAN: %regex {substring}")
    return "\n".join(rules) + "\n"


# A span neither begins nor ends inside a word or a number. Chinese has no blanks
# between words, so each of its characters may.
_CHUNK = re.compile(r"[^\W\d_\u4e00-\u9fff]+|\d+|.", re.DOTALL)
_SPAN_RULE = '"\\"" SPAN "\\""'


def _choice(action: str, slots: Sequence[str]) -> str:
    """How one action is written, each of its slots or none of them."""
    fields = "".join(f" ({_literal(_key(slot))} slot_{slot})?" for slot in slots)
    return f"{_literal(_head(action))}{fields} {_literal('}')}"


def _slot_rules(book: FlowBook, legal: Sequence[str], message: str) -> dict[str, str]:
    """How the value of each slot is written, for slots that have one."""
    names = dict.fromkeys(slot for name in legal for slot in book.actions[name].slots)
    rules = {name: _slot_rule(book.slots[name], message) for name in names}
    return {name: rule for name, rule in rules.items() if rule}


def _slot_rule(slot: Slot, message: str) -> str:
    if slot.kind is SlotKind.SPAN:
        return _SPAN_RULE if message else ""
    values = slot.values if slot.kind is SlotKind.ENUM else candidates(slot.kind, message)
    quoted = values if slot.kind is SlotKind.INTEGER else [f'"{value}"' for value in values]
    return " | ".join(map(_literal, quoted))


def _head(action: str) -> str:
    return f'{{"action":"{action}"'


def _key(slot: str) -> str:
    return f',"{slot}":'


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
