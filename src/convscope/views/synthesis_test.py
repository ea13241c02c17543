from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import views
from convscope.images import read_recipe, to_uint8
from convscope.results import Heatmap, Provenance, Synthesis
from convscope.views import synthesis
from convscope.views.sheet import Plate


@pytest.fixture
def made(provenance: Callable[..., Provenance]) -> Callable[..., Synthesis]:
    def build(count: int = 1, height: int = 60, width: int = 80, **more: Any) -> Synthesis:
        values = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
        return Synthesis(
            values=values, summaries=[{}] * count, titles=[f"title {i}" for i in range(count)],
            provenance=provenance("visualize"), **more,
        )  # fmt: skip

    return build


def said(plate: Plate) -> list[str]:
    return [text.get_text() for text in plate.texts]


def labels(plate: Plate) -> list[str]:
    return [str(axes.get_label()) for axes in plate.axes]


def test_pictures_stand_in_the_figure_one_for_one(made: Callable[..., Synthesis]) -> None:
    result = made(2, 300, 400)  # as large as they are drawn
    plate = synthesis.figure(result)
    assert labels(plate) == ["picture", "picture"]
    for index, axes in enumerate(plate.axes):
        np.testing.assert_array_equal(axes.images[0].get_array(), to_uint8(result.values[index]))
    assert {"visualize", "title 0", "title 1"} <= set(said(plate))


def test_the_photograph_and_the_curve_stand_beside(made: Callable[..., Synthesis]) -> None:
    trace = torch.tensor([[1.0], [4.0], [9.0]])
    result = made(trace=trace, originals=torch.full((1, 3, 30, 40), 0.25), quantity="class score")
    plate = synthesis.figure(result)
    assert labels(plate) == ["original", "picture", "curve 0"]
    assert (np.asarray(plate.axes[0].images[0].get_array()) == 64).all()
    (line,) = plate.axes[2].lines
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == [1, 4, 9]
    assert "class score over 3 steps" in said(plate)


def test_one_photograph_may_belong_to_all(made: Callable[..., Synthesis]) -> None:
    plate = synthesis.figure(made(3, originals=torch.zeros(1, 3, 30, 40)))
    assert labels(plate) == ["original", "picture"] * 3


def test_nothing_leaves_the_sheet_and_nothing_overlaps(made: Callable[..., Synthesis]) -> None:
    for count, more in ((1, {}), (5, {"trace": torch.rand(20, 5)}), (30, {"originals": torch.rand(30, 3, 30, 20)})):
        plate = synthesis.figure(made(count, **more))
        boxes = [axes.get_position() for axes in plate.axes]
        assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= 1 and b.y1 <= 1 for b in boxes)
        for i, one in enumerate(boxes):
            for other in boxes[i + 1 :]:
                assert min(one.x1, other.x1) - max(one.x0, other.x0) <= 1e-9 or (
                    min(one.y1, other.y1) - max(one.y0, other.y0) <= 1e-9
                )
    assert "24 of 30 pictures are drawn" in " ".join(said(plate))


def test_html_holds_every_picture_and_says_the_curve(made: Callable[..., Synthesis]) -> None:
    page = views.html(made(2, trace=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), originals=torch.rand(2, 3, 30, 40)))
    assert page.count("<figure>") == 2
    assert page.count('alt="Made by visualize: title') == 2
    assert page.count('alt="Photograph: title') == 2
    assert 'alt="objective: from 1 to 3 in 2 steps"' in page


def test_the_terminal_says_titles_and_curves(
    made: Callable[..., Synthesis], capsys: pytest.CaptureFixture[str]
) -> None:
    views.terminal(made(2, trace=torch.tensor([[1.0, 2.0], [3.0, 4.5]]), quantity="score"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["picture", "score", "at", "first", "at", "last"],
        ["1", "title", "0", "1", "3"],
        ["2", "title", "1", "2", "4.5"],
    ]  # fmt: skip


def test_the_file_holds_the_picture_alone_and_the_figure_more(made: Callable[..., Synthesis], tmp_path: Path) -> None:
    result = made()
    with Image.open(result.save(tmp_path / "x.png")) as saved:
        assert saved.size == (80, 60)
    assert result.picture().size[0] > 400
    result.save(tmp_path / "x.pdf")
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_figures_carry_their_recipe(heatmap: Callable[..., Heatmap], tmp_path: Path) -> None:
    result = heatmap(torch.rand(1, 8, 8), photographs=["ü.png"])
    found = read_recipe(result.save(tmp_path / "map.png"))
    assert found is not None
    assert json.loads(found)["photographs"] == ["ü.png"]
