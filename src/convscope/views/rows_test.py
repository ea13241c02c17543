from __future__ import annotations

import numpy as np
import pytest
import torch
from rich.console import Console

from convscope.results import Panel, Rows
from convscope.views import figure, html, terminal
from convscope.views.rows import OUTLINE, layout_of, outlined, pictures

SIDE = 20


def rows(count: int = 3, tiles: int = 4, **more: object) -> Rows:
    """Row r holds tiles that are all of the brightness (r + 1) / 10, and signed ones that are red."""
    grey = [torch.full((tiles, 3, SIDE, SIDE), (r + 1) / 10) for r in range(count)]
    red = [torch.zeros(tiles, 3, 12, 12) for _ in range(count)]
    for each in red:
        each[:, 0, 4:8, 4:8] = 2.0
    captions = [[f"picture {r}.{k}\n0.{k}" for k in range(tiles)] for r in range(count)]
    panels = [Panel("patches", grey, captions=captions), Panel("gradient", red, signed=True)]
    return Rows(
        values=torch.zeros(count, tiles), summaries=[{}], per_picture=False, panels=panels,
        titles=[f"unit {r}" for r in range(count)], **more,
    )  # fmt: skip


def drawn_tiles(result: Rows) -> dict[str, np.ndarray]:
    return {str(axes.get_label()): axes.get_images()[0].get_array() for axes in figure(result).axes}


@pytest.mark.parametrize("more", [{}, {"stacked": True}, {"columns": 2}])
def test_every_tile_is_drawn_with_its_own_pixels(more: dict[str, object]) -> None:
    found = drawn_tiles(rows(**more))
    assert len(found) == 3 * 4 * 2
    for row in range(3):
        assert np.unique(found[f"patches {row} 3"]).tolist() == [round((row + 1) / 10 * 255)]
    middle = found["gradient 1 0"][found["gradient 1 0"].shape[0] // 2, found["gradient 1 0"].shape[1] // 2]
    assert middle.tolist() == [255, 128, 128]
    assert found["gradient 1 0"][0, 0].tolist() == [128, 128, 128]


def test_tiles_do_not_overlap_and_stay_inside() -> None:
    for more in ({}, {"stacked": True}, {"columns": 2}, {"images": torch.rand(3, 3, 30, 30), "stacked": True}):
        boxes = [axes.get_position() for axes in figure(rows(**more)).axes]
        assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)
        for place, one in enumerate(boxes):
            for other in boxes[:place]:
                apart = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
                assert min(apart) <= 1e-9


def test_a_box_is_outlined_where_it_is() -> None:
    pixels = outlined(np.zeros((100, 100, 3), np.uint8), [2, 3, 6, 8], 10, 10)
    marked = (pixels == OUTLINE).all(2)
    assert marked[20:60, 30].all()
    assert marked[20, 30:80].all()
    assert marked[59, 30:80].all()
    assert not marked[25:55, 35:75].any()
    assert not marked[:20].any()
    assert not marked[60:].any()


def test_boxes_are_scaled_with_their_tiles() -> None:
    panel = Panel("patches", [torch.zeros(1, 3, 20, 40)], boxes=[torch.tensor([[5.0, 10.0, 15.0, 30.0]])])
    (tile,) = pictures(panel, 0, 80)
    assert tile.shape == (40, 80, 3)
    marked = np.argwhere((tile == OUTLINE).all(2))
    assert marked.min(0).tolist() == [10, 20]
    assert marked.max(0).tolist() == [29, 59]


def test_what_is_not_square_keeps_its_proportions() -> None:
    wide = Panel("patches", [torch.ones(1, 3, 20, 40)])
    found = drawn_tiles(Rows(values=torch.zeros(1), summaries=[{}], panels=[wide], titles=["wide"]))["patches 0 0"]
    assert found.shape[0] == found.shape[1]


def test_sections_and_names_are_said() -> None:
    result = rows(sections=["first", "first", "second"], subtitles=["strongest 1\nfires often", "", "dead"])
    texts = [text.get_text() for text in figure(result).texts]
    assert texts.count("first") == 1
    assert {"second", "unit 0", "unit 2", "strongest 1", "fires often", "dead", "patches", "gradient"} <= set(texts)
    assert {"picture 2.3", "0.3"} <= set(texts)


def test_too_many_rows_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.views.rows.MOST", 2)
    said = [text.get_text() for text in figure(rows(tiles=1)).texts]
    assert "2 of 3 rows are drawn; the raw numbers hold all." in said
    assert "unit 2" not in said


def test_blocks_stand_beside_each_other() -> None:
    assert layout_of(rows(tiles=9, columns=3)).across == 3
    assert layout_of(rows(tiles=9)).across == 1


def test_the_part_of_a_page_has_every_tile_with_its_caption() -> None:
    text = html(rows(sections=["a", "a", "b"], images=torch.rand(3, 3, 30, 30)))
    assert text.count("<img") == 3 * 4 * 2 + 3
    assert 'alt="picture 1.2, 0.2"' in text
    assert text.count('<h4 class="section">') == 2


def test_the_terminal_names_what_is_in_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    terminal(rows(subtitles=["x", "y", "z"]), Console())
    said = capsys.readouterr().out
    assert "unit 1" in said
    assert "picture 1.0 0.0, picture 1.1 0.1" in said
