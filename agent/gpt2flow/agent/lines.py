"""A conversation as JSON Lines: one message a line in, one report a line out."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gpt2flow.agent.errors import AgentError, InputError
from gpt2flow.agent.service import Agent


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    session: str
    text: str
    id: str | None = None


@dataclass(frozen=True)
class Answer:
    """What came of one line.

    `text` is JSON on one line: a turn's report, or `{"line", "error"}`. A
    command should end with the `exit_code`: 2 for a line that cannot be used,
    1 for a message that failed.
    """

    text: str
    exit_code: Literal[0, 1, 2] = 0


def answers(agent: Agent, lines: Iterable[str]) -> Iterator[Answer]:
    """Handles `{"session", "text", "id"?}` line by line, as the lines come.

    A line that fails is reported, and the next one is handled. Empty lines are
    skipped.
    """
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate_json(text)
            report = agent.handle(line.session, line.text, line.id)
            yield Answer(report.model_dump_json())
        except ValidationError as error:
            yield _failed(number, _problem(error), 2)
        except AgentError as error:
            yield _failed(number, str(error), 2 if isinstance(error, InputError) else 1)


def _failed(number: int, error: str, exit_code: Literal[1, 2]) -> Answer:
    text = json.dumps({"line": number, "error": error}, ensure_ascii=False)
    return Answer(text, exit_code)


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]
