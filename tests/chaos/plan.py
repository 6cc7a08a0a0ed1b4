"""Plans of the runs of a campaign.

The agent is killed at every point before it is killed at one again.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.conversations import CONVERSATIONS, Conversation, Scene
from tests.chaos.processes.command_points import ENDPOINT_PLACES, endpoint_point
from tests.chaos.processes.kill_points import ANSWERED, BEGIN, Target, Victim
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
    Victim.ENDPOINT: 3,
    Victim.DESK: 3,
}
# Kills at random times, and those of agents at the end of a run.
_RANDOM_KILLS, _LAST_KILLS = 4, 1
# Tries at a point that count as a kill: one that is hardly ever reached must not use up all.
_TRIES = 4
# Largest share of the agent's points that belong to no conversation.
_ELSEWHERE = 0.3
# Longest time between the start of a model call and the kill of the server.
_CALL_SECONDS = 0.15
# What follows a kill of PostgreSQL begins at once, or after its connections have ended.
_PAUSES = (0.0, 0.1)
# Processes other than agents, by the first part of their points.
_POINTS_OF_OTHERS = {
    str(victim): victim
    for victim in (Victim.ENDPOINT, Victim.DESK, Victim.PAYMENTS, Victim.DISPATCHER)
}
# Victims whose points a campaign counts.
_COUNTED = (Victim.AGENT, Victim.ENDPOINT, Victim.DESK)


@dataclass(frozen=True)
class Setting:
    """Shop and processes of a run.

    Attributes:
        endpoints: Number of the agents that take messages over HTTP.
    """

    scene: Scene
    is_postgresql: bool
    agents: int
    endpoints: int = 0


# More than half of the kills are in runs with two agents.
SETTINGS = (
    Setting(Scene.SHOP, is_postgresql=True, agents=2, endpoints=1),
    Setting(Scene.SHOP, is_postgresql=False, agents=1),
    Setting(Scene.NO_COURIER, is_postgresql=True, agents=2),
    Setting(Scene.SERVED, is_postgresql=True, agents=2, endpoints=1),
    Setting(Scene.SHOP, is_postgresql=True, agents=2, endpoints=2),
    Setting(Scene.SHOP, is_postgresql=True, agents=1),
    Setting(Scene.NO_COURIER, is_postgresql=False, agents=1, endpoints=1),
    Setting(Scene.SHOP, is_postgresql=True, agents=2),
    Setting(Scene.SHOP, is_postgresql=False, agents=1, endpoints=1),
    Setting(Scene.SERVED, is_postgresql=False, agents=1),
    Setting(Scene.SHOP, is_postgresql=True, agents=2, endpoints=1),
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
        hits: Number of kills at each point of agents, endpoints and people.
        points: Points that the uninterrupted runs passed, by the process that passes them.
    """

    def __init__(self, seed: int, most: int) -> None:
        self._most = most
        self._rng = random.Random(seed)
        self._numbers: Counter[Scene] = Counter()
        self.sessions: dict[tuple[Scene, str], set[str]] = {}
        self.hits: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()
        self.points: dict[Victim, set[str]] = {victim: set() for victim in _COUNTED}

    def learn(self, result: RunResult, *, is_reference: bool = False) -> None:
        """Note the points that a run has passed, and its kills."""
        scene = result.plan.scene
        for session, point in result.passed | set(_endpoint_points(result)):
            self.sessions.setdefault((scene, point), set()).add(session)
            victim = _victim(point)
            if is_reference and victim in self.points and not _begins(point):
                self.points[victim].add(point)
        self.hits.update(death.point for death in result.deaths if death.victim in _COUNTED)

    @property
    def missing(self) -> list[str]:
        """Points of agents and people without a kill yet.

        An endpoint is an agent, so that its own points are no condition.
        """
        return sorted((self.points[Victim.AGENT] | self.points[Victim.DESK]) - self.hits.keys())

    @property
    def covered(self) -> dict[Victim, int]:
        """Number of points with a kill, by the process that passes them."""
        return {victim: len(points & self.hits.keys()) for victim, points in self.points.items()}

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
            endpoints=setting.endpoints,
            conversations=conversations,
            targets=tuple(self._choose_targets(setting, conversations, max(at_points, 1))),
            random_kills=tuple(random_kills),
            patience=1.0 if is_impatient else 60.0,
            server_down=3.0 if is_impatient else 0.2,
            seed=self._rng.randrange(2**32),
        )

    def _choose_conversations(self, scene: Scene) -> tuple[Conversation, ...]:
        """Return conversations, first those with most points that are missing.

        People have something to decide, if they have in this shop.
        """
        found = [each for each in CONVERSATIONS if each.scene is scene]
        self._rng.shuffle(found)
        missing = Counter(
            session for point in self.missing for session in self.sessions.get((scene, point), ())
        )
        half = _MOST_CONVERSATIONS // 2
        found.sort(key=lambda each: -missing[each.name])
        chosen, rest = found[:half], found[half:]
        self._rng.shuffle(rest)
        if not any(each.acts for each in chosen):
            rest.sort(key=lambda each: not each.acts)
        return tuple([*chosen, *rest][:_MOST_CONVERSATIONS])

    def _choose_targets(
        self, setting: Setting, conversations: Sequence[Conversation], count: int
    ) -> list[Target]:
        names = {each.name for each in conversations}
        found = self._candidates(setting, names)
        targets: dict[str, Target] = {}
        for victim in _POINT_KILLS:
            points = [point for point in found[victim] if point not in targets]
            choose = self._rarest if victim in _COUNTED else self._some
            chosen = choose(points, self._share(victim, count))
            targets |= {point: self._target(point, victim) for point in chosen}
        left = max(count - len(targets), 1)
        free = [
            point for point in found[Victim.AGENT] if point not in targets and not _begins(point)
        ]
        own = [point for point in free if self.sessions[setting.scene, point] & names]
        others = [point for point in free if _NOBODY in self.sessions[setting.scene, point]]
        own += self._rarest(others, math.ceil(left * _ELSEWHERE))
        targets |= {point: Target(point, Victim.AGENT) for point in self._rarest(own, left)}
        self._tries.update(targets.keys())
        return list(targets.values())

    def _candidates(self, setting: Setting, names: set[str]) -> dict[Victim, list[str]]:
        """Return the points at which each process may be killed.

        Args:
            setting: Processes of the run.
            names: Its conversations.
        """
        found: dict[Victim, list[str]] = {victim: [] for victim in Victim}
        for (scene, point), sessions in self.sessions.items():
            if scene is setting.scene and sessions & {*names, _NOBODY}:
                found[_victim(point)].append(point)
        if setting.is_postgresql:
            found[Victim.POSTGRESQL] = [*found[Victim.AGENT], *found[Victim.DESK]]
        if setting.scene is Scene.SERVED:
            found[Victim.SERVER] = [point for point in found[Victim.AGENT] if ":call:" in point]
        if not setting.endpoints:
            found[Victim.ENDPOINT] = []
        return found

    def _share(self, victim: Victim, count: int) -> int:
        """Return the number of kills at points of one victim."""
        return min(_POINT_KILLS[victim], max(count // 6, 1))

    def _target(self, point: str, victim: Victim) -> Target:
        delay = self._rng.uniform(0.0, _CALL_SECONDS) if victim is Victim.SERVER else 0.0
        pause = self._rng.choice(_PAUSES) if victim is Victim.POSTGRESQL else 0.0
        return Target(point, victim, delay, pause)

    def _rarest(self, points: Sequence[str], count: int) -> list[str]:
        """Return the points with fewest kills, in random order.

        Those that only disturbed runs have passed come after the others, and those that runs do
        not reach come later with each try.
        """
        systematic = set().union(*self.points.values())

        def rank(point: str) -> tuple[int, bool]:
            return self.hits[point] + self._tries[point] // _TRIES, point not in systematic

        return sorted(self._some(points, len(points)), key=rank)[:count]

    def _some(self, points: Sequence[str], count: int) -> list[str]:
        return self._rng.sample(sorted(points), min(count, len(points)))

    def _choose_random_kills(self, setting: Setting) -> list[Victim]:
        victims = [Victim.PAYMENTS, Victim.DISPATCHER]
        if setting.endpoints < setting.agents:
            victims += [Victim.AGENT]
        if setting.endpoints:
            victims += [Victim.ENDPOINT]
        if setting.is_postgresql:
            victims += [Victim.POSTGRESQL, Victim.POSTGRESQL]
        if setting.scene is Scene.SERVED:
            victims += [Victim.SERVER]
        return self._rng.sample(victims, min(_RANDOM_KILLS, len(victims)))


def _endpoint_points(result: RunResult) -> Iterator[tuple[str, str]]:
    """Yield the points of an endpoint that takes a run's messages.

    Each is with its conversation.
    """
    for session, point in result.passed:
        if point.endswith(ANSWERED):
            kind = point.removesuffix(ANSWERED)
            yield from ((session, endpoint_point(kind, place)) for place in ENDPOINT_PLACES)


def _begins(point: str) -> bool:
    return point.endswith(f":{BEGIN}")


def _victim(point: str) -> Victim:
    """Return the process that passes a point."""
    return _POINTS_OF_OTHERS.get(point.partition(":")[0], Victim.AGENT)
