"""Charts place points, thin out long curves, and label round values."""

import pytest

from gpt2flow.reports.charts import HEIGHT, WIDTH, draw_bars, draw_chart


def _points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]


def test_the_highest_value_is_on_top_and_the_last_step_on_the_right() -> None:
    chart = draw_chart("loss", {"loss": [(10, 4.0), (20, 1.0), (40, 2.0)]})
    assert chart is not None
    first, second, last = _points(chart.lines["loss"])
    assert first[1] < last[1] < second[1] < HEIGHT
    assert last[0] > second[0] > first[0]
    assert first[1] < 20
    assert last[0] > WIDTH - 20
    assert [label for _, label in chart.y_ticks] == ["0", "1", "2", "3", "4"]
    assert [label for _, label in chart.x_ticks] == ["0", "10", "20", "30", "40"]


def test_equal_ratios_have_equal_distances_on_a_logarithmic_axis() -> None:
    chart = draw_chart("loss", {"loss": [(1, 8.0), (2, 0.8), (3, 0.08)]}, is_log=True)
    assert chart is not None
    heights = [y for _, y in _points(chart.lines["loss"])]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    assert [label for _, label in chart.y_ticks] == ["0.1", "0.2", "0.5", "1", "2", "5"]


@pytest.mark.parametrize("values", [[3.0, 3.0], [0.0, 0.0], [1.0, 1.01], [3.0]])
def test_a_flat_curve_is_drawn_with_at_least_one_tick(values: list[float]) -> None:
    for is_log in (False, True):
        chart = draw_chart("loss", {"loss": list(enumerate(values))}, is_log=is_log)
        assert chart is not None
        assert chart.y_ticks
        assert all(0 <= y <= HEIGHT for _, y in _points(chart.lines["loss"]))


def test_a_long_curve_is_averaged_to_a_few_hundred_points() -> None:
    chart = draw_chart("loss", {"loss": [(step, float(step % 2)) for step in range(10_001)]})
    assert chart is not None
    points = _points(chart.lines["loss"])
    assert 300 < len(points) <= 400
    # Neighbours are 0 and 1, and their mean is a half.
    assert all(HEIGHT * 0.4 < y < HEIGHT * 0.6 or y < 20 for _, y in points[:-1])


def test_without_points_there_is_no_chart() -> None:
    assert draw_chart("loss", {"loss": [], "other": []}) is None


def test_bars_start_at_zero_and_the_longest_has_the_largest_value() -> None:
    chart = draw_bars("rate", {"a": 1.0, "b": 4.0, "c": None, "d": 0.0}, highlighted=["b"])
    assert chart is not None
    first, second, missing, zero = chart.bars
    assert first.length is not None
    assert second.length is not None
    assert second.length == pytest.approx(4 * first.length, abs=1)
    assert (missing.length, missing.label) == (None, "–")
    assert zero.length == 1
    assert [bar.group for bar in chart.bars] == [0, 1, 0, 0]
    assert first.top < second.top < missing.top < zero.top < chart.height
    assert chart.left + second.length < chart.width


def test_no_values_make_no_bars() -> None:
    assert draw_bars("rate", {}) is None
    assert draw_bars("rate", {"a": None}) is None
