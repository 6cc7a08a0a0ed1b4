"""JSON Lines interface: one message in, one result out per line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.errors import AgentError, InputError
from gpt2flow.agent.report import TurnReport
from gpt2flow.files.documents import first_violation


class _InputLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    session: str
    text: str
    id: str | None = None


@dataclass(frozen=True)
class LineResult:
    """Result of one input line: a report or an error.

    Attributes:
        line: Line number, from 1.
        exit_code: Exit code for a command that handles only this line. 0 is
            success, 1 a failed message, 2 an invalid line.
        error: Error message; None if the line succeeded.
        report: Report of the turn; None if the line failed.
    """

    line: int
    exit_code: Literal[0, 1, 2] = 0
    error: str | None = None
    report: TurnReport | None = None

    def json_line(self) -> dict[str, Any]:
        """Return the result as a JSON object with either `report` or `error`."""
        result: dict[str, Any] = {"line": self.line, "exit_code": self.exit_code}
        if self.report is None:
            return result | {"error": self.error}
        return result | {"report": self.report.model_dump(mode="json")}


def handle_lines(agent: Agent, lines: Iterable[str]) -> Iterator[LineResult]:
    """Handle `{"session", "text", "id"?}` objects as their lines arrive.

    A failed line yields an error and handling continues with the next line.
    Blank lines are skipped.

    Args:
        agent: Agent that handles the messages.
        lines: JSON text, one object per line.

    Yields:
        One result per line that is not blank, in input order.
    """
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _InputLine.model_validate_json(text)
            yield LineResult(number, report=agent.handle(line.session, line.text, line.id))
        except ValidationError as error:
            yield LineResult(number, 2, f"line {number}: {first_violation(error)}")
        except AgentError as error:
            code: Literal[1, 2] = 2 if isinstance(error, InputError) else 1
            yield LineResult(number, code, f"line {number}: {error}")
