from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from convscope import views
from convscope.results import Comparison
from convscope.views.comparison import PLOT, panels


@pytest.fixture
def result() -> Comparison:
    values = torch.tensor([[0.2, 3.0, math.nan], [0.6, 1.0, math.nan], [0.25, math.nan, math.nan]], dtype=torch.float64)
    return Comparison(
        values=values, lows=values - 0.1, highs=values + 0.1, summaries=[{}], per_picture=False,
        methods=["first", "second_$x$", "(noise)"], measures=["share", "cost", "nothing"], better=[1, -1, 1],
        chances=[0.25, None, None], marks=[False, True, False], mark="is not to be trusted",
        controls=[False, False, True], columns=["method", "share", "cost", "nothing"],
        rows=[["first", "0.20 ± 0.10", "3.00", "–"], ["second", "0.60 ± 0.10", "1.00", "–"],
              ["(noise)", "0.25 ± 0.10", "–", "–"]],
    )  # fmt: skip


def test_methods_are_sorted_from_the_best_and_those_without_a_number_left_out(result: Comparison) -> None:
    share, cost = panels(result)
    assert [result.methods[i] for i in share.order] == ["second_$x$", "(noise)", "first"]
    assert [result.methods[i] for i in cost.order] == ["second_$x$", "first"]
    assert (share.low, share.high) == (0.0, 1.0)
    assert (cost.low, cost.high) == (0.0, 3.1)
    assert (share.at(0.0), share.at(0.25), share.at(7.0)) == (0.0, PLOT / 4, PLOT)


def test_the_figure_says_what_it_shows_and_what_is_marked(result: Comparison) -> None:
    figure = result.figure()
    said = [text.get_text() for text in figure.texts]
    assert {"share", "cost", "more is better", "less is better", "chance 0.25", "is not to be trusted"} <= set(said)
    assert "nothing" not in said
    assert "a method, with the 95 % interval of its mean" in said
    networks = replace(result, each="network").figure()
    assert "a network, with the 95 % interval of its mean" in [text.get_text() for text in networks.texts]
    named = {text.get_text(): text.get_color() for text in figure.texts}
    assert named["second_$x$"] == views.LIGHT.accent
    assert named["first"] == views.LIGHT.ink
    assert named["(noise)"] == views.LIGHT.soft


def test_page_and_terminal_hold_every_number(result: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    page = views.html(result)
    assert page.count("<img") == 1
    assert '<td class="number">0.60 ± 0.10</td>' in page
    views.terminal(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["second", "0.60", "±", "0.10", "1.00", "–"]
    assert not views.needs_picture(result)


def test_nothing_measured_is_said(result: Comparison) -> None:
    empty = torch.full((3, 3), math.nan, dtype=torch.float64)
    blank = Comparison(**{**vars(result), "values": empty, "lows": empty, "highs": empty})
    assert "nothing could be measured" in [text.get_text() for text in blank.figure().texts]
