from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from convscope.results import Curve, Provenance
from convscope.views import figure, html

Make = Callable[..., Curve]


@pytest.fixture
def curve(provenance: Callable[..., Provenance]) -> Make:
    def made(values: Sequence[Sequence[float]], *, logarithmic: bool = False, **more: Any) -> Curve:
        names = [f"series {i}" for i in range(len(values))]
        return Curve(
            values=torch.tensor(values, dtype=torch.float64), summaries=[{}], per_picture=False, series=names,
            points=[f"layer{i}" for i in range(len(values[0]))], panels=[("all", names, logarithmic)],
            axis="layer, forward", provenance=provenance("gradients"), **more,
        )  # fmt: skip

    return made


def lines(drawn: Any) -> list[list[tuple[float, float]]]:
    """The points of each series, without the lines between them."""
    shown = [line for line in drawn.axes[0].lines if line.get_marker() == "o"]
    return [list(zip(*map(np.ndarray.tolist, line.get_data()), strict=True)) for line in shown]


def test_every_number_is_drawn_at_its_place(curve: Make) -> None:
    drawn = figure(curve([[1.0, 5.0, 2.0], [0.0, -1.0, 3.0]]))
    assert lines(drawn) == [[(0, 1), (1, 5), (2, 2)], [(0, 0), (1, -1), (2, 3)]]


def test_missing_numbers_are_left_out_and_the_others_keep_their_places(curve: Make) -> None:
    assert lines(figure(curve([[1.0, float("nan"), 2.0]]))) == [[(0, 1), (2, 2)]]


def test_zeros_have_no_place_on_a_logarithmic_axis_and_that_is_said(curve: Make) -> None:
    result = curve([[1.0, 0.0, 100.0, -5.0]], logarithmic=True)
    drawn = figure(result)
    assert lines(drawn) == [[(0, 1), (2, 100)]]
    assert drawn.axes[0].get_yscale() == "log"
    sentence = "2 values of zero or less have no place on the logarithmic axes."
    assert sentence in [text.get_text() for text in drawn.texts]
    assert sentence in html(result)


def test_a_series_without_numbers_says_so(curve: Make) -> None:
    drawn = figure(curve([[1.0, 2.0], [float("nan")] * 2]))
    assert "series 1: none" in [text.get_text() for text in drawn.texts]


@pytest.mark.parametrize("count", [1, 2, 30, 400])
def test_names_along_the_axis_never_run_into_each_other(count: int, curve: Make) -> None:
    drawn = figure(curve([list(range(1, count + 1))]))
    drawn.pixels()  # type: ignore[attr-defined]
    labels = [label for label in drawn.axes[-1].get_xticklabels() if label.get_text()]
    places = [label.get_window_extent().x1 for label in labels]
    assert labels[0].get_text() == "layer0"
    assert all(after - before > 18 for before, after in itertools.pairwise(places))
    assert max(drawn.get_size_inches()) < 12


@pytest.mark.parametrize("values", [[3.0, 3.0], [0.0, 0.0], [float("nan")] * 2, [1e-30, 1e30]])
@pytest.mark.parametrize("logarithmic", [True, False])
def test_odd_numbers_do_not_warn(values: list[float], logarithmic: bool, curve: Make, recwarn: Any) -> None:
    figure(curve([values], logarithmic=logarithmic)).pixels()  # type: ignore[attr-defined]
    assert not [str(w.message) for w in recwarn]


def test_the_page_has_both_colourings(curve: Make) -> None:
    fragment = html(curve([[1.0, 2.0]]))
    assert 'media="screen and (prefers-color-scheme: dark)"' in fragment
    assert 'alt="Curves of series 0 over 2 points, from layer0 to layer1"' in fragment
