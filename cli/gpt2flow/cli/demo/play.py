"""Playback of scenarios against the agent, and the check of their results."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.flows.prompt import CONFIRMATION
from gpt2flow.agent.scenarios import Scenario, check, prepare
from gpt2flow.agent.scenarios.shop_state import rows
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.cli.processes import agent

_CODE = re.compile(r"(?<!\d)\d{6}(?!\d)")

_YES = {"en": "yes", "zh": "是的"}

# JSON form of a turn report, or of an action or message in it.
JsonObject = dict[str, Any]


@dataclass(frozen=True)
class ScenarioResult:
    """Result of one scenario.

    Attributes:
        scenario: The scenario.
        reports: Turn reports of the agent, in order.
        rows: Final rows per table, for each table in the scenario's expectation.
        differences: Differences from the expected result; empty if the scenario passed.
    """

    scenario: Scenario
    reports: list[JsonObject]
    rows: dict[str, list[dict[str, Any]]]
    differences: list[str]

    @property
    def messages(self) -> list[JsonObject]:
        """Messages sent to customers, in order."""
        return _messages(self.reports)

    @property
    def actions(self) -> list[JsonObject]:
        """Actions of all turns, those of events included."""
        return [action for report in self.reports for action in actions_of(report)]

    @property
    def milliseconds(self) -> float:
        """Duration of all turns together, in milliseconds."""
        return float(sum(report["milliseconds"] for report in self.reports))

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of model calls; 0 without calls."""
        calls = [call for report in self.reports for call in report["calls"]]
        seconds = sum(call["milliseconds"] for call in calls) / 1000
        return sum(call["completion_tokens"] for call in calls) / seconds if seconds else 0.0


def play(
    scenario: Scenario, address: str, directory: Path, on_turn: Callable[[JsonObject], None]
) -> ScenarioResult:
    """Play one scenario in a new database.

    Args:
        scenario: Messages of the customers, and the expected result.
        address: `host:port` of the server.
        directory: Directory to write the database and the agent's log to.
        on_turn: Callback for the report of each turn.

    Raises:
        CommandError: The agent process failed.
    """
    path = directory / f"{scenario.id}.sqlite"
    database = Database.open(database_url(str(path)))
    try:
        with database.transaction() as db:
            prepare(db, scenario, datetime.now(UTC))
        reports: list[JsonObject] = []
        differences: list[str] = []
        with agent(address, path, directory) as process:
            for turn in scenario.turns:
                text = _insert_code(turn.text, reports)
                if text is None:
                    differences = [f"no verification code was sent before {turn.text!r}"]
                    break
                while text is not None:
                    reports.append(process.handle({"session": turn.session, "text": text}))
                    on_turn(reports[-1])
                    text = _confirm(reports[-1], text)
        with database.transaction() as db:
            final_rows = {table: rows(db, table) for table in scenario.expect.rows}
            texts = [message["text"] for message in _messages(reports)]
            differences = differences or check(db, scenario, texts, _outcomes(reports))
            return ScenarioResult(scenario, reports, final_rows, differences)
    finally:
        database.close()


def actions_of(report: JsonObject) -> list[JsonObject]:
    """Return the actions of one turn, those of its events included."""
    event_actions = [action for event in report["events"] for action in event["actions"]]
    return [*report["actions"], *event_actions]


def _messages(reports: list[JsonObject]) -> list[JsonObject]:
    return [
        message
        for report in reports
        for action in actions_of(report)
        for message in action["messages"]
    ]


def _confirm(report: JsonObject, text: str) -> str | None:
    """Return a yes if the turn asked "did you mean …?"."""
    asked = [action["asked"] for action in report["actions"] if action["asked"]]
    if asked[-1:] != [CONFIRMATION] or text in _YES.values():
        return None
    return _YES[report["language"]]


def _outcomes(reports: list[JsonObject]) -> set[str]:
    """Return the outcomes of all actions, as `flow.action.outcome`."""
    flow_of = load_flows().flow_of
    return {
        f"{flow_of[action['action']].flow}.{action['action']}.{action['outcome']}"
        for report in reports
        for action in actions_of(report)
        if action["outcome"]
    }


def _insert_code(text: str, reports: list[JsonObject]) -> str | None:
    """Replace `{code}` by the last code that was sent, if any."""
    if "{code}" not in text:
        return text
    inbox = [message["text"] for message in _messages(reports) if message["to"]]
    codes = _CODE.findall(" ".join(inbox))
    return text.replace("{code}", codes[-1]) if codes else None
