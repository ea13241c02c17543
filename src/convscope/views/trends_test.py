from __future__ import annotations

import numpy as np
import torch

from convscope.results import Trends
from convscope.views import figure, html


def trends() -> Trends:
    nan = float("nan")
    values = torch.tensor([
        [[0.1, 0.5, 0.4, 0.6], [0.2, 0.8, 0.7, 0.9], [0.4, 0.9, 0.8, 1.0]],
        [[1.0, 0.7, 0.6, 0.8], [900.0, 0.75, 0.6, 0.85], [nan, nan, nan, nan]],
    ], dtype=torch.float64)  # fmt: skip
    return Trends(
        values=values, counts=torch.tensor([[10, 10, 10], [15, 15, 0]]), names=["brightness", "sharpness"],
        verdicts=["matters: p < 0.001", "no more than chance (p 0.5)"], marks=[True, False], overall=0.72,
        quantity="accuracy", ends=torch.rand(2, 2, 3, 3, 20, 20), summaries=[{}], per_picture=False,
    )  # fmt: skip


def test_curves_bands_and_the_share_of_all_are_drawn_where_they_are() -> None:
    drawn = {axes.get_label(): axes for axes in figure(trends()).axes}
    first = drawn["panel 0"]
    line = next(line for line in first.lines if line.get_marker() == "o")
    assert line.get_xdata().tolist() == [0.1, 0.2, 0.4]
    assert line.get_ydata().tolist() == [0.5, 0.8, 0.9]
    corners = {tuple(np.round(corner, 3)) for corner in first.collections[0].get_paths()[0].vertices}
    assert {(0.1, 0.4), (0.1, 0.6), (0.4, 0.8), (0.4, 1.0)} <= corners
    dashed = next(line for line in first.lines if line.get_marker() != "o")
    assert set(dashed.get_ydata()) == {0.72}
    assert drawn["panel 1"].get_xscale() == "log"
    assert first.get_xscale() == "linear"
    assert drawn["panel 1"].get_ylim() == first.get_ylim()
    assert len([label for label in drawn if label.startswith("end")]) == 12


def test_what_matters_is_coloured_and_said() -> None:
    drawn = figure(trends())
    texts = {text.get_text(): text.get_color() for text in drawn.texts}
    assert texts["matters: p < 0.001"] != texts["no more than chance (p 0.5)"]
    assert "beyond chance: brightness" in html(trends())
