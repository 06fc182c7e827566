"""Line charts: every point has its position, NaN and inf are gaps, lone points are dots."""

import math

import pytest

from dpo_wrap.report.charts import HEIGHT, WIDTH, Curve, line_chart, outline, ticks


def points(line):
    _, text = line
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_a_curve_has_a_position_for_each_point_and_falls_where_its_values_fall():
    chart = line_chart("loss", [Curve("training", "one", [(n, 1 / n) for n in range(1, 51)])], 0.0)
    (line,) = chart["lines"]
    assert len(points(line)) == 50 and chart["dots"] == []
    # y grows downwards.
    assert points(line) == sorted(points(line))
    assert [y for _, y in points(line)] == sorted(y for _, y in points(line))
    assert (points(line)[0][0], points(line)[-1][0]) == (0, WIDTH)
    assert [label for *_, label in chart["labels"]] == ["step 1", "step 50"]


def test_nan_and_inf_are_gaps_and_a_point_between_gaps_is_a_dot():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0, 6.0]
    chart = line_chart("x", [Curve("a", "one", list(enumerate(values)))], 0.0)
    assert [len(points(line)) for line in chart["lines"]] == [2, 3]
    ((_, x, y),) = chart["dots"]
    assert 0 < x < WIDTH and 0 < y < HEIGHT


def test_the_level_is_within_the_plot_also_where_no_value_is_near_it():
    chart = line_chart("loss", [Curve("a", "one", [(1, 0.5), (2, 0.4)])], 0.7)
    assert 0 < chart["level"] < points(chart["lines"][0])[0][1]


def test_a_histogram_is_as_high_as_its_counts_between_its_edges():
    curve = Curve("after", "one", outline([-1.0, 0.0, 3.0], [5.0, 35.0]))
    chart = line_chart("x", [curve], 0.0, vertical=0.0, x_format="{:.3g}")
    floor = chart["level"]
    start, *corners, end = [(x, floor - y) for x, y in points(chart["lines"][0])]
    assert (start, end) == ((0, 0), (WIDTH, 0))
    zero = chart["vertical"]
    assert zero == pytest.approx(WIDTH / 4, abs=0.1)
    assert [x for x, _ in corners] == [0, zero, zero, WIDTH]
    low, same, high, same_high = [y for _, y in corners]
    assert low == same and high == same_high == pytest.approx(7 * low, rel=0.02)
    assert outline([0.0, 1.0], [1.0, 2.0]) == []


@pytest.mark.parametrize("low", [-3.0, 0.0, 0.69, 1e6])
@pytest.mark.parametrize("size", [0.013, 0.1, 0.7, 1.0, 4.9, 99.0, 1e9])
def test_ticks_are_few_and_round(low, size):
    marks = ticks(low, low + size)
    assert 3 <= len(marks) <= 6
    assert low <= marks[0] and marks[-1] <= low + size * 1.0001
