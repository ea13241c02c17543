from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from convscope.views.lines import BOTTOM, HEIGHT, LEFT, MOST, RIGHT, TOP, WIDTH, Line, colours, lines


def places(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'points="([^"]*)"', svg)
    return [[tuple(map(float, place.split(","))) for place in line.split()] for line in found]


def test_lines_go_through_their_points() -> None:
    svg = lines([Line("a", [0, 50, 100], [0.0, 0.5, 1.0])], "share", unit=True)
    (drawn,) = places(svg)
    bottom, top = HEIGHT - BOTTOM, TOP
    assert drawn == [(LEFT, bottom), ((LEFT + WIDTH - RIGHT) / 2, (top + bottom) / 2), (WIDTH - RIGHT, top)]
    ElementTree.fromstring(svg)


def test_a_logarithmic_axis_spaces_powers_evenly_and_leaves_out_what_has_no_place() -> None:
    svg = lines([Line("a", [0, 1, 2, 3], [1e-4, 1e-3, 1e-2, -1.0])], "ratio", logarithmic=True)
    (drawn,) = places(svg)
    assert len(drawn) == 3
    assert drawn[0][1] - drawn[1][1] == pytest.approx(drawn[1][1] - drawn[2][1], abs=0.11)
    assert "10⁻⁴" in svg


def test_gaps_long_lines_and_nothing() -> None:
    (drawn,) = places(lines([Line("a", range(5), [1.0, math.nan, 2.0, math.inf, 3.0])], "x"))
    assert len(drawn) == 3
    (long,) = places(lines([Line("a", range(5000), [float(i) for i in range(5000)])], "x"))
    assert len(long) <= MOST
    assert "nothing to draw yet" in lines([Line("a", [], [])], "x")
    assert "<circle" in lines([Line("a", [1], [2.0])], "x")


def test_names_are_escaped_and_colours_run_from_cold_to_warm() -> None:
    assert "<b>" not in lines([Line("<b>", [0, 1], [0.0, 1.0])], "<i>")
    first, *_, last = colours(5)
    assert int(first[5:], 16) > int(first[1:3], 16)
    assert int(last[5:], 16) < int(last[1:3], 16)


def test_a_guide_lies_at_its_value() -> None:
    svg = lines([Line("a", [0, 1], [0.0, 1.0])], "x", unit=True, guide=0.25)
    y = float(re.search(r'class="guide".*?y1="([\d.]+)"', svg)[1])
    assert y == pytest.approx(TOP + (HEIGHT - TOP - BOTTOM) * 0.75, abs=0.1)
