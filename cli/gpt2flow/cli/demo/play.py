"""Plays a scenario's customers against the agent, and judges how it ended."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpt2flow.agent.scenarios import Scenario, check, prepare
from gpt2flow.agent.scenarios.shop_state import rows
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.cli.demo.processes import agent
from gpt2flow.cli.outcome import CommandError, Exit

_CODE = re.compile(r"(?<!\d)\d{6}(?!\d)")

Report = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """What came of a scenario; `differences` from what was expected, none if it passed."""

    scenario: Scenario
    reports: list[Report]
    rows: dict[str, list[dict[str, Any]]]
    differences: list[str]

    @property
    def messages(self) -> list[Report]:
        """All that was sent to customers."""
        return [m for a in self.actions for m in a["messages"]]

    @property
    def actions(self) -> list[Report]:
        """All actions, those of events included."""
        return [action for report in self.reports for action in actions_of(report)]

    @property
    def milliseconds(self) -> float:
        """Time of all turns together."""
        return float(sum(report["milliseconds"] for report in self.reports))

    @property
    def tokens_per_second(self) -> float:
        """Tokens that the model produced, by the time of its calls."""
        calls = [call for report in self.reports for call in report["calls"]]
        seconds = sum(call["milliseconds"] for call in calls) / 1000
        return sum(call["completion_tokens"] for call in calls) / seconds if seconds else 0.0


def play(scenario: Scenario, address: str, folder: Path, seen: Callable[[Report], None]) -> Played:
    """Play one scenario in a new database.

    Args:
        scenario: what customers write, and how it must end.
        address: of the server.
        folder: where the database and the agent's log are written.
        seen: called with the report of each turn.
    """
    path = folder / f"{scenario.id}.sqlite"
    database = Database.open(database_url(str(path)))
    try:
        with database.transaction() as db:
            prepare(db, scenario, datetime.now(UTC))
        reports: list[Report] = []
        with agent(address, path, folder) as process:
            for turn in scenario.turns:
                text = _with_code(turn.text, reports)
                reports.append(process.tell({"session": turn.session, "text": text}))
                seen(reports[-1])
        with database.transaction() as db:
            left = {table: rows(db, table) for table in scenario.expect.rows}
            sent = [m["text"] for r in reports for a in actions_of(r) for m in a["messages"]]
            return Played(scenario, reports, left, check(db, scenario, sent))
    finally:
        database.close()


def actions_of(report: Report) -> list[Report]:
    """The actions of one turn, those of the events that it raised included."""
    of_events = [action for event in report["events"] for action in event["actions"]]
    return [*report["actions"], *of_events]


def _with_code(text: str, reports: list[Report]) -> str:
    """Copy the last verification code out of the customers' inbox."""
    if "{code}" not in text:
        return text
    sent = [m["text"] for r in reports for a in actions_of(r) for m in a["messages"] if m["to"]]
    codes = _CODE.findall(" ".join(sent))
    if not codes:
        raise CommandError(f"no verification code was sent before {text!r}", Exit.FAILURE)
    return text.replace("{code}", codes[-1])
