from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from convscope.results import Heatmap
from convscope.views import figure, html
from convscope.views.colour import FLAT, NEUTRAL, colour_map

Make = Callable[..., Heatmap]


def area(drawn: Figure, label: str) -> np.ndarray:
    """The pixels of the axes of that label."""
    axes = next(a for a in drawn.axes if a.get_label() == label)
    pixels = drawn.pixels()  # type: ignore[attr-defined]
    box = axes.get_window_extent()
    top = pixels.shape[0] - round(box.y1)
    return pixels[top : top + round(box.height), round(box.x0) : round(box.x1), :3]


def words(drawn: Figure) -> list[str]:
    return [text.get_text() for text in drawn.texts]


def test_every_value_is_a_square_of_its_colour(heatmap: Make) -> None:
    values = torch.tensor([[[-1.0, 0.0], [0.5, 1.0]]])
    drawn = area(figure(heatmap(values)), "map")
    half = drawn.shape[0] // 2
    assert (drawn[:half, :half] == colour_map(True)[0]).all()
    assert (drawn[:half, half:] == NEUTRAL).all()
    assert (drawn[half:, half:] == colour_map(True)[-1]).all()


def test_a_constant_map_is_flat_and_said(heatmap: Make) -> None:
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        drawn = figure(heatmap(torch.zeros(1, 6, 6)))
        shown = area(drawn, "map")
    assert (shown == FLAT).all()
    assert "constant, 0 everywhere" in words(drawn)
    assert not [a for a in drawn.axes if a.get_label() == "colour bar"]


def test_a_map_without_evidence_is_said(heatmap: Make) -> None:
    assert "nothing above zero" in words(figure(heatmap(-torch.rand(1, 6, 6))))


def test_the_real_maximum_stands_at_a_clipped_scale(heatmap: Make) -> None:
    values = torch.linspace(0, 1, 4096).view(1, 64, 64).clone()
    values[0, 0, 0] = 30
    drawn = figure(heatmap(values, signed=False))
    assert "max 30" in words(drawn)


def test_title_target_file_layer_unit_and_notes_are_written(heatmap: Make) -> None:
    result = heatmap(
        torch.rand(1, 64, 64), titles=["tabby cat"], photographs=["/home/me/cat.jpg"], layer="conv5", notes=["a note"]
    )
    said = words(figure(result))
    assert {"saliency", "tabby cat", "cat.jpg", "A note.", "toy · layer conv5 · score"} <= set(said)


def test_the_map_is_drawn_in_the_cells_in_which_it_was_computed(heatmap: Make) -> None:
    cells = torch.tensor([[[-1.0, 1.0]]])
    result = heatmap(torch.zeros(1, 8, 16), cells=cells)
    drawn = figure(result)
    shown = area(drawn, "map")
    assert (shown[:, : shown.shape[1] // 2] == colour_map(True)[0]).all()
    assert "1 × 2 cells, enlarged" in words(drawn)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 1, 1), (7, 30, 90), (2, 300, 40), (1, 700, 700)])
def test_any_shape_is_drawn_at_a_sensible_size(shape: tuple[int, int, int], heatmap: Make) -> None:
    width, height = figure(heatmap(torch.rand(shape), signed=False)).get_size_inches()
    assert 2 < width < 12
    assert 1.5 < height < 16


def test_of_many_pictures_the_first_are_drawn_and_the_rest_is_said(heatmap: Make) -> None:
    drawn = figure(heatmap(torch.rand(60, 32, 32)))
    assert len([a for a in drawn.axes if a.get_label() == "map"]) == 24
    assert "24 of 60 pictures are drawn; the raw numbers hold all." in words(drawn)
    assert max(drawn.get_size_inches()) < 20


def test_the_page_has_each_picture_with_its_scale_and_words_for_those_who_do_not_see(heatmap: Make) -> None:
    values = torch.zeros(2, 6, 6)
    values[1, 2, 3] = 5
    fragment = html(heatmap(values, signed=False, titles=["<cat>", "dog"], photographs=["a.jpg", "b.jpg"]))
    alts = re.findall(r'alt="([^"]*)"', fragment)
    assert len(alts) == fragment.count("<img") == 6
    assert "Saliency for &lt;cat&gt; on a.jpg: constant, 0 everywhere" in alts
    assert "Saliency for dog on b.jpg: strongest at row 2, column 3" in alts
    assert fragment.count('class="bar"') == 1
    assert "<cat>" not in fragment
