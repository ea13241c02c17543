from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from convscope.results import Heatmap
from convscope.views import figure
from convscope.views.sheet import Sheet, blocks


def test_pictures_stand_on_whole_pixels() -> None:
    sheet = Sheet(301, 199)
    pixels = np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8)
    sheet.picture(pixels, 101, 17)
    drawn = sheet.plate.pixels()
    assert drawn.shape == (199, 301, 4)
    assert (drawn[17 : 17 + 37, 101 : 101 + 53, :3] == pixels).all()


def test_blocks_do_not_overlap() -> None:
    width, height, corners = blocks(5, 100, 50, columns=2, gap=10, down=20)
    assert (width, height) == (210, 190)
    assert corners == [(0, 0), (110, 0), (0, 70), (110, 70), (0, 140)]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_files_are_the_same_every_time_and_whatever_the_user_has_set(
    suffix: str, tmp_path: Path, heatmap: Callable[..., Heatmap]
) -> None:
    result = heatmap(torch.linspace(-1, 1, 64).view(1, 8, 8))
    first = result.save(tmp_path / f"first.{suffix}").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 50, "savefig.bbox": "tight"}):
        second = result.save(tmp_path / f"second.{suffix}").read_bytes()
    assert first == second


def test_dollars_and_underscores_are_only_themselves(heatmap: Callable[..., Heatmap]) -> None:
    result = heatmap(torch.rand(1, 8, 8), titles=["a_b $x^2$ \\frac"], photographs=["/x/$_.jpg"])
    drawn = figure(result)
    assert drawn.get_figure() is drawn
    assert "a_b $x^2$ \\frac" in [text.get_text() for text in drawn.texts]
    result.picture()
