from __future__ import annotations

import numpy as np
import pytest

from convscope.views.pixels import enlarged, on_paper, resized, to_pixels


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8), (400, 400)), ((128, 128), (384, 384)), ((224, 224), (448, 448)), ((50, 100), (200, 400)),
     ((300, 300), (300, 300)), ((1000, 500), (400, 200)), ((1, 900), (1, 400))],
)  # fmt: skip
def test_small_pictures_grow_by_whole_factors(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert enlarged(shape, 400) == size


def test_enlarging_repeats_pixels() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (resized(pixels, (6, 6), smooth=False) == np.kron(pixels, np.ones((3, 3, 1), np.uint8))).all()


def test_shrinking_without_smoothness_averages() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = 80
    assert resized(pixels, (2, 2), smooth=False)[..., 0].tolist() == [[80, 0], [0, 0]]


def test_from_unit_range_with_rounding() -> None:
    image = np.array([0.0, 0.5, 1.0, 2.0, np.nan])[None, None].repeat(3, 0)
    assert to_pixels(image)[0, :, 0].tolist() == [0, 128, 255, 255, 0]


def test_transparent_shows_paper() -> None:
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)
    assert on_paper(pixels, "#ff8000")[0].tolist() == [[255, 128, 0], [10, 20, 30]]
