from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convscope.behaviour.conflict import Count, over_all
from convscope.results import Bias, Provenance
from convscope.views import bias, figure, html, terminal

COUNTS = [Count("cat", 3, 1, 1), Count("dog", 0, 4, 0), Count("owl", 0, 0, 2)]


@pytest.fixture
def result(provenance: Callable[..., Provenance]) -> Bias:
    every = [*COUNTS, over_all(COUNTS)]
    return Bias(
        values=torch.tensor([[c.shape, c.texture, c.neither] for c in every]), columns=("class", "shape"),
        summaries=[{}], provenance=provenance("shape-bias"),
        rows=[[c.name, c.shape] for c in every], series=[("a", every), ("b", [COUNTS[0], over_all(COUNTS[:1])])],
        examples=torch.rand(3, 3, 20, 20), example_titles=["shape cat\ntexture dog\n→ cat"] * 3,
    )  # fmt: skip


def marks(result: Bias) -> list[tuple[float, float]]:
    """Left end and width, in pixels, of every bar that is as wide as an interval and in a network's colour."""
    plate = figure(result)
    width = plate.get_figwidth() * plate.dpi
    return [
        (patch.get_x() * width, patch.get_width() * width) for patch in plate.artists if hasattr(patch, "get_width")
    ]


def test_intervals_lie_where_they_should(result: Bias) -> None:
    left = bias.NAMES + 56
    interval = COUNTS[0].bias
    expected = (left + (1 - interval.high) * bias.PLOT, (interval.high - interval.low) * bias.PLOT)
    close = [m for m in marks(result) if m == pytest.approx(expected, abs=0.5)]
    assert len(close) == 3  # the class of both networks, and all classes of the second
    everywhere = marks(result)
    owl = bias.DOT
    assert sum(size == pytest.approx(owl, abs=0.1) for _, size in everywhere) == 2 + 3  # legend, and no mark for owls


def test_page_and_terminal_say_the_same(result: Bias, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Shape bias of a, b by class" in html(result)
    terminal(result)
    assert "cat" in capsys.readouterr().out
