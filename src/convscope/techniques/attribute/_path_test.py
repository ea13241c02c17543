"""Baselines and the blur of the path methods, and units instead of classes in all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope import registry
from convscope.errors import OptionError, UnknownLayer
from convscope.images import blurred
from convscope.network import Network
from convscope.techniques.attribute._path import baseline_of

pytest_plugins = "convscope.techniques.attribute._examples_test"


def test_blur_equals_a_gaussian_summed_by_hand() -> None:
    image = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    sigma, reach = 0.9, 3
    weights = [math.exp(-(d * d) / (2 * sigma * sigma)) for d in range(-reach, reach + 1)]
    found = blurred(image, sigma)
    for row, column in ((0, 0), (3, 4), (6, 8)):
        total = 0.0
        for i, down in enumerate(weights):
            for j, right in enumerate(weights):
                y, x = min(max(row + i - reach, 0), 6), min(max(column + j - reach, 0), 8)
                total += down * right * float(image[0, 1, y, x])
        assert abs(float(found[0, 1, row, column]) - total / sum(weights) ** 2) < 1e-6


def test_baselines(deep: Network, pictures: Tensor) -> None:
    assert not baseline_of(deep, pictures, "black").any()
    assert not deep.normalise(baseline_of(deep, pictures, "mean")).any()
    torch.testing.assert_close(baseline_of(deep, pictures, "blur"), blurred(pictures, 1.0))


# ---- units

METHODS: dict[str, dict[str, Any]] = {
    "gradient-x-input": {},
    "integrated-gradients": {"steps": 6, "baseline": "blur"},
    "smoothgrad": {"samples": 5},
    "vargrad": {"samples": 5},
    "expected-gradients": {"samples": 5},
    "rise": {"samples": 12, "cells": 3},
}


class Cut(nn.Module):
    """A network that ends at conv2 and gives one score: a unit, or the strongest of its channel."""

    def __init__(self, whole: nn.Module, position: tuple[int, int] | None) -> None:
        super().__init__()
        self.parts = nn.Sequential(whole.conv1, whole.relu1, whole.conv2)
        self.position = position

    def forward(self, x: Tensor) -> Tensor:
        maps = self.parts(x)[:, 3]
        return (maps.amax((1, 2)) if self.position is None else maps[:, self.position[0], self.position[1]])[:, None]


@pytest.mark.parametrize("position", [None, (2, 1)])
@pytest.mark.parametrize("name", METHODS)
def test_a_units_map_is_that_of_a_network_which_ends_there(
    name: str, position: tuple[int, int] | None, deep: Network, pictures: Tensor
) -> None:
    technique, options = registry.load(name), METHODS[name]
    unit = "3" if position is None else "3,2,1"
    found = technique(deep, pictures, layer="conv2", unit=unit, **options)
    cut = Network(Cut(deep.module, position), mean=deep.mean, std=deep.std, input_size=deep.input_size)
    of = {"of": "score"} if name == "rise" else {}
    expected = technique(cut, pictures, target=0, **of, **options)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-6)
    assert found.layer == "conv2"
    assert found.titles[0] == f"conv2 unit {unit}"
    assert "activation" in found.quantity
    for summary, wanted in zip(found.summaries, expected.summaries, strict=True):
        assert summary["target"]["index"] is None
        assert summary["score"] == pytest.approx(wanted["score"], abs=1e-6)
        if "completeness" in wanted:
            assert summary["completeness"] == pytest.approx(wanted["completeness"], abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_contradictions_about_units_get_a_sentence(name: str, deep: Network, pictures: Tensor) -> None:
    technique = registry.load(name)
    for wrong, remedy in (
        ({"layer": "conv2"}, "layer needs unit"),
        ({"unit": 3, "target": 1}, "not both"),
        ({"unit": 3, "of": "loss"}, "belongs to a class"),
        ({"layer": "conv2", "unit": 99}, "channels 0 to 5"),
    ):
        with pytest.raises(OptionError, match=remedy):
            technique(deep, pictures, **wrong)
    with pytest.raises(UnknownLayer, match="no layer 'conv7'"):
        technique(deep, pictures, layer="conv7", unit=1)
