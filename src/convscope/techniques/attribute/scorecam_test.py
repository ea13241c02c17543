"""scorecam against algorithm 1 of the paper in loops, one pass for each channel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.scorecam import scorecam

pytest_plugins = "convscope.techniques.attribute._examples_test"


def by_the_paper(net: Network, image: Tensor, target: int, channels: list[int]) -> Tensor:
    """Algorithm 1, with the baseline's score subtracted; the network gets normalised pictures that are masked."""
    module = net.module
    inputs = net.normalise(image[None])
    maps = F.relu(module[2](F.relu(module[0](inputs)))).detach()[0]
    baseline = float(module(torch.zeros_like(inputs))[0, target])
    rises = []
    for k in channels:
        mask = F.interpolate(maps[k][None, None], image.shape[1:], mode="bilinear", align_corners=False)
        if float(mask.max()) > float(mask.min()):
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        rises.append(float(module(inputs * mask)[0, target]) - baseline)
    total = sum(math.exp(rise) for rise in rises)
    return sum(math.exp(rise) / total * maps[k] for rise, k in zip(rises, channels, strict=True))


@pytest.mark.parametrize("max_batch", [32, 4, 1])
def test_equals_the_papers_algorithm(deep: Network, pictures: Tensor, max_batch: int) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = scorecam(deep, pictures, target=[0, 1, 2], layer="relu2")
    for number in range(3):
        expected = by_the_paper(deep, pictures[number], number, list(range(6)))
        torch.testing.assert_close(found.cells[number], expected, rtol=1e-4, atol=1e-5)


def test_only_the_channels_that_vary_most(deep: Network, pictures: Tensor) -> None:
    found = scorecam(deep, pictures[:1], target=1, layer="relu2", channels=2)
    maps = F.relu(deep.module[2](F.relu(deep.module[0](deep.normalise(pictures[:1])))))[0]
    order = sorted(range(6), key=lambda k: float(maps[k].var()), reverse=True)
    expected = by_the_paper(deep, pictures[0], 1, order[:2])
    torch.testing.assert_close(found.cells[0], expected, rtol=1e-4, atol=1e-5)


def test_a_constant_channel_lets_nothing_through(deep: Network, pictures: Tensor) -> None:
    deep.module[2].weight.data[2] = 0
    deep.module[2].bias.data[2] = 3.0
    found = scorecam(deep, pictures[:1], target=1, layer="relu2")
    assert bool(found.values.isfinite().all())
    module, channel = deep.module, torch.zeros(8, 10)
    inputs = deep.normalise(pictures[:1])
    maps = F.relu(module[2](F.relu(module[0](inputs)))).detach()[0]
    scores = []
    for k in range(6):
        mask = channel
        if k != 2:
            mask = F.interpolate(maps[k][None, None], (8, 10), mode="bilinear", align_corners=False)[0, 0]
            mask = (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else channel
        scores.append(module(inputs * mask)[0, 1])
    weights = torch.stack(scores).softmax(0)
    torch.testing.assert_close(found.cells[0], (weights[:, None, None] * maps).sum(0).detach(), rtol=1e-4, atol=1e-5)
