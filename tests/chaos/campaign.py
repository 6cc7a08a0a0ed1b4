"""Campaign: uninterrupted runs to compare with, and then runs with kills."""

import itertools
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.conversations import CONVERSATIONS, Scene
from tests.chaos.facts import differences
from tests.chaos.plan import Planner
from tests.chaos.processes.keeper import RANDOM
from tests.chaos.processes.kill_points import Victim
from tests.chaos.stage import RunPlan, RunResult, Shops
from tests.support.postgresql import postgresql_server

# Runs with defects after which a campaign ends.
_MAX_FAILED_RUNS = 5
# Runs without a new point after which the points that are left count as out of reach: whether an
# agent passes them depends on chance.
_MAX_IDLE_RUNS = 12


@dataclass
class Tally:
    """Figures of a campaign.

    Attributes:
        seed: Seed of all choices.
        kills: Kills by victim, and whether at a point or at random.
        with_two_agents: Kills in runs with two agents.
        runs: Runs with kills, by setting.
        restarts: Processes that were started again.
        messages: Messages that got their report.
        errors: Clear errors that callers got, and answered by sending again.
        repeated: Deliveries that repeated a key.
        longest_wait: Longest time from the first attempt at a message to its report.
        longest_takeover: Longest time from the death of one of two agents to the report of its
            message.
        longest_settlement: Longest time from the last message of a run until nothing was left.
        points: Points of uninterrupted runs, by the process that passes them.
        points_hit: Those with a kill.
        other_points_hit: Points of retries and takeovers at which an agent was killed.
        missing: Points of agents and people without a kill.
        seconds: Wall time.
        defects: What must not happen, a line each.
    """

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    with_two_agents: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    messages: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    longest_wait: float = 0.0
    longest_takeover: float = 0.0
    longest_settlement: float = 0.0
    points: dict[Victim, int] = field(default_factory=dict)
    points_hit: dict[Victim, int] = field(default_factory=dict)
    other_points_hit: int = 0
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0
    defects: list[str] = field(default_factory=list)

    @property
    def by_victim(self) -> Counter[Victim]:
        """Kills by the process that was killed."""
        return Counter({victim: n for victim in Victim if (n := self._count(victim))})

    def _count(self, victim: Victim) -> int:
        return sum(n for kind, n in self.kills.items() if kind.startswith(f"{victim} "))

    def add(self, result: RunResult) -> None:
        """Add the figures of a run."""
        plan, findings = result.plan, result.findings
        for death in result.deaths:
            when = "at random" if death.point == RANDOM else "at a point"
            self.kills[f"{death.victim} {when}"] += 1
        self.with_two_agents += len(result.deaths) if plan.agents > 1 else 0
        database = "postgresql" if plan.is_postgresql else "sqlite"
        over_http = f", {plan.endpoints} over HTTP" if plan.endpoints else ""
        self.runs[f"{plan.scene}, {database}, {plan.agents} agents{over_http}"] += 1
        self.restarts += result.restarts
        self.messages += len(findings.waits)
        self.errors.update(findings.errors)
        self.repeated += result.repeated
        self.longest_wait = max([self.longest_wait, *findings.waits])
        self.longest_settlement = max(self.longest_settlement, result.settle_seconds)
        if plan.agents > 1:
            self.longest_takeover = max([self.longest_takeover, *findings.takeovers])


