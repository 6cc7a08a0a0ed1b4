"""Tools as a grammar, and the calls in a text.

A call is the JSON object `{"name":"…","arguments":{…}}`, without blanks outside of strings.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpt2flow.client import Lark
from gpt2flow.gateway.errors import invalid_field
from gpt2flow.gateway.fields.chat import ChatRequest, FunctionDefinition, NamedTool

# Text that is no call: its first character tells the two apart.
_FREE_TEXT: Final = r"text: /([^{](.|\n)*)?/"
_COMPACT: Final = {"whitespace_flexible": False}
# Reasons of an end after which a call is complete.
_COMPLETE: Final = {"eos", "constraint"}


@dataclass(frozen=True)
class ToolGrammar:
    """Grammar of the calls that the model may make.

    Attributes:
        constraint: The grammar.
        starts: Text that every call of a tool starts with, by its name.
    """

    constraint: Lark
    starts: dict[str, str]


def tool_grammar(fields: ChatRequest) -> ToolGrammar | None:
    """Return the grammar of the tools; None if none may be called.

    Raises:
        ApiError: `tool_choice` names no tool of the request, or two tools have one name.
    """
    choice = fields.tool_choice
    if not fields.tools:
        if choice not in {None, "none"}:
            raise invalid_field("tool_choice", "needs tools")
        return None
    functions = {tool.function.name: tool.function for tool in fields.tools}
    if len(functions) < len(fields.tools):
        raise invalid_field("tools", "two tools have the same name")
    if choice == "none":
        return None
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in functions:
            raise invalid_field("tool_choice", f"names {name!r}, which is no tool of the request")
        return _grammar([functions[name]], has_text=False)
    return _grammar(list(functions.values()), has_text=choice != "required")


def _grammar(functions: Sequence[FunctionDefinition], *, has_text: bool) -> ToolGrammar:
    starts = {each.name: _start(each.name) for each in functions}
    alternatives = [f"call_{i}" for i in range(len(functions))] + ["text"] * has_text
    rules = [f"start: {' | '.join(alternatives)}"] + [_FREE_TEXT] * has_text
    for i, each in enumerate(functions):
        rules.append(f'call_{i}: {json.dumps(starts[each.name])} arguments_{i} "}}"')
        rules.append(f"arguments_{i}: %json {json.dumps(_schema(each), ensure_ascii=False)}")
    return ToolGrammar(Lark("\n".join(rules)), starts)


def _start(name: str) -> str:
    return f'{{"name":{json.dumps(name)},"arguments":'


def _schema(function: FunctionDefinition) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    return {"x-guidance": _COMPACT} | schema


@dataclass
class AnswerText:
    """New text of an answer.

    Attributes:
        content: Text for the reader.
        call_id: Id of the call that starts here; None continues one, or is none.
        name: Name of the tool whose call starts here.
        arguments: Text to append to the arguments of the call.
    """

    content: str = ""
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""

    def __bool__(self) -> bool:
        """Return whether there is anything new."""
        return bool(self.content or self.name or self.arguments)


@dataclass
class AnswerReader:
    """Reader of one answer in pieces, which separates calls from text.

    Attributes:
        starts: Text that every call of a tool starts with, by its name; empty without tools.
        name: Name of the tool that the answer calls, once it is known.
    """

    starts: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    _pending: str = ""
    _is_text: bool = False

    def feed(self, text: str) -> AnswerText:
        """Return what is new with a piece of text."""
        if self._is_text or not self.starts:
            return AnswerText(text)
        self._pending += text
        if self.name is not None:
            return AnswerText(arguments=self._take_arguments())
        if self._pending and not self._pending.startswith("{"):
            self._is_text = True
            return AnswerText(self._take_all())
        for name, start in self.starts.items():
            if self._pending.startswith(start):
                self.name, self._pending = name, self._pending.removeprefix(start)
                call_id = f"call_{uuid.uuid4().hex}"
                return AnswerText("", call_id, name, self._take_arguments())
        return AnswerText()

    def finish(self, reason: str) -> AnswerText:
        """Return what is new at the end.

        Args:
            reason: Reason of the end, as the typed client names it.
        """
        if self.name is None:
            return AnswerText(self._take_all())
        rest = self._take_all()
        return AnswerText(arguments="" if reason in _COMPLETE else rest)

    def _take_arguments(self) -> str:
        """Take all but the last character, perhaps the brace of the call."""
        taken, self._pending = self._pending[:-1], self._pending[-1:]
        return taken

    def _take_all(self) -> str:
        taken, self._pending = self._pending, ""
        return taken
