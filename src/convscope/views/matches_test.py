from __future__ import annotations

import numpy as np
import pytest
import torch

from convscope.results import Matches
from convscope.views import figure, html


def matches(*, found: bool = True) -> Matches:
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([[0.2, 0.9], [0.1, 0.8], [0.3, 0.95]])
    values = torch.tensor([[[[10.0, 20.0, 0.9, 1.0], [30.0, 5.0, 0.5, 30.0]]] * 2])
    return Matches(
        values=values, points=torch.tensor([[[12.0, 18.0], [25.0, 8.0]]]),
        images=torch.rand(1, 3, 40, 40, generator=generator), others=torch.rand(1, 2, 3, 40, 40, generator=generator),
        rebuilt=torch.rand(1, 3, 40, 40, generator=generator), tolerances=(0.05, 0.1),
        found={"network": shares, "SIFT": shares / 2} if found else {}, titles=["disc"], summaries=[{}],
    )  # fmt: skip


def test_points_lie_where_they_were_found_and_are_hollow_where_they_did_not_find_back() -> None:
    drawn = {axes.get_label(): axes for axes in figure(matches()).axes}
    factor = drawn["0 0"].images[0].get_array().shape[0] / 40
    dots = drawn["0 0"].lines[1::2]
    assert dots[0].get_xdata()[0] == pytest.approx(20.5 * factor - 0.5)
    assert dots[0].get_ydata()[0] == pytest.approx(10.5 * factor - 0.5)
    assert dots[0].get_markerfacecolor() != "none"
    assert dots[1].get_markerfacecolor() == "none"
    assert [line.get_markerfacecolor() for line in drawn["0 own"].lines[1::2]].count("none") == 0
    assert {"0 own", "0 0", "0 1", "0 rebuilt", "check"} <= set(drawn)


def test_curves_of_the_check_are_drawn_and_left_out_where_there_was_none() -> None:
    drawn = {axes.get_label(): axes for axes in figure(matches()).axes}
    np.testing.assert_allclose([line.get_ydata() for line in drawn["check"].lines], [[0.2, 0.9], [0.1, 0.45]])
    assert "check" not in [axes.get_label() for axes in figure(matches(found=False)).axes]
    assert "<picture>" in html(matches())
