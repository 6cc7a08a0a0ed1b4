"""A conversation as JSON Lines: one message a line in, one result a line out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.errors import AgentError, InputError
from gpt2flow.agent.report import TurnReport


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    session: str
    text: str
    id: str | None = None


@dataclass(frozen=True)
class LineResult:
    """What came of one line: a report, or the error that kept it from having one.

    `exit_code` is the one that a command should end with: 0, 2 for a line that
    cannot be used, 1 for a message that failed.
    """

    line: int
    exit_code: Literal[0, 1, 2] = 0
    error: str | None = None
    report: TurnReport | None = None

    def json_line(self) -> dict[str, Any]:
        """The result as JSON has it, with either `report` or `error`."""
        ending: dict[str, Any] = {"line": self.line, "exit_code": self.exit_code}
        if self.report is None:
            return ending | {"error": self.error}
        return ending | {"report": self.report.model_dump(mode="json")}


def handle_lines(agent: Agent, lines: Iterable[str]) -> Iterator[LineResult]:
    """Handle `{"session", "text", "id"?}` line by line, as the lines come.

    A line that fails is reported, and the next one is handled. Empty lines are
    skipped.
    """
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate_json(text)
            yield LineResult(number, report=agent.handle(line.session, line.text, line.id))
        except ValidationError as error:
            yield LineResult(number, 2, f"line {number}: {_problem(error)}")
        except AgentError as error:
            code: Literal[1, 2] = 2 if isinstance(error, InputError) else 1
            yield LineResult(number, code, f"line {number}: {error}")


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]
