from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.results import Pictures, Provenance
from convscope.views import figure, html
from convscope.views.colour import NEUTRAL, colour_map
from convscope.views.montage import BLANK, columns_for, composed, grids

Make = Callable[..., Pictures]


@pytest.fixture
def pictures(provenance: Callable[..., Provenance]) -> Make:
    def made(tiles: Tensor, **more: Any) -> Pictures:
        return Pictures(values=tiles, summaries=[{}], tiles=tiles, provenance=provenance("filters"), **more)

    return made


def test_colour_filters_have_zero_at_mid_grey(pictures: Make) -> None:
    tiles = torch.zeros(1, 2, 3, 1, 2)
    tiles[0, 0, 0] = torch.tensor([-1.0, 1.0])
    tiles[0, 1, 2] = torch.tensor([0.0, 0.5])
    shared = grids(pictures(tiles, signed=True))[0].tiles
    assert shared[0, 0].tolist() == [[0, 128, 128], [255, 128, 128]]
    assert shared[1, 0].tolist() == [[128, 128, 128], [128, 128, 191]]
    own = grids(pictures(tiles, signed=True, each=True))[0].tiles
    assert own[1, 0].tolist() == [[128, 128, 128], [128, 128, 255]]


def test_all_tiles_share_one_scale_over_groups_unless_each_has_its_own(pictures: Make) -> None:
    tiles = torch.zeros(2, 1, 1, 1, 2)
    tiles[0, 0, 0, 0, 1], tiles[1, 0, 0, 0, 1] = 1.0, 2.0
    first, second = grids(pictures(tiles))
    assert first.scale is second.scale is not None
    assert tuple(second.tiles[0, 0, 1]) == tuple(colour_map(False)[-1])
    assert tuple(first.tiles[0, 0, 1]) == tuple(colour_map(False)[128])
    assert tuple(grids(pictures(tiles, each=True))[0].tiles[0, 0, 1]) == tuple(colour_map(False)[-1])


def test_photographs_as_tiles_stay_as_they_are(pictures: Make) -> None:
    tiles = torch.tensor([0.2, 0.5, 0.75]).view(1, 1, 3, 1, 1)
    assert grids(pictures(tiles))[0].tiles[0, 0, 0].tolist() == [51, 128, 191]


def test_zero_is_neutral_in_signed_maps(pictures: Make) -> None:
    tiles = torch.tensor([-1.0, 0.0, 4.0]).view(1, 1, 1, 1, 3)
    assert tuple(grids(pictures(tiles, signed=True))[0].tiles[0, 0, 1]) == NEUTRAL


def test_dead_tiles_are_hatched_and_counted(pictures: Make) -> None:
    tiles = torch.rand(1, 6, 1, 8, 8)
    tiles[0, 4] = 0
    marks = torch.zeros(1, 6, dtype=torch.bool)
    marks[0, 4] = True
    grid = grids(pictures(tiles, marks=marks, mark="zero everywhere"))[0]
    assert grid.caption("zero everywhere") == "hatched: zero everywhere (1 of 6)"
    pixels, (height, width), gap = composed(grid, 600)
    row, column = divmod(4, grid.columns)
    dead = pixels[row * (height + gap) :, column * (width + gap) :][:height, :width]
    assert (dead[..., :3] == BLANK).all()
    assert set(np.unique(dead[..., 3])) == {34, 120}


def test_marked_tiles_with_content_are_outlined(pictures: Make) -> None:
    tiles = torch.rand(1, 1, 1, 8, 8)
    grid = grids(pictures(tiles, marks=torch.ones(1, 1, dtype=torch.bool)))[0]
    pixels, _, _ = composed(grid, 200)
    assert grid.caption("noisy") == "outlined: noisy (1 of 1)"
    assert (pixels[0] == pixels[0, 0]).all()
    assert (pixels[50, 50] != pixels[0, 0]).any()


