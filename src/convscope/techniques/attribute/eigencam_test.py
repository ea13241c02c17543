"""eigencam against a power iteration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.eigencam import eigencam, project

pytest_plugins = "convscope.techniques.attribute._examples_test"


def by_power_iteration(maps: Tensor) -> tuple[Tensor, float]:
    """(C, h, w) to the projection (h, w) and the share of the sum of squares."""
    matrix = maps.flatten(1).T.double()
    direction = torch.ones(matrix.shape[1], dtype=torch.float64)
    for _ in range(2000):
        direction = matrix.T @ (matrix @ direction)
        direction /= direction.norm()
    projection = matrix @ direction
    share = float(projection.square().sum() / matrix.square().sum())
    return (projection if projection.sum() >= 0 else -projection).view(maps.shape[1:]), share


@pytest.mark.parametrize("layer", ["conv2", "relu2"])
def test_equals_a_power_iteration(deep: Network, pictures: Tensor, layer: str) -> None:
    found = eigencam(deep, pictures, layer=layer)
    maps = deep.module[2](F.relu(deep.module[0](deep.normalise(pictures)))).detach()
    for number in range(3):
        expected, share = by_power_iteration(maps[number] if layer == "conv2" else maps[number].clamp(min=0))
        torch.testing.assert_close(found.cells[number].double(), expected, rtol=1e-4, atol=1e-4)
        assert found.summaries[number]["share"] == [pytest.approx(share, abs=1e-5)]


def test_a_layer_of_one_pattern_is_found_whole() -> None:
    pattern = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([3.0, -1.0, 0.0])
    cells, share = project((weights[:, None, None] * pattern)[None])
    torch.testing.assert_close(cells[0], pattern * 10**0.5)  # the length of the weights
    assert float(share) == pytest.approx(1.0)


def test_a_silent_layer_is_constant_and_said(averaging: Network, pictures: Tensor) -> None:
    averaging.module.conv.bias.data.fill_(-100.0)
    found = eigencam(averaging, pictures[:1])
    assert found.values.abs().max() == 0
    assert "is constant (0)" in found.notes[0]


def test_it_needs_no_classifier(deep: Network, pictures: Tensor) -> None:
    trunk = Network(deep.module[:4], mean=deep.mean, std=deep.std, input_size=(8, 10))
    torch.testing.assert_close(eigencam(trunk, pictures, layer="relu2").values, eigencam(deep, pictures).values)


def test_several_layers_have_a_share_each(deep: Network, pictures: Tensor) -> None:
    both = eigencam(deep, pictures, layer=["relu1", "relu2"])
    alone = [eigencam(deep, pictures, layer=name) for name in ("relu1", "relu2")]
    assert both.summaries[0]["share"] == [a.summaries[0]["share"][0] for a in alone]
    scaled = [a.values / a.values.abs().amax((1, 2), keepdim=True) for a in alone]
    torch.testing.assert_close(both.values, (scaled[0] + scaled[1]) / 2)
