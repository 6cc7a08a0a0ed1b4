"""Short form of the chaos campaign, which `make chaos` runs at length."""

import json
import sys

import pytest
from tests.chaos.__main__ import report_json, report_lines
from tests.chaos.campaign import Campaign
from tests.chaos.processes.kill_points import Victim
from tests.support.postgresql import UnavailableError, skip

pytestmark = pytest.mark.process

KILLS = 60


def show(line: str) -> None:
    """Print a line, which pytest shows if the test fails."""
    sys.stdout.write(f"{line}\n")


# About 100 seconds beside a training run; a machine with more to do must not fail the test.
@pytest.mark.timeout(900)
def test_sixty_kills_lose_and_double_nothing() -> None:
    """Every kind of process is killed.

    The rows that are left equal those of a run without a kill.
    """
    try:
        tally = Campaign(KILLS, seed=14, progress=show, per_run=15).run()
    except UnavailableError as error:
        skip(str(error))
    show("\n".join(report_lines(tally)))
    assert not tally.defects
    assert tally.kills.total() >= KILLS
    assert set(tally.by_victim) == set(Victim)
    assert 2 * tally.with_two_agents >= tally.kills.total()
    assert json.loads(report_json(tally))["kills"] == tally.kills
    # Every conversation went on to its end.
    assert tally.messages > KILLS