def test_tiles_grow_by_whole_factors_with_transparent_gaps(pictures: Make) -> None:
    tiles = torch.rand(1, 4, 1, 5, 5)
    grid = grids(pictures(tiles))[0]
    pixels, (height, width), gap = composed(grid, 400)
    assert height == width
    assert height % 5 == 0
    assert (pixels[:height, width : width + gap, 3] == 0).all()
    block = pixels[: height // 5, : width // 5, :3]
    assert (block == grid.tiles[0, 0, 0]).all()


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 2), (12, 4), (64, 8), (96, 12)])
def test_grids_are_nearly_square_and_full(count: int, columns: int) -> None:
    assert columns_for(count, 7, 7) == columns


@pytest.mark.parametrize(
    ("shape", "columns"),
    [((1, 1, 3, 7, 7), None), ((1, 512, 1, 13, 13), None), ((1, 1024, 1, 3, 3), 16), ((1, 64, 3, 224, 224), None),
     ((9, 16, 1, 1, 1), None), ((1, 5, 1, 4, 60), None), ((1, 20, 1, 60, 4), None)],
)  # fmt: skip
def test_any_number_of_tiles_makes_a_sensible_figure(
    shape: tuple[int, ...], columns: int | None, pictures: Make
) -> None:
    count = shape[1]
    result = pictures(
        torch.rand(shape),
        columns=columns,
        signed=True,
        tile_titles=[str(i) for i in range(count)],
        titles=["a"] * shape[0],
    )
    width, height = figure(result).get_size_inches()
    assert 2 < width < 12
    assert 1.5 < height < 16
    assert html(result).count("<img") == shape[0]


def test_constant_tiles_do_not_warn(pictures: Make) -> None:
    with np.errstate(all="raise"):
        for channels in (1, 3):
            for options in ({"signed": True}, {"each": True}, {}):
                figure(pictures(torch.zeros(1, 3, channels, 4, 4), **options))


def test_titles_of_tiles_are_written_where_they_fit(pictures: Make) -> None:
    titles = [f"unit {i}" for i in range(4)]
    said = [t.get_text() for t in figure(pictures(torch.rand(1, 4, 1, 9, 9), tile_titles=titles)).texts]
    assert set(titles) <= set(said)
    many = figure(pictures(torch.rand(1, 900, 1, 9, 9), tile_titles=[str(i) for i in range(900)]))
    assert "899" not in [t.get_text() for t in many.texts]


def test_titles_of_several_lines_stand_under_each_other_and_in_the_caption(pictures: Make) -> None:
    result = pictures(torch.rand(1, 2, 3, 40, 40), tile_titles=["a\n1 %\n0.1", "b\n2 %\n0.2"])
    texts = {t.get_text(): t.get_position() for t in figure(result).texts}
    assert texts["a"][0] == texts["1 %"][0] == texts["0.1"][0] < texts["b"][0]
    heights = [texts[line][1] for line in ("a", "1 %", "0.1")]
    assert len(set(heights)) == 3
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
    assert "a: 1 %, 0.1 · b: 2 %, 0.2" in html(result)


def test_what_stands_for_several_photographs_has_the_name_of_none(
    pictures: Make, provenance: Callable[..., Provenance]
) -> None:
    result = pictures(torch.rand(1, 2, 3, 40, 40), images=torch.rand(1, 3, 40, 40))
    for one in (True, False):
        shown = replace(result, provenance=provenance("facets", ["one.jpg", "two.jpg"]), per_picture=one)
        assert ("one.jpg" in [t.get_text() for t in figure(shown).texts]) == one
        assert ("one.jpg" in html(shown)) == one


def test_a_large_tile_is_not_greyed_by_one_extreme_value(pictures: Make) -> None:
    tiles = torch.full((1, 1, 3, 64, 64), 0.5)
    tiles[0, 0, 0, 0, 0] = -100
    result = pictures(tiles, signed=True, each=True)
    assert grids(result)[0].tiles[0, 5, 5].tolist() == [255, 255, 255]
    assert "the strongest half per cent cut off" in html(result)
