"""Runs of all scenarios, repeated, with order and concurrency by seed."""

import random
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt2flow.agent.config import CONFIRM_BELOW
from gpt2flow.agent.evaluation.play import Player, Playthrough, check_names
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.scenarios import Scenario
from gpt2flow.agent.shop.catalogue import Catalogue, load_catalogue
from gpt2flow.agent.turns.model import ChoiceModel

# Conversations at once, drawn for each repeat.
_CONCURRENCY = (1, 2, 4, 8)


def run(
    book: FlowBook,
    model: ChoiceModel,
    scenarios: Sequence[Scenario],
    *,
    catalogue: Catalogue | None = None,
    repeats: int = 1,
    seed: int = 0,
    confirm_below: float = CONFIRM_BELOW,
    on_played: Callable[[Playthrough], None] = lambda _: None,
) -> list[Playthrough]:
    """Play all scenarios, each in a new database.

    Repeats differ in typos, in the order of the conversations and in their concurrency. The first
    one sends the messages as they are written.

    Args:
        book: Loaded flows.
        model: Model that chooses the actions; threads share it.
        scenarios: Scenarios to play.
        catalogue: Products and couriers of the shop; None selects the demo shop's.
        repeats: Number of times to play each.
        seed: Seed of what differs between repeats.
        confirm_below: Confidence below which the agent asks, from 0 to 1.
        on_played: Callback after each conversation, from any thread.

    Returns:
        Results by scenario, then by repeat.

    Raises:
        InputError: A scenario refers to an unknown table, product or customer.
        UnknownModelError: The server has no such model.
    """
    catalogue = catalogue or load_catalogue()
    for scenario in scenarios:
        check_names(scenario, catalogue.names)
    results: list[Playthrough] = []
    with tempfile.TemporaryDirectory(prefix="gpt2flow-evaluate-") as name:
        player = Player(book, catalogue, model, Path(name), confirm_below)

        def play(scenario: Scenario, repeat: int) -> Playthrough:
            result = player.play(scenario, repeat, seed)
            on_played(result)
            return result

        for repeat in range(repeats):
            rng = random.Random(f"{seed} {repeat}")
            order = rng.sample(scenarios, len(scenarios))
            with ThreadPoolExecutor(rng.choice(_CONCURRENCY)) as pool:
                results += pool.map(play, order, [repeat] * len(order))
    position = {scenario.id: index for index, scenario in enumerate(scenarios)}
    return sorted(results, key=lambda each: (position[each.scenario.id], each.repeat))
