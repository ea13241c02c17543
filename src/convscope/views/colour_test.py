from __future__ import annotations

import warnings

import numpy as np
import pytest

from convscope.views.colour import FLAT, NEUTRAL, colour_map, overlay, scale_of, symmetric_colour


def test_zero_is_neutral_grey_in_a_signed_map() -> None:
    scale = scale_of(np.array([-3.0, 0.0, 1.0]), signed=True)
    assert (scale.low, scale.high) == (-3, 3)
    assert tuple(scale.colours(np.array(0.0))) == NEUTRAL == (235, 235, 235)


def test_warm_is_for_and_cold_is_against_with_equal_strength() -> None:
    scale = scale_of(np.array([-2.0, 2.0]), signed=True)
    cold, warm = scale.colours(np.array([-2.0, 2.0])).astype(int)
    assert cold[2] > cold[0]
    assert warm[0] > warm[2]
    assert scale.strengths(np.array([-1.0, 1.0])).tolist() == [0.5, 0.5]


def _lightness(table: np.ndarray) -> np.ndarray:
    linear = (table / 255.0) ** 2.2
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_colours_get_steadily_brighter_or_darker() -> None:
    assert (np.diff(_lightness(colour_map(False))) >= -1e-4).all()
    signed = _lightness(colour_map(True))
    assert len(signed) == 257
    assert (np.diff(signed[:129]) > -1e-3).all()
    assert (np.diff(signed[128:]) < 1e-3).all()


def test_an_unsigned_map_begins_at_zero() -> None:
    scale = scale_of(np.array([5.0, 10.0]), signed=False)
    assert (scale.low, scale.high) == (0, 10)
    assert scale.positions(np.array([0.0, 5.0, 10.0])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.7, -2.0, 1e-300])
def test_a_constant_map_is_flat_and_said_and_never_divides(value: float, signed: bool) -> None:
    values = np.full((4, 5), value)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        scale = scale_of(values, signed=signed)
        colours = scale.colours(values)
        laid = overlay(np.full((4, 5, 3), 100, np.uint8), values, scale)
    assert (colours == FLAT).all()
    assert scale.ticks() == []
    assert scale.remark.startswith("constant, ")
    assert np.ptp(laid) == 0


def test_a_map_of_one_sign_is_said() -> None:
    assert scale_of(np.array([-1.0, -2.0]), signed=True).remark == "nothing above zero"
    assert scale_of(np.array([-1.0, 2.0]), signed=True).remark == ""


def test_an_outlier_does_not_darken_the_rest_and_is_written_beside_the_scale() -> None:
    values = np.append(np.linspace(0, 1, 1000), 50.0)
    scale = scale_of(values, signed=False)
    assert 0.9 < scale.high < 1.1
    assert scale.beyond == "max 50"
    assert tuple(scale.colours(np.array(50.0))) == tuple(colour_map(False)[-1])


def test_outliers_on_both_sides_are_written() -> None:
    values = np.concatenate([np.linspace(-1, 1, 5000), [-40.0, 60.0]])
    assert scale_of(values, signed=True).beyond == "min −40, max 60"


def test_without_outliers_the_scale_ends_at_the_extreme() -> None:
    scale = scale_of(np.linspace(0, 8, 100), signed=False)
    assert scale.high == 8
    assert scale.beyond == ""


def test_one_bright_pixel_alone_sets_the_scale() -> None:
    values = np.zeros((50, 50))
    values[3, 3] = 2
    assert scale_of(values, signed=False).high == 2


def test_what_is_not_finite_is_drawn_as_nothing() -> None:
    values = np.array([np.nan, -1.0, 1.0])
    with np.errstate(all="raise"):
        colours = scale_of(values, signed=True).colours(values)
    assert tuple(colours[0]) == NEUTRAL
    assert scale_of(np.full(3, np.nan), signed=True).constant


def test_an_overlay_shows_the_photograph_in_grey_where_the_map_is_zero() -> None:
    photograph = np.zeros((1, 2, 3), np.uint8)
    photograph[...] = (200, 40, 90)
    laid = overlay(photograph, np.array([[0.0, 1.0]]), scale_of(np.array([0.0, 1.0]), signed=True)).astype(int)
    assert laid[0, 0, 0] == laid[0, 0, 1] == laid[0, 0, 2]
    assert laid[0, 1, 0] > laid[0, 1, 2] + 80


def test_symmetric_colour_has_zero_at_mid_grey() -> None:
    tiles = np.zeros((1, 3, 1, 3))
    tiles[0, 0] = (-2.0, 0.0, 2.0)
    coloured = symmetric_colour(tiles, 2.0)
    assert coloured.shape == (1, 1, 3, 3)
    assert coloured[0, 0].tolist() == [[0, 128, 128], [128, 128, 128], [255, 128, 128]]
    assert (symmetric_colour(np.zeros((3, 2, 2)), 0.0) == 128).all()
