"""Report on a demo in a browser, with all pictures."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.hands.album import PicturedStep
from gpt2flow.cli.demo.play import JsonObject, ScenarioResult, actions_of, by_action
from gpt2flow.cli.demo.show import format_action, screen_times
from gpt2flow.reports.pages import environment

PAGE: Final = "index.html"
"""File name of the report, which lies in the folder of pictures."""
_CODE: Final = re.compile(r"(?<!\d)\d{6}(?!\d)")
_COVER: Final = "••••••"
_Conceal = Callable[[str], str]


@dataclass(frozen=True)
class ReportedAction:
    """Action of a turn, and its steps on the screens.

    Attributes:
        text: Action with its arguments and its ending.
        messages: Messages that were sent; the text of one to a contact is None.
        steps: Steps on the screens; none for an action of the database.
    """

    text: str
    messages: list[JsonObject]
    steps: list[PicturedStep]

    @property
    def seconds(self) -> float:
        """Time on the screens."""
        return self.steps[-1].seconds if self.steps else 0.0


@dataclass(frozen=True)
class ReportedTurn:
    """Message of a customer, and what the agent did.

    Attributes:
        session: Id of the conversation.
        language: Language of the message.
        text: Text of the message.
        actions: Actions of the turn, those of its events included.
        seconds: Duration of the turn.
    """

    session: str
    language: str
    text: str
    actions: list[ReportedAction]
    seconds: float


def write_report(folder: Path, model: Path, results: Sequence[ScenarioResult]) -> Path:
    """Write the report into the folder of pictures, and return its path.

    It loads nothing but these pictures, and has no verification codes.

    Args:
        folder: Folder of pictures, with a folder for each scenario.
        model: Directory of the bundle that was served.
        results: Results of the scenarios.

    Raises:
        InputError: The file cannot be written.
    """
    page = (
        environment("gpt2flow.cli.demo")
        .get_template("screens.html.j2")
        .render(
            model=model.name,
            now=datetime.now(UTC),
            times=screen_times(results),
            workflows=[_describe(result) for result in results],
        )
    )
    path = folder / PAGE
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return path


def _describe(result: ScenarioResult) -> dict[str, Any]:
    """Return what the page shows of a scenario."""
    conceal = _cover_codes(result)
    return {
        "id": result.scenario.id,
        "title": result.scenario.title or result.scenario.id,
        "differences": [conceal(line) for line in result.differences],
        "actions": len(result.on_screens),
        "seconds": sum(steps[-1].seconds for steps in result.on_screens),
        "turns": [
            _describe_turn(report, steps, conceal)
            for report, steps in zip(result.reports, result.steps, strict=True)
        ],
        "tables": result.tables,
    }


def _describe_turn(
    report: JsonObject, steps: Sequence[PicturedStep], conceal: _Conceal
) -> ReportedTurn:
    left = by_action(steps)
    actions = actions_of(report)
    found = _match(actions, left)
    reported = [
        ReportedAction(
            text=conceal(format_action(action)),
            messages=[_hide_text(message) for message in action["messages"]],
            steps=found.get(number, []),
        )
        for number, action in enumerate(actions)
    ]
    # An action that stops at a screen is not in the report of its turn: a person goes on.
    stopped = [ReportedAction(f"{each[0].action} → stopped", [], each) for each in left]
    return ReportedTurn(
        session=report["session"],
        language=report["language"],
        text=conceal(report["message"]),
        actions=[*stopped, *reported],
        seconds=report["milliseconds"] / 1000,
    )


def _match(
    actions: Sequence[JsonObject], left: list[list[PicturedStep]]
) -> Mapping[int, list[PicturedStep]]:
    """Return the steps of actions, by position.

    The database answers some actions, so that not all of a name have steps. An outcome as
    expected decides first.

    Args:
        actions: Actions of a turn.
        left: Steps of each action on the screens; those of `actions` are removed.
    """
    found = dict[int, list[PicturedStep]]()
    for is_alike in (_ended_as_expected, _has_name):
        for number, action in enumerate(actions):
            if number in found:
                continue
            steps = next((steps for steps in left if is_alike(action, steps[0])), None)
            if steps is not None:
                found[number] = steps
                left.remove(steps)
    return found


def _ended_as_expected(action: JsonObject, step: PicturedStep) -> bool:
    return _has_name(action, step) and bool(action["outcome"] == step.expected)


def _has_name(action: JsonObject, step: PicturedStep) -> bool:
    return bool(action["action"] == step.action)


def _hide_text(message: JsonObject) -> JsonObject:
    """Return a message, without its text if it went to a contact."""
    return message if message["to"] is None else message | {"text": None}


def _cover_codes(result: ScenarioResult) -> _Conceal:
    """Return a function that covers a scenario's codes in a text."""
    codes = set(_codes(result))

    def conceal(text: str) -> str:
        return _CODE.sub(lambda match: _COVER if match[0] in codes else match[0], text)

    return conceal


def _codes(result: ScenarioResult) -> Iterator[str]:
    """Yield what was sent or given as a code."""
    for report in result.reports:
        for action in actions_of(report):
            for message in action["messages"]:
                if message["to"] is not None:
                    yield from _CODE.findall(message["text"])
            for given in (action["used"], action["arguments"]):
                if "code" in given:
                    yield str(given["code"])
