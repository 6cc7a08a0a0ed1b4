"""Plans of the runs of a campaign.

The agent is killed at every point before it is killed at one again.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.conversations import CONVERSATIONS, Conversation, Scene
from tests.chaos.kill_points import BEGIN, Target, Victim
from tests.chaos.stage import RunPlan, RunResult

# Session of the points that belong to no conversation.
_NOBODY = "-"
_MOST_CONVERSATIONS = 6
# Kills at points of each process but the agent, which gets the others of a run.
_POINT_KILLS = {
    Victim.PAYMENTS: 2,
    Victim.DISPATCHER: 2,
    Victim.POSTGRESQL: 2,
    Victim.SERVER: 4,
}
# Kills at random times, and those of agents at the end of a run.
_RANDOM_KILLS, _LAST_KILLS = 4, 1
# Largest share of the agent's points that belong to no conversation.
_ELSEWHERE = 0.3
# Longest time between the start of a model call and the kill of the server.
_CALL_SECONDS = 0.15
# What follows a kill of PostgreSQL begins at once, or after its connections have ended.
_PAUSES = (0.0, 0.1)
_POINTS_OF_OTHERS = {"payments": Victim.PAYMENTS, "dispatcher": Victim.DISPATCHER}


@dataclass(frozen=True)
class Setting:
    """Shop and processes of a run."""

    scene: Scene
    is_postgresql: bool
    agents: int


# More than half of the kills are in runs with two agents.
SETTINGS = (
    Setting(Scene.SHOP, is_postgresql=True, agents=2),
    Setting(Scene.SHOP, is_postgresql=False, agents=1),
    Setting(Scene.NO_COURIER, is_postgresql=True, agents=2),
    Setting(Scene.SERVED, is_postgresql=True, agents=2),
    Setting(Scene.SHOP, is_postgresql=True, agents=2),
    Setting(Scene.SHOP, is_postgresql=True, agents=1),
    Setting(Scene.NO_COURIER, is_postgresql=False, agents=1),
    Setting(Scene.SHOP, is_postgresql=True, agents=2),
    Setting(Scene.SHOP, is_postgresql=False, agents=1),
    Setting(Scene.SERVED, is_postgresql=False, agents=1),
    Setting(Scene.SHOP, is_postgresql=True, agents=2),
)
# Runs with a model server whose restart outlasts the patience of the turns.
_IMPATIENT_EVERY = 3


class Planner:
    """Planner of a campaign.

    Args:
        seed: Seed of all choices.
        most: Most kills of a run.

    Attributes:
        sessions: Conversations that pass each point, by scene and point.
        hits: Number of kills of the agent at each point.
        systematic: Points that the uninterrupted runs passed.
    """

    def __init__(self, seed: int, most: int) -> None:
        self._most = most
        self._rng = random.Random(seed)
        self._numbers: Counter[Scene] = Counter()
        self.sessions: dict[tuple[Scene, str], set[str]] = {}
        self.hits: Counter[str] = Counter()
        self.systematic: set[str] = set()

    def learn(self, result: RunResult, *, is_reference: bool = False) -> None:
        """Note the points that a run has passed, and its kills."""
        scene = result.plan.scene
        for session, point in result.passed:
            self.sessions.setdefault((scene, point), set()).add(session)
            if is_reference and _victim(point) is Victim.AGENT and not _begins(point):
                self.systematic.add(point)
        self.hits.update(death.point for death in result.deaths if death.victim is Victim.AGENT)

    @property
    def missing(self) -> list[str]:
        """Points of uninterrupted runs without a kill of the agent yet."""
        return sorted(self.systematic - self.hits.keys())

    def plan(self, number: int, kills: int) -> RunPlan:
        """Return the plan of the next run.

        Args:
            number: Number of the run, from 0.
            kills: Kills that are left.
        """
        setting = SETTINGS[number % len(SETTINGS)]
        self._numbers[setting.scene] += 1
        is_impatient = (
            setting.scene is Scene.SERVED and not self._numbers[setting.scene] % _IMPATIENT_EVERY
        )
        conversations = self._choose_conversations(setting.scene)
        random_kills = self._choose_random_kills(setting)[:kills]
        at_points = min(self._most, kills) - len(random_kills) - _LAST_KILLS * setting.agents
        return RunPlan(
            name=f"run_{number}",
            scene=setting.scene,
            is_postgresql=setting.is_postgresql,
            agents=setting.agents,
            conversations=conversations,
            targets=tuple(self._choose_targets(setting, conversations, max(at_points, 1))),
            random_kills=tuple(random_kills),
            patience=1.0 if is_impatient else 60.0,
            server_down=3.0 if is_impatient else 0.2,
            seed=self._rng.randrange(2**32),
        )

    def _choose_conversations(self, scene: Scene) -> tuple[Conversation, ...]:
        """Return conversations, first those with most points that are missing."""
        found = [each for each in CONVERSATIONS if each.scene is scene]
        self._rng.shuffle(found)
        missing = Counter(
            session
            for (of, point), sessions in self.sessions.items()
            if of is scene and not self.hits[point]
            for session in sessions
        )
        half = _MOST_CONVERSATIONS // 2
        found.sort(key=lambda each: -missing[each.name])
        rest = found[half:]
        self._rng.shuffle(rest)
        return tuple([*found[:half], *rest][:_MOST_CONVERSATIONS])

    def _choose_targets(
        self, setting: Setting, conversations: Sequence[Conversation], count: int
    ) -> list[Target]:
        names, scene = {each.name for each in conversations}, setting.scene
        points = [point for of, point in self.sessions if of is scene]
        agents = [point for point in points if _victim(point) is Victim.AGENT]
        own = [point for point in agents if self.sessions[scene, point] & names]
        elsewhere = [point for point in agents if _NOBODY in self.sessions[scene, point]]
        candidates = {
            victim: [point for point in points if _victim(point) is victim]
            for victim in (Victim.PAYMENTS, Victim.DISPATCHER)
        }
        candidates[Victim.POSTGRESQL] = [*own, *elsewhere] if setting.is_postgresql else []
        candidates[Victim.SERVER] = [point for point in own if ":call:" in point]
        targets = {
            point: self._target(point, victim)
            for victim, found in candidates.items()
            for point in self._some(found, self._share(victim, count))
        }
        left = max(count - len(targets), 1)
        chosen = [point for point in own if point not in targets and not _begins(point)]
        others = [point for point in elsewhere if point not in targets and not _begins(point)]
        chosen += self._rarest(others, math.ceil(left * _ELSEWHERE))
        targets |= {point: Target(point, Victim.AGENT) for point in self._rarest(chosen, left)}
        return list(targets.values())

    def _share(self, victim: Victim, count: int) -> int:
        """Return the number of kills at points of one victim."""
        return min(_POINT_KILLS[victim], max(count // 4, 1))

    def _target(self, point: str, victim: Victim) -> Target:
        delay = self._rng.uniform(0.0, _CALL_SECONDS) if victim is Victim.SERVER else 0.0
        pause = self._rng.choice(_PAUSES) if victim is Victim.POSTGRESQL else 0.0
        return Target(point, victim, delay, pause)

    def _rarest(self, points: Sequence[str], count: int) -> list[str]:
        """Return points of the agent with fewest kills, in random order."""
        shuffled = self._some(sorted(points), len(points))
        return sorted(shuffled, key=lambda point: self.hits[point])[:count]

    def _some(self, points: Sequence[str], count: int) -> list[str]:
        return self._rng.sample(sorted(points), min(count, len(points)))

    def _choose_random_kills(self, setting: Setting) -> list[Victim]:
        victims = [Victim.AGENT, Victim.PAYMENTS, Victim.DISPATCHER]
        if setting.is_postgresql:
            victims += [Victim.POSTGRESQL, Victim.POSTGRESQL]
        if setting.scene is Scene.SERVED:
            victims += [Victim.SERVER]
        return self._rng.sample(victims, min(_RANDOM_KILLS, len(victims)))


def _begins(point: str) -> bool:
    return point.endswith(f":{BEGIN}")


def _victim(point: str) -> Victim:
    """Return the process that passes a point."""
    return _POINTS_OF_OTHERS.get(point.partition(":")[0], Victim.AGENT)
