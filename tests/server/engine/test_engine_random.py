"""Random mixes of all kinds of requests, compared with uncached decoding."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import EngineBench
from tests.support.generation_params import beams, generations
from tests.support.naive_decode import NaiveDecoder, UncachedRunner, assert_cache_matches_model

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.results import GenerationResult, ScoreResult
from gpt2flow.server.engine.task import Task
from gpt2flow.server.generation.factory import Arrival
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.params import BeamSearchParams, GenerationParams, OutputParams

TEXTS = [[(7 * at) % 290 + 5 for at in range(60)], [(11 * at) % 290 + 5 for at in range(60)]]
OUTPUT = OutputParams(token_ids=True)

Continuations = list[list[int]]


@dataclass(frozen=True)
class Client:
    """Request with its time of arrival and of cancellation.

    Attributes:
        prompt: Token ids.
        work: Parameters of a generation, or continuations to score.
        delay: Steps between the previous arrival and this one.
        cancelled: Steps between arrival and cancellation, or None.
    """

    prompt: list[int]
    work: GenerationParams | Continuations
    delay: int
    cancelled: int | None


@st.composite
def prompts(draw: st.DrawFn) -> list[int]:
    """Draw part of one of two texts with an end."""
    text = draw(st.sampled_from(TEXTS))
    end = draw(st.lists(st.integers(1, 3), max_size=3))
    return text[: draw(st.sampled_from([0, 1, 8, 9, 20, 40, 60]))] + end or [1]


priorities = st.integers(0, 5)
clients = st.builds(
    Client,
    prompt=prompts(),
    work=st.one_of(
        st.builds(lambda params, p: replace(params, priority=p), generations, priorities),
        st.builds(lambda params, p: replace(params, priority=p), generations, priorities),
        st.builds(lambda params, p: replace(params, priority=p), beams, priorities),
        st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=12), min_size=1, max_size=3),
    ),
    delay=st.sampled_from([0, 1, 3]),
    cancelled=st.sampled_from([None, None, None, None, 5, 15]),
)


@dataclass(frozen=True)
class Mix:
    """Clients, number of slots, and seconds per step."""

    clients: list[Client]
    slots: int
    seconds: float


def mix_of(clients: list[Client], slots: int, seconds: float, *, rising: bool) -> Mix:
    fit = [replace(each, work=fitting(each.work, slots)) for each in clients]
    if rising:  # Rising priorities cause many preemptions.
        fit.sort(key=lambda each: getattr(each.work, "priority", 0))
    return Mix(fit, slots, seconds)


mixes = st.builds(
    mix_of,
    clients=st.lists(clients, min_size=4, max_size=8),
    slots=st.sampled_from([1, 2, 3, 3, 4]),
    seconds=st.sampled_from([0.0, 0.1, 4.0]),
    rising=st.booleans(),
)


def fitting(work: GenerationParams | Continuations, slots: int) -> GenerationParams | Continuations:
    """Limit candidates or beams to the number of slots."""
    if isinstance(work, list):
        return work
    decoding = work.decoding
    if isinstance(decoding, BeamSearchParams):
        num_beams = min(decoding.num_beams, slots)
        returned = min(decoding.num_return_sequences, num_beams)
        decoding = replace(decoding, num_beams=num_beams, num_return_sequences=returned)
    else:
        decoding = replace(decoding, n=min(decoding.n, slots))
    return replace(work, decoding=decoding, output=OUTPUT)


def task_of(bench: EngineBench, client: Client) -> Task:
    if isinstance(client.work, list):
        continuations = [Prompt("c", tuple(tokens)) for tokens in client.work]
        prompt = Prompt("p", tuple(client.prompt))
        return bench.factory.score(prompt, continuations, Arrival(bench.now))
    return bench.task(client.prompt, client.work, stream=True)


Answer = list[list[int]] | list[float]


def answer(bench: EngineBench, task: Task) -> Answer:
    """Return the tokens of all candidates, or all scores."""
    outcome = bench.outcome(task)
    if isinstance(outcome, ScoreResult):
        return [score.total for score in outcome.scores]
    assert isinstance(outcome, GenerationResult), outcome
    return [list(each.token_ids) for each in outcome.candidates]


def naive_answer(bench: EngineBench, fresh_runner: ModelRunner, client: Client) -> Answer:
    """Return the answer of a client alone, computed without a cache."""
    work = client.work
    if isinstance(work, GenerationParams) and not isinstance(work.decoding, BeamSearchParams):
        naive = NaiveDecoder(bench, fresh_runner)
        return [naive.decode(client.prompt, work, index) for index in range(work.slots_needed)]
    bench.engine._runner = UncachedRunner(fresh_runner)
    task = bench.add(task_of(bench, client))
    bench.finish()
    return answer(bench, task)


def run(bench: EngineBench, mix: Mix, seen: Counter[str]) -> list[Task]:
    """Run a mix to its end and count cancellations in `seen`."""
    tasks: list[Task] = []
    drops: list[tuple[int, Task]] = []
    step = arrival = 0
    while len(tasks) < len(mix.clients) or bench.engine.busy:
        while len(tasks) < len(mix.clients) and step >= arrival + mix.clients[len(tasks)].delay:
            client, arrival = mix.clients[len(tasks)], step
            tasks.append(bench.add(task_of(bench, client)))
            if client.cancelled is not None:
                drops.append((step + client.cancelled, tasks[-1]))
        for at, task in drops:
            if at == step and not task.done:
                request = task.request
                seen["cancelled"] += 1
                seen["cancelled while preempted"] += bool(request.sequences and not request.slots)
                bench.engine.abort(request.id)
        bench.step()
        bench.now += mix.seconds
        step += 1
        assert step < 3000
    return tasks


def test_any_mix_equals_naive_decoding(
    make_bench: Callable[..., EngineBench], fresh_runner: ModelRunner
) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    @given(mixes)
    def check(mix: Mix) -> None:
        bench = make_bench(slots=mix.slots)
        for client, task in zip(mix.clients, run(bench, mix, seen), strict=True):
            request = task.request
            seen["with a prefix"] += request.cached_tokens > 0
            if not bench.events[request.id] or not bench.events[request.id][-1].last:
                assert client.cancelled is not None
                continue
            expected = naive_answer(make_bench(slots=mix.slots), fresh_runner, client)
            if isinstance(client.work, list):
                assert answer(bench, task) == pytest.approx(expected, abs=1e-2)
                kind = "scores"
            else:
                assert answer(bench, task) == expected
                kind = type(client.work.decoding).__name__
                if not isinstance(client.work.decoding, BeamSearchParams):
                    bench.assert_deltas_match_result(task)
            seen[f"{kind} preempted"] += request.preemptions > 0
            seen["several preempted"] += request.preemptions > 0 and request.slots_needed > 1
        assert_cache_matches_model(bench, fresh_runner)
        bench.assert_all_free()

    check()
    for case in (
        "cancelled",
        "cancelled while preempted",
        "with a prefix",
        "SamplingParams preempted",
        "BeamSearchParams preempted",
        "scores preempted",
        "several preempted",
    ):
        assert seen[case] > 0, f"no example is {case}"
