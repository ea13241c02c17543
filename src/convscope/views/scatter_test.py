from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from convscope.results import Scatter
from convscope.views import LIGHT, figure, html


def test_points_stand_where_they_belong_in_the_colours_of_their_groups() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    drawn = figure(Scatter(values=points, summaries=[{}], groups=torch.tensor([7, 9, 7])))
    shown = drawn.axes[0].collections[0]
    assert np.allclose(shown.get_offsets(), points)
    assert shown.get_facecolors()[:, :3].tolist() == [list(to_rgb(LIGHT.series[g])) for g in (0, 1, 0)]
    assert {"group 7", "group 9"} <= {text.get_text() for text in drawn.texts}


def test_names_are_written_where_they_are_few() -> None:
    few = figure(Scatter(values=torch.rand(5, 2), summaries=[{}], names=list("abcde")))
    assert [text.get_text() for text in few.axes[0].texts] == list("abcde")
    many = figure(Scatter(values=torch.rand(500, 2), summaries=[{}], names=["x"] * 500))
    assert not many.axes[0].texts


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_any_number_of_points(count: int) -> None:
    result = Scatter(values=torch.rand(count, 2), summaries=[{}], groups=torch.arange(count) % 40)
    figure(result).pixels()  # type: ignore[attr-defined]
    assert f'alt="{count} points in the plane"' in html(result)


def test_points_that_are_nowhere_are_said() -> None:
    drawn = figure(Scatter(values=torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), summaries=[{}]))
    assert "1 points are not finite and are not drawn." in [text.get_text() for text in drawn.texts]


def test_names_of_groups_stand_clear_of_each_other_where_the_frame_is_not_filled() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.rand(60, 1, 2, generator=generator) * torch.tensor([10.0, 3.0])
    points = (middles + 0.05 * torch.randn(60, 5, 2, generator=generator)).flatten(0, 1)
    names = [f"class {number:02d}" for number in range(60)]
    drawn = figure(
        Scatter(values=points, summaries=[{}], groups=torch.arange(60).repeat_interleave(5), group_names=names)
    )
    drawn.pixels()  # type: ignore[attr-defined]
    boxes = [text.get_window_extent() for text in drawn.axes[0].texts]
    assert len(boxes) > 15
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
    assert drawn.axes[0].bbox.height < 0.7 * drawn.axes[0].bbox.width
