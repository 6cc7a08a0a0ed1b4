"""Plans of a campaign."""

import itertools

from tests.chaos.conversations import CONVERSATIONS, Scene
from tests.chaos.plan import SETTINGS, Planner
from tests.chaos.processes.keeper import Death
from tests.chaos.processes.kill_points import ANSWERED, Victim
from tests.chaos.stage import RunPlan, RunResult

STEPS = 8


def reference(scene: Scene) -> RunResult:
    """Return an uninterrupted run, in which each message passes some points."""
    conversations = tuple(each for each in CONVERSATIONS if each.scene is scene)
    plan = RunPlan("reference", scene, is_postgresql=False, agents=1, conversations=conversations)
    name = "call" if scene is Scene.SERVED else "execute"
    passed = {
        (each.name, f"{message.id}:{step}:{name}:before")
        for each in conversations
        for message in each.messages
        for step in range(STEPS)
    }
    passed |= {
        (each.name, f"{message.id}{ANSWERED}")
        for each in conversations
        for message in each.messages
    }
    passed |= {(each.name, f"desk:{act}:x") for each in conversations for act in each.acts}
    passed |= {("-", "launch:dbos:after"), ("-", "payments:charge:x"), ("-", "dispatcher:x:y")}
    return RunResult(plan, passed=passed)


def fulfilled(plan: RunPlan) -> RunResult:
    """Return a run in which every kill of a plan happened."""
    deaths = [Death(each.victim, each.point, 0.0) for each in plan.targets]
    return RunResult(plan, deaths=deaths)


def new_planner() -> Planner:
    planner = Planner(seed=1, most=25)
    for scene in Scene:
        planner.learn(reference(scene), is_reference=True)
    return planner


def test_the_agent_is_killed_at_every_point_before_it_is_killed_at_one_twice_as_often() -> None:
    planner = new_planner()
    points = planner.points[Victim.AGENT]
    for number in itertools.count():
        if not points - planner.hits.keys():
            break
        planner.learn(fulfilled(planner.plan(number, 1000)))
        assert number < len(points)
    assert sum(planner.hits[point] for point in points) < 2 * len(points)


def test_people_are_killed_at_every_point() -> None:
    planner = new_planner()
    for number in range(2 * len(SETTINGS)):
        planner.learn(fulfilled(planner.plan(number, 1000)))
    assert planner.points[Victim.DESK]
    assert not planner.points[Victim.DESK].intersection(planner.missing)


def test_points_that_only_disturbed_runs_pass_do_not_delay_the_others() -> None:
    planner = new_planner()
    served = reference(Scene.SERVED)
    strange = {("served-en", f"hand_over:{number}:x") for number in range(1000)}
    planner.learn(RunResult(served.plan, passed=strange))
    number = [each.scene for each in SETTINGS].index(Scene.SERVED)
    targets = planner.plan(number, 1000).targets
    agent = {each.point for each in targets if each.victim is Victim.AGENT}
    assert agent
    assert agent <= planner.points[Victim.AGENT]


def test_a_plan_kills_each_process_that_the_run_has() -> None:
    planner = new_planner()
    for number, setting in enumerate(SETTINGS):
        victims = {each.victim for each in planner.plan(number, 1000).targets}
        expected = {Victim.AGENT, Victim.PAYMENTS, Victim.DISPATCHER}
        expected |= {Victim.ENDPOINT} if setting.endpoints else set()
        expected |= {Victim.DESK} if setting.scene is Scene.SHOP else set()
        expected |= {Victim.POSTGRESQL} if setting.is_postgresql else set()
        expected |= {Victim.SERVER} if setting.scene is Scene.SERVED else set()
        assert victims == expected


def test_the_same_seed_gives_the_same_plans() -> None:
    first, second = new_planner(), new_planner()
    for number in range(len(SETTINGS)):
        assert first.plan(number, 1000) == second.plan(number, 1000)


def test_an_endpoint_is_killed_in_runs_with_one_and_with_two_agents() -> None:
    assert {each.agents for each in SETTINGS if each.endpoints} == {1, 2}
    assert all(each.endpoints <= each.agents for each in SETTINGS)


def test_a_kill_of_an_endpoint_at_a_point_of_its_agent_counts() -> None:
    planner = new_planner()
    point = planner.missing[0]
    plan = planner.plan(0, 1000)
    planner.learn(RunResult(plan, deaths=[Death(Victim.ENDPOINT, point, 0.0)]))
    assert point not in planner.missing


def test_more_than_half_of_the_settings_have_two_agents() -> None:
    assert 2 * sum(setting.agents == 2 for setting in SETTINGS) > len(SETTINGS)


def test_a_plan_has_no_more_kills_than_are_left() -> None:
    planner = new_planner()
    for number in range(len(SETTINGS)):
        plan = planner.plan(number, 12)
        assert len(plan.targets) + len(plan.random_kills) + plan.agents <= 12
