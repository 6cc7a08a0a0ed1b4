"""Line and bar charts as coordinates of an inline SVG."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 260
# Room for the labels of the axes.
_LEFT, _BOTTOM, _RIGHT, _TOP = 64, 28, 12, 12
# More points than pixels are averaged.
_MAX_POINTS = 400
# Height of a bar with the gap below it, and room for names and values beside it.
_BAR, _NAMES, _VALUES = 22, 240, 80

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Line chart in pixels, from the upper left corner.

    Attributes:
        title: Heading.
        lines: Points of each line as SVG's `points`, by name.
        x_ticks: Position and label of each tick of the horizontal axis.
        y_ticks: Position and label of each tick of the vertical axis.
    """

    title: str
    lines: dict[str, str]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Bar:
    """Bar of a chart.

    Attributes:
        name: What the bar stands for.
        top: Distance from the upper edge.
        length: Length in pixels; None without a value.
        label: Value, as text.
        group: Number of its colour.
        thickness: Height in pixels.
    """

    name: str
    top: int
    length: float | None
    label: str
    group: int = 0
    thickness: int = _BAR - 6


@dataclass(frozen=True)
class BarChart:
    """Chart of horizontal bars.

    Attributes:
        title: Heading.
        note: Unit, or which direction is better.
        bars: Bars from the top.
        height: Height in pixels.
        width: Width in pixels.
        left: Room for the names.
    """

    title: str
    note: str
    bars: list[Bar]
    height: int
    width: int = WIDTH
    left: int = _NAMES


def draw_chart(title: str, series: Mapping[str, Points], *, is_log: bool = False) -> Chart | None:
    """Return a chart of several lines.

    Args:
        title: Heading.
        series: Points of each line, by name, in ascending order of the first coordinate.
        is_log: Draw the vertical axis logarithmically; values below 1e-6 count as 1e-6.

    Returns:
        The chart, None without points.
    """
    lines = {name: _thin_out(points) for name, points in series.items() if points}
    if not lines:
        return None
    if is_log:
        lines = {
            name: [(x, math.log10(max(y, 1e-6))) for x, y in points]
            for name, points in lines.items()
        }
    ys = [y for points in lines.values() for _, y in points]
    low, high = (min(ys), max(ys)) if is_log else (0.0, max(ys))
    high = high if high > low else low + 1
    end = max(x for points in lines.values() for x, _ in points)

    def place_x(x: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * x / max(end, 1), 1)

    def place_y(y: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * (y - low) / (high - low), 1)

    ticks = _log_ticks(low, high) if is_log else [(y, f"{y:.3g}") for y in _ticks(low, high)]
    return Chart(
        title,
        {
            name: " ".join(f"{place_x(x)},{place_y(y)}" for x, y in points)
            for name, points in lines.items()
        },
        [(place_x(x), f"{x:,.0f}") for x in _ticks(0, end)],
        [(place_y(y), label) for y, label in ticks],
    )


def draw_bars(
    title: str,
    values: Mapping[str, float | None],
    *,
    note: str = "",
    digits: int = 1,
    highlighted: Collection[str] = (),
) -> BarChart | None:
    """Return a chart of horizontal bars that start at zero.

    Args:
        title: Heading.
        values: Value of each bar, by name; None has no bar.
        note: Unit, or which direction is better.
        digits: Number of decimals of the values.
        highlighted: Names of the bars in another colour.

    Returns:
        The chart, None without values.
    """
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    largest = max(*known, 0.0) or 1.0
    room = WIDTH - _NAMES - _VALUES
    bars = [
        Bar(
            name,
            top=index * _BAR + 2,
            length=None if value is None else round(max(room * value / largest, 1.0), 1),
            label="–" if value is None else f"{value:,.{digits}f}",
            group=int(name in highlighted),
        )
        for index, (name, value) in enumerate(values.items())
    ]
    return BarChart(title, note, bars, height=len(bars) * _BAR + 4)


def _thin_out(points: Points) -> Points:
    """Return means of neighbouring points, at most `_MAX_POINTS` of them."""
    size = -(-len(points) // _MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups if group
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Return four to ten round values within a range."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [step * number for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return logarithms of round values within a range, and their labels."""
    exponents = range(math.floor(low), math.ceil(high) + 1)
    values = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    inside = [(math.log10(value), f"{value:g}") for value in values]
    inside = [(y, label) for y, label in inside if low <= y <= high]
    if len(inside) < 2:
        return [(y, f"{10**y:.3g}") for y in (low, high)]
    return inside
