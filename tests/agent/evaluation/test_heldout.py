"""Held-out conversations: each can be passed, and together they cover the flows."""

from collections import Counter
from pathlib import Path

import pytest
from tests.support.project import PROJECT
from tests.support.wishing_model import WishingModel

from gpt2flow.agent.evaluation.play import Player
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.scenarios import Scenario, load_scenarios
from gpt2flow.agent.shop.catalogue import load_catalogue

FOLDER = PROJECT / "tests" / "heldout" / "conversations"
# Actions that only answer a question of the agent.
ANSWERS = {"affirm", "deny"}
# What the agent does with a message that it does not understand; nobody wants it.
UNWANTED = {"clarify"}


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return load_scenarios(FOLDER)


def ends_well(book: FlowBook, scenario: Scenario, folder: Path) -> bool:
    """Return whether the perfect model passes a scenario without harm."""
    player = Player(book, load_catalogue(), WishingModel(book, scenario), folder)
    try:
        result = player.play(scenario)
    except Exception:  # noqa: BLE001 - a traceback would show what the blind scenarios say
        return False
    return result.passed and not result.harm


@pytest.mark.process
@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=name)
def test_the_perfect_model_passes_every_scenario(
    path: Path, book: FlowBook, tmp_path: Path
) -> None:
    failed = [each.id for each in load_scenarios(path) if not ends_well(book, each, tmp_path)]
    assert not failed


def test_there_are_enough_scenarios_of_every_group(scenarios: list[Scenario]) -> None:
    count = len(scenarios)
    kinds, languages = Counter(s.kind for s in scenarios), Counter(s.language for s in scenarios)
    assert count >= 200
    assert len({each.id for each in scenarios}) == count
    assert languages == {"en": count / 2, "zh": count / 2}
    assert set(kinds) == {"plain", "messy", "adversarial"}
    assert kinds["plain"] == count / 2
    assert 0.2 <= kinds["messy"] / count <= 0.3
    assert 0.2 <= kinds["adversarial"] / count <= 0.3


def test_every_workflow_has_as_many_scenarios(book: FlowBook, scenarios: list[Scenario]) -> None:
    workflows = Counter(each.workflow for each in scenarios)
    assert set(workflows) == set(book.flows) - {"conversation"}
    assert len(set(workflows.values())) == 1


def test_every_action_that_customers_may_wish_is_wanted(
    book: FlowBook, scenarios: list[Scenario]
) -> None:
    wanted = {wish.action for each in scenarios for turn in each.turns for wish in turn.wants or []}
    assert set(book.wishes) - wanted == ANSWERS | UNWANTED
    assert wanted <= set(book.wishes)


def test_every_wished_value_belongs_to_its_action(
    book: FlowBook, scenarios: list[Scenario]
) -> None:
    wrong = [
        each.id
        for each in scenarios
        for turn in each.turns
        for wish in turn.wants or []
        if not set(wish.arguments) <= set(book.actions[wish.action].slots)
    ]
    assert not wrong
