"""Curves as SVG: every point has its place, gaps are gaps, and a lone point can be seen."""

import math
import re

from dpo_wrap.report.curves import Curve, chart


def drawn(markup, style):
    """(the places of each line, the number of dots) in that style."""
    lines = re.findall(rf'<polyline points="([^"]*)" class="{style}">', markup)
    places = [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]
    return places, len(re.findall(rf'<circle [^>]*class="{style}">', markup))


def test_a_curve_has_a_place_for_each_point_in_their_order():
    points = [(step, 1 / step) for step in range(1, 51)]
    (line,), dots = drawn(chart("loss", [Curve("training", "one", points)]), "one")
    assert (len(line), dots) == (50, 0)
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    # A falling value falls on the page, where y grows downwards.
    assert [y for _, y in line] == sorted(y for _, y in line)


def test_what_is_no_number_is_a_gap():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0, 6.0]
    lines, dots = drawn(chart("x", [Curve("a", "one", list(enumerate(values)))]), "one")
    assert [len(line) for line in lines] == [2, 3]
    assert dots == 1
    assert "nan" not in chart("x", [Curve("a", "one", list(enumerate(values)))])


def test_a_lone_point_is_a_dot_within_the_drawing():
    found = chart("x", [Curve("a", "one", [(7, 0.0)])])
    assert drawn(found, "one") == ([], 1)
    x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', found).groups())
    assert 0 < x < 340 and 0 < y < 190
    assert "step 7" in found


def test_a_level_is_drawn_and_within_the_bounds():
    found = chart("loss", [Curve("a", "one", [(1, 0.5), (2, 0.4)])], level=0.7)
    (line,), _ = drawn(found, "level")
    assert [y > 10 for _, y in line] == [True, True]
    assert drawn(found, "one")[0][0][0][1] > line[0][1]


def test_no_curve_with_a_point_is_no_chart():
    assert chart("x", []) == ""
    assert chart("x", [Curve("a", "one", [(1, math.nan)])], level=0.0) == ""
