from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from convscope.results import Provenance, Spots
from convscope.views import figure, html, terminal
from convscope.views.adversarial import panels
from convscope.views.spots import SHARP, SIDE, near, ringed

PLACES = [(5, 7), (30, 0)]


@pytest.fixture
def result(provenance: Callable[..., Provenance]) -> Spots:
    originals = torch.full((1, 3, 40, 60), 128 / 255)
    values = originals.clone()
    for row, column in PLACES:
        values[0, :, row, column] = torch.tensor([1.0, 0.0, 0.0])
    return Spots(
        values=values, originals=originals, summaries=[{}], names=[["cat", "dog"]], before=[[0.9, 0.1]],
        after=[[0.2, 0.8]], success=[True], titles=["cat → dog"], provenance=provenance("few-pixel"),
    )  # fmt: skip


def test_rings_stand_around_the_pixels_and_leave_them_to_be_seen(result: Spots) -> None:
    shown = dict(panels(result, 0))["changed: the pixels in rings"]
    assert shown.shape == (40 * SHARP, 60 * SHARP, 3)
    for row, column in PLACES:
        middle = shown[row * SHARP : (row + 1) * SHARP, column * SHARP : (column + 1) * SHARP]
        assert (middle == (255, 0, 0)).all()
    white = np.argwhere((shown == 255).all(2))
    middles = np.array(PLACES) * SHARP + SHARP / 2
    away = np.linalg.norm(white[:, None] - middles, axis=2).min(1)
    assert len(white) > 50
    assert away.min() > SHARP
    assert away.max() < 0.08 * 60 * SHARP


def test_from_near_each_pixel_is_a_square_with_a_frame(result: Spots) -> None:
    drawn = dict(panels(result, 0))
    after, before = drawn["after"], drawn["the pixels from near, before"]
    assert after.shape == before.shape == (SIDE, SIDE, 3)
    assert int((after == (255, 0, 0)).all(2).sum()) > 2 * 12 * 12
    assert not (before == (255, 0, 0)).all(2).any()
    corner = near(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20, [(1, 1)])
    assert {tuple(colour) for colour in corner.reshape(-1, 3).tolist()} >= {(180, 200, 220), (0, 20, 40)}


def test_nothing_changed_is_said() -> None:
    grey = np.full((8, 8, 3), 9, np.uint8)
    assert (ringed(grey, [])[::SHARP, ::SHARP] == grey).all()


def test_sheet_page_and_terminal(result: Spots, capsys: pytest.CaptureFixture[str]) -> None:
    assert figure(result).pixels().shape[1] > 1000
    assert "in rings" in html(result)
    terminal(result)
    assert "fooled" in capsys.readouterr().out
