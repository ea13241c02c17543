"""Baselines and the blur of the path methods."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convscope.network import Network
from convscope.techniques.attribute._path import baseline_of, blurred

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