class Campaign:
    """Campaign of runs with kills.

    Args:
        kills: Least number of kills.
        seed: Seed of all choices.
        progress: Callback for a line after each run.
        per_run: Most kills of a run.
        every_point: Whether to go on until agents and people were killed at each of their points.
    """

    def __init__(
        self,
        kills: int,
        seed: int,
        progress: Callable[[str], None],
        *,
        per_run: int = 30,
        every_point: bool = False,
    ) -> None:
        self._kills = kills
        self._per_run = per_run
        self._every_point = every_point
        self._progress = progress
        self._planner = Planner(seed, per_run)
        self._references: dict[Scene, RunResult] = {}
        self._missing = sys.maxsize
        self._idle_runs = 0
        self.tally = Tally(seed)

    def run(self, after_run: Callable[[Tally], object] = str) -> Tally:
        """Run until there were enough kills, and return the figures.

        Args:
            after_run: Callback with the figures so far.
        """
        start = time.monotonic()
        with _shops() as shops:
            with ThreadPoolExecutor(len(Scene)) as threads:
                for _ in threads.map(lambda scene: self._play_reference(shops, scene), Scene):
                    pass
            for number in itertools.count():
                left = self._left()
                if not left or not self._play(shops, self._planner.plan(number, left)):
                    break
                self._summarize(start)
                after_run(self.tally)
        self._summarize(start)
        return self.tally

    def _summarize(self, start: float) -> None:
        """Bring points and time of the figures up to date."""
        planner = self._planner
        self.tally.points = {victim: len(points) for victim, points in planner.points.items()}
        self.tally.points_hit = planner.covered
        self.tally.missing = planner.missing
        counted = set().union(*planner.points.values()) | {RANDOM}
        self.tally.other_points_hit = len(planner.hits.keys() - counted)
        self.tally.seconds = time.monotonic() - start

    def _left(self) -> int:
        """Return the number of kills that are left, for the next run."""
        missing = len(self._planner.missing)
        self._idle_runs = 0 if missing < self._missing else self._idle_runs + 1
        self._missing = missing
        left = max(self._kills - self.tally.kills.total(), 0)
        goes_on = self._every_point and missing and self._idle_runs < _MAX_IDLE_RUNS
        return self._per_run if goes_on else left

    def _play_reference(self, shops: Shops, scene: Scene) -> None:
        """Play all conversations of a scene without a kill."""
        conversations = tuple(each for each in CONVERSATIONS if each.scene is scene)
        plan = RunPlan(
            f"reference_{scene}",
            scene,
            is_postgresql=False,
            agents=1,
            conversations=conversations,
        )
        result = self._references[scene] = shops.play(plan)
        self._planner.learn(result, is_reference=True)
        self.tally.defects += [f"{plan.name}: {defect}" for defect in result.defects]
        self._progress(f"{plan.name}: {len(result.passed)} points, {result.seconds:.0f} s")

    def _play(self, shops: Shops, plan: RunPlan) -> bool:
        """Play a run; return whether to go on."""
        result = shops.play(plan)
        if plan.patience >= _PATIENT_SECONDS:
            result.defects += self._compare(result)
        self._planner.learn(result)
        self.tally.add(result)
        if result.defects:
            kept = Path(tempfile.gettempdir()) / f"chaos-{self.tally.seed}-{plan.name}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(shops.folder / plan.name, kept)
            self.tally.defects += [f"{plan.name}: {defect}" for defect in result.defects]
            self._progress(f"{plan.name} FAILED; its files are in {kept}")
            for defect in result.defects:
                self._progress(f"  {defect}")
        shutil.rmtree(shops.folder / plan.name)
        done = self.tally.kills.total()
        self._progress(
            f"{plan.name} {plan.scene}{', postgresql' if plan.is_postgresql else ''},"
            f" agents {plan.agents}, endpoints {plan.endpoints}:"
            f" {len(result.deaths)} kills, {result.seconds:.0f} s,"
            f" longest wait {max(result.findings.waits, default=0.0):.0f} s;"
            f" {done} of {self._kills} kills, {len(self.tally.defects)} defects,"
            f" points left {len(self._planner.missing)}"
        )
        failed = {defect.partition(":")[0] for defect in self.tally.defects}
        return len(failed) < _MAX_FAILED_RUNS

    def _compare(self, result: RunResult) -> list[str]:
        """Return how a run differs from the one without a kill."""
        reference = self._references[result.plan.scene]
        found = differences(reference.facts, result.facts)
        for key, outcome in result.findings.outcomes.items():
            expected = reference.findings.outcomes[key]
            if outcome != expected:
                found.append(f"{key}: reported {outcome}, expected {expected}")
        return found


# With less patience, a person takes over what the model does not answer.
_PATIENT_SECONDS = 30.0


@contextmanager
def _shops() -> Iterator[Shops]:
    with (
        tempfile.TemporaryDirectory(prefix="gpt2flow-chaos-") as folder,
        postgresql_server() as server,
    ):
        yield Shops(Path(folder), server)
