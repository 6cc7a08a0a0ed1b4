"""Cost of a run, and the acceptance rate from which drafts pay."""

import pytest

from gpt2flow.server.engine.forecast import RunCost


def test_nothing_is_known_before_runs_of_two_sizes() -> None:
    cost = RunCost()
    assert cost.break_even(1) == 0
    for _ in range(100):
        cost.record(4, 0.004)
    assert cost.break_even(4) == 0


@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_the_break_even_is_the_share_of_a_run_that_grows_with_its_tokens(tokens: int) -> None:
    cost = RunCost()
    for size in (1, 2, 5, 9, 16) * 10:
        cost.record(size, 0.002 + 0.0005 * size)
    marginal = 0.0005 * tokens
    assert cost.break_even(tokens) == pytest.approx(marginal / (0.002 + marginal))


def test_old_runs_are_forgotten() -> None:
    cost = RunCost()
    for slope in (0.01, 0.0001):
        for size in (1, 2, 4, 8) * 100:
            cost.record(size, 0.002 + slope * size)
    assert cost.break_even(1) == pytest.approx(0.0001 / 0.0021, rel=0.1)


@pytest.mark.parametrize("seconds", [lambda size: 0.01 / size, lambda size: 0.001 * size])
def test_the_break_even_is_a_share(seconds: object) -> None:
    cost = RunCost()
    for size in (1, 2, 4, 8) * 10:
        cost.record(size, seconds(size))  # type: ignore[operator]
    assert 0 <= cost.break_even(3) <= 1
