"""Boxes and outlines on photographs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from convscope.results import Heatmap, Provenance, Regions
from convscope.views import figure, html, terminal
from convscope.views.pixels import Pixels
from convscope.views.regions import DIMMED, dimmed, filled, smooth, stroked

Make = Callable[..., Regions]


@pytest.fixture
def regions(heatmap: Callable[..., Heatmap]) -> Make:
    """Two pictures of 40 by 60 pixels, with a box in the first and nothing in the second."""

    def made(outlined: str) -> Regions:
        values = torch.rand(2, 40, 60, generator=torch.Generator().manual_seed(0))
        plain = heatmap(values, signed=False, titles=["cat", "dog"], photographs=["a.jpg", "b.jpg"])
        masks = torch.zeros(2, 40, 60, dtype=torch.bool)
        masks[0, 10:30, 15:45] = True
        given = {field.name: getattr(plain, field.name) for field in fields(plain)}
        boxes = torch.tensor([[[10, 15, 20, 30], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
        return Regions(**given, masks=masks, boxes=boxes, outlined=outlined)

    return made


def last_picture(drawn: Figure, which: int) -> np.ndarray:
    """The pixels of one of the pictures on the right."""
    axes = [a for a in drawn.axes if a.get_label() == "overlay"][which]
    return np.asarray(axes.images[0].get_array())


def test_a_box_is_drawn_where_it_is_and_nothing_else_changes(regions: Make) -> None:
    drawn = figure(regions("box"))
    photo, plain = last_picture(drawn, 0), last_picture(drawn, 1)
    scale = photo.shape[0] // 40
    edge = (photo != plain).any(-1)
    rows, columns = np.flatnonzero(edge.any(1)), np.flatnonzero(edge.any(0))
    assert abs(rows[0] - 10 * scale) <= 4
    assert abs(rows[-1] - 30 * scale) <= 4
    assert abs(columns[0] - 15 * scale) <= 4
    assert abs(columns[-1] - 45 * scale) <= 4
    assert not edge[12 * scale : 28 * scale, 17 * scale : 43 * scale].any()
    assert len(np.unique(plain.reshape(-1, 3), axis=0)) == 1, "no box, no stroke"


def test_a_mask_keeps_its_inside_and_dims_the_rest(regions: Make) -> None:
    photo = last_picture(figure(regions("mask")), 0)
    scale = photo.shape[0] // 40
    assert (photo[20 * scale, 30 * scale] == 128).all()
    assert (photo[2 * scale, 2 * scale] == round(128 * DIMMED)).all()


def test_a_stroke_is_light_between_dark_lines_on_any_photograph() -> None:
    mask = np.zeros((30, 30), bool)
    mask[10:, 10:] = True
    for level in (0, 128, 255):
        drawn = stroked(np.full((30, 30, 3), level, np.uint8), mask)
        across = drawn[20, :, 0].tolist()
        light = [place for place in range(30) if across[place] == 255 and 5 < place < 15]
        assert set(light) >= {9, 10}
        assert 0 in across[5:9]
        assert 0 in across[11:15]
        assert across[20] == level
        assert (drawn[20, 25:] == level).all(), "what goes on beyond the picture has no edge there"


def test_boxes_at_the_border_are_drawn_whole() -> None:
    drawn = stroked(np.full((50, 50, 3), 90, np.uint8), filled((0, 0, 10, 10), (10, 10), (50, 50)))
    for side in (drawn[25, :12, 0], drawn[25, -12:, 0], drawn[:12, 25, 0], drawn[-12:, 25, 0]):
        assert {0, 255} <= set(side.tolist())


def test_masks_are_enlarged_without_steps() -> None:
    rows, columns = np.mgrid[:20, :20]
    disc = (rows - 9.5) ** 2 + (columns - 9.5) ** 2 < 49
    large = smooth(disc, (200, 200))
    rows, columns = np.mgrid[:200, :200]
    wanted = (rows - 99.5) ** 2 + (columns - 99.5) ** 2 < 4900
    assert (large & wanted).sum() / (large | wanted).sum() > 0.95


def test_dimming_takes_colour_and_light() -> None:
    photo: Pixels = np.full((2, 2, 3), (200, 40, 40), np.uint8)
    drawn = dimmed(photo, np.array([[True, False], [False, True]]))
    assert (drawn[0, 0] == photo[0, 0]).all()
    assert drawn[0, 1].max() < 80
    assert np.ptp(drawn[0, 1].astype(int)) < np.ptp(photo[0, 1].astype(int)) / 4


@pytest.mark.parametrize(
    ("outlined", "words", "nothing"),
    [
        ("box", "a.jpg with a box of 20 by 30 pixels at row 10, column 15 outlined", "b.jpg with nothing outlined"),
        ("mask", "a.jpg with a part of 25% of its area outlined", "b.jpg with nothing outlined"),
    ],
)
def test_the_page_says_what_is_outlined(outlined: str, words: str, nothing: str, regions: Make) -> None:
    alts = re.findall(r'alt="([^"]*)"', html(regions(outlined)))
    assert len(alts) == 6
    assert {words, nothing, "Photograph: a.jpg", "Photograph: b.jpg"} <= set(alts)


def test_the_terminal_has_a_row_for_each_box(regions: Make, capsys: pytest.CaptureFixture[str]) -> None:
    terminal(regions("box"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["a.jpg", "cat", "10", "15", "20", "30", "25.0", "%"]
    assert lines[2] == ["b.jpg", "dog", "–", "–", "–", "–", "0.0", "%"]


def test_the_raw_file_holds_masks_and_boxes(regions: Make, tmp_path: Path) -> None:
    result = regions("box")
    with np.load(result.save(tmp_path / "raw.npz")) as saved:
        np.testing.assert_array_equal(saved["masks"], result.masks.numpy())
        np.testing.assert_array_equal(saved["boxes"], result.boxes.numpy())


def test_provenance_is_written(regions: Make, provenance: Callable[..., Provenance]) -> None:
    assert "saliency" in [text.get_text() for text in figure(regions("mask")).texts]
