"""activations against the layers run by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convscope.network import Network
from convscope.techniques.look.activations import activations

CONVOLUTION = nn.Conv2d(3, 3, 1, bias=False)
CONVOLUTION.weight.data = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 2, 0]]).view(3, 3, 1, 1)
CHAIN = nn.Sequential(CONVOLUTION, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
NETWORK = Network(CHAIN, name="chain", input_size=(4, 6))
PICTURE = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.01
PICTURE = (PICTURE / PICTURE.max()).clamp(0, 1)


def test_values_sparsity_and_silent_channels() -> None:
    found = activations(NETWORK, PICTURE, layer="1")
    torch.testing.assert_close(found.values[0, 0], PICTURE[0])
    torch.testing.assert_close(found.values[0, 2], PICTURE[1] * 2)
    summary = found.summaries[0]
    assert summary["silent"] == [1]
    assert summary["sparsity"] == pytest.approx(1 / 3)
    assert summary["maximum"] == pytest.approx(float(found.values.max()))
    assert summary["mean"] == pytest.approx(float(PICTURE[0].sum() + 2 * PICTURE[1].sum()) / 72)
    assert found.marks is not None
    assert found.marks.tolist() == [[False, True, False]]
    assert "1 of 3 zero everywhere" in found.titles[0]


def test_an_in_place_relu_behind_the_layer_changes_nothing() -> None:
    found = activations(NETWORK, PICTURE, layer="0")
    torch.testing.assert_close(found.values[0, 1], -PICTURE[0])
    assert found.signed


def test_the_default_layer_is_said() -> None:
    assert activations(NETWORK, PICTURE).layer == "1"


def test_a_layer_without_extent_is_one_square() -> None:
    found = activations(NETWORK, PICTURE, layer="4")
    assert found.values.shape == (1, 2)
    assert found.tiles.shape == (1, 1, 1, 2, 2)
    assert found.tiles.flatten().tolist() == [*found.values[0].tolist(), 0, 0]


def test_fewer_channels_can_be_drawn_than_are_kept() -> None:
    found = activations(NETWORK, PICTURE, layer="1", channels=2)
    assert found.tiles.shape == (1, 2, 1, 4, 6)
    assert found.values.shape == (1, 3, 4, 6)
