"""Playback of scenarios against the agent, and the check of their results."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from gpt2flow.agent.evaluation.customer import MAX_ANSWERS, NoCodeError, Script
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.hands.album import PicturedStep
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.scenarios import Scenario, check, prepare
from gpt2flow.agent.scenarios.shop_state import outcomes, rows
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.cli.demo.screens import Screens
from gpt2flow.cli.processes import agent
from gpt2flow.reports.pages import Table

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
        steps: Steps on the screens, by turn.
    """

    scenario: Scenario
    reports: list[JsonObject]
    rows: dict[str, list[dict[str, Any]]]
    differences: list[str]
    steps: list[list[PicturedStep]] = field(default_factory=list)

    @property
    def messages(self) -> list[JsonObject]:
        """Messages sent to customers, in order."""
        return _messages(self.reports)

    @property
    def actions(self) -> list[JsonObject]:
        """Actions of all turns, those of events included."""
        return [action for report in self.reports for action in actions_of(report)]

    @property
    def tables(self) -> list[Table]:
        """Final rows of each table, with the columns under test."""
        tables = []
        for name, expected in self.scenario.expect.rows.items():
            found = self.rows[name]
            tested = list(dict.fromkeys(column for row in expected for column in row))
            # Where no row is expected, the first column names those that are there.
            columns = tested or list(found[0] if found else ())[:1]
            cells = [[str(row.get(column)) for column in columns] for row in found]
            tables.append(Table(name, columns, cells))
        return tables

    @property
    def on_screens(self) -> list[list[PicturedStep]]:
        """Steps of each action on the screens, in order."""
        return [group for steps in self.steps for group in by_action(steps)]

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
    scenario: Scenario,
    address: str,
    directory: Path,
    on_turn: Callable[[JsonObject], None],
    payments: str = "",
    screens: Screens | None = None,
) -> ScenarioResult:
    """Play one scenario in a new database.

    Args:
        scenario: Messages of the customers, and the expected result.
        address: `host:port` of the server.
        directory: Directory to write the database and the agent's log to.
        on_turn: Callback for the report of each turn.
        payments: URL of the payment service; empty is payment on account.
        screens: Screens on which the agent works; None works in the database.

    Raises:
        CommandError: The agent process failed.
    """
    path = directory / f"{scenario.id}.sqlite"
    database = Database.open(database_url(str(path)))
    try:
        with database.transaction() as db:
            prepare(db, scenario, datetime.now(UTC))
        book = load_flows()
        script = Script(book, load_catalogue().names, scenario)
        reports: list[JsonObject] = []
        steps: list[list[PicturedStep]] = []
        differences: list[str] = []
        with (
            _noting_missing_code(differences),
            _agent_options(path, payments, screens) as options,
            agent(address, path, directory, options) as process,
        ):
            for turn in scenario.turns:
                script.begin(turn)
                text = turn.text
                for _ in range(1 + MAX_ANSWERS):
                    message = {"session": turn.session, "text": script.fill(text)}
                    reports.append(process.handle(message))
                    steps.append(screens.new_steps(path, steps) if screens else [])
                    on_turn(reports[-1])
                    report = TurnReport.model_validate(reports[-1])
                    script.note(report)
                    if (answer := script.answer(report)) is None:
                        break
                    text = answer.text
        with database.transaction() as db:
            final_rows = {table: rows(db, table) for table in scenario.expect.rows}
            texts = [message["text"] for message in _messages(reports)]
            ended = set(outcomes(book, map(TurnReport.model_validate, reports)))
            differences = differences or check(db, scenario, texts, ended, book.outcomes)
            return ScenarioResult(scenario, reports, final_rows, differences, steps)
    finally:
        database.close()


@contextmanager
def _agent_options(path: Path, payments: str, screens: Screens | None) -> Iterator[list[str]]:
    """Yield the agent's options; its shop has screens until the block ends."""
    options = ["--payments", payments] if payments else []
    if screens is None:
        yield options
        return
    with screens.open(path, options) as more:
        yield [*options, *more]


@contextmanager
def _noting_missing_code(differences: list[str]) -> Iterator[None]:
    """Note that a scenario quotes a code before one was sent."""
    try:
        yield
    except NoCodeError as error:
        differences.append(str(error))


def by_action(steps: Sequence[PicturedStep]) -> list[list[PicturedStep]]:
    """Return the steps of each action, in order."""
    return [list(group) for _, group in groupby(steps, lambda step: step.key)]


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
