"""Figures of an evaluation as JSON, and transcripts of conversations."""

import json
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist, mean, quantiles
from typing import Any

from gpt2flow.agent.evaluation.play import Playthrough
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.report import ActionReport, TurnReport
from gpt2flow.agent.scenarios.shop_state import outcomes

_CONFIDENCE = 0.95
_GROUPS = ("workflow", "language", "kind")


def summary(
    book: FlowBook, results: Sequence[Playthrough], repeats: int, *, with_misses: bool = True
) -> dict[str, Any]:
    """Summarize an evaluation.

    Args:
        book: Flows that were played.
        results: Every playthrough.
        repeats: Number of times that each scenario was played.
        with_misses: Whether to include the transcript of each miss.

    Returns:
        `pass^1` is the share of playthroughs that passed, and `pass^K` the share of scenarios
        that passed all K times, each as `{rate, low, high}` with a 95 % interval. Both are also
        given by workflow, language and kind. `docs/evaluation.md` describes the other figures.
    """
    turns = [report for result in results for report in result.reports]
    found = {
        "scenarios": len({result.scenario.id for result in results}),
        "repeats": repeats,
        **_passes(results, repeats),
        **{f"by_{group}": _passes_by(results, repeats, group) for group in _GROUPS},
        "harm": _share(results, lambda result: bool(result.harm)),
        "questions": mean(result.questions for result in results) if results else 0.0,
        "needless_questions": _per(sum(r.needless_questions for r in results), len(turns)),
        "escalation_rate": _share(results, lambda result: result.escalated),
        "illegal_action_rate": _per(sum(r.illegal_actions for r in results), len(turns)),
        "milliseconds": _latencies(turns),
        "coverage": _coverage(book, turns),
    }
    if with_misses:
        found["misses"] = [_describe(result) for result in results if not result.passed]
        found["harms"] = [_describe(result) for result in results if result.harm and result.passed]
    return found


def interval(successes: float, count: int) -> dict[str, float]:
    """Return a rate with its Wilson score interval at 95 %.

    Args:
        successes: Number of successes; a mean over repeats may be fractional.
        count: Number of independent scenarios.
    """
    if count == 0:
        return {"rate": 0.0, "low": 0.0, "high": 1.0}
    z, rate = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2), successes / count
    centre = rate + z * z / (2 * count)
    spread = z * ((rate * (1 - rate) + z * z / (4 * count)) / count) ** 0.5
    scale = 1 + z * z / count
    return {
        "rate": rate,
        "low": max(0.0, (centre - spread) / scale),
        "high": min(1.0, (centre + spread) / scale),
    }


def _passes(results: Sequence[Playthrough], repeats: int) -> dict[str, Any]:
    """Return pass^1 and pass^K.

    Repeats of a scenario are no independent trials, so that its mean counts as one.
    """
    by_scenario: dict[str, list[bool]] = {}
    for result in results:
        by_scenario.setdefault(result.scenario.id, []).append(result.passed)
    rates = [mean(passed) for passed in by_scenario.values()]
    return {
        "pass^1": interval(sum(rates), len(rates)),
        f"pass^{repeats}": interval(sum(rate == 1 for rate in rates), len(rates)),
    }


def _passes_by(results: Sequence[Playthrough], repeats: int, group: str) -> dict[str, Any]:
    """Return the passes of each value of a field.

    Scenarios without the field are left out.
    """
    values = sorted({value for r in results if (value := getattr(r.scenario, group)) is not None})
    return {
        value: {"scenarios": len({r.scenario.id for r in chosen}), **_passes(chosen, repeats)}
        for value in values
        if (chosen := [r for r in results if getattr(r.scenario, group) == value])
    }


def _share(results: Sequence[Playthrough], holds: Callable[[Playthrough], bool]) -> dict[str, Any]:
    """Return the number and share of playthroughs that satisfy `holds`."""
    number = sum(map(holds, results))
    return {"conversations": number, "rate": _per(number, len(results))}


def _per(number: int, total: int) -> float:
    return number / total if total else 0.0


def _latencies(turns: Iterable[TurnReport]) -> dict[str, dict[str, float]]:
    """Return percentiles of the model's time per turn, and per call."""
    calls = [[call.milliseconds for call in turn.calls] for turn in turns]
    return {
        "turn": _percentiles([sum(times) for times in calls]),
        "call": _percentiles([time for times in calls for time in times]),
    }


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    if len(times) < 2:
        return {}
    cuts = quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def _coverage(book: FlowBook, turns: Sequence[TurnReport]) -> dict[str, Any]:
    """Return which actions and outcomes of the flows occurred."""
    known, seen = book.outcomes, set(outcomes(book, turns))
    actions = {name.split(".")[1] for name in seen}
    return {
        "actions": _per(len(actions), len(book.actions)),
        "outcomes": _per(len(seen), len(known)),
        "actions_missing": sorted(set(book.actions) - actions),
        "outcomes_missing": sorted(known - seen),
    }


def _describe(result: Playthrough) -> dict[str, Any]:
    return {
        "id": result.scenario.id,
        "title": result.scenario.title,
        "repeat": result.repeat,
        "differences": result.differences,
        "harm": result.harm,
        "transcript": transcript(result),
    }


def transcript(result: Playthrough) -> list[str]:
    """Return the lines of a conversation: messages, actions and answers."""
    return [line for report in result.reports for line in _turn_lines(report)]


def _turn_lines(report: TurnReport) -> list[str]:
    lines = [f"{report.session}: {report.message}"]
    events = [action for event in report.events for action in event.actions]
    for action in [*report.actions, *events]:
        lines.append(f"  {_action_line(action)}")
        lines += [f"  agent: {message.text}" for message in action.messages]
    return lines


def _action_line(action: ActionReport) -> str:
    used = json.dumps(action.used, ensure_ascii=False)
    ending = action.outcome or (f"asked for {action.asked}" if action.asked else "not possible now")
    return f"[{action.action} {used} → {ending}]"
