"""layerwise against neuron, unit by unit, and against a choice of units by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from convscope.errors import OptionError
from convscope.network import Network
from convscope.techniques.attribute.layerwise import fitted, last_of_each_resolution, layerwise
from convscope.techniques.attribute.neuron import neuron

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.parametrize("rule", ["plain", "deconvnet", "guided"])
def test_each_value_is_neurons_for_that_unit_and_picture(deep: Network, pictures: Tensor, rule: str) -> None:
    found = layerwise(deep, pictures, layers=["relu1", "conv2"], units=3, rule=rule)
    assert found.values.shape == (3, 2, 3, 3, 8, 10)
    for number, summary in enumerate(found.summaries):
        for place, layer in enumerate(summary["layers"]):
            for rank, unit in enumerate(layer["units"]):
                spot = f"{unit['channel']},{unit['row']},{unit['column']}"
                alone = neuron(deep, pictures[number], layer=layer["name"], unit=spot, rule=rule)
                torch.testing.assert_close(found.values[number, place, rank], alone.values[0], rtol=1e-4, atol=1e-6)
                assert unit["box"] == alone.summary["box"]


def test_the_strongest_channels_come_first_each_at_its_peak(deep: Network, pictures: Tensor) -> None:
    found = layerwise(deep, pictures, layers=["relu2"], units=4)
    maps = deep.module[:4](deep.normalise(pictures))
    for number in range(3):
        order = sorted(range(6), key=lambda k: -float(maps[number, k].max()))[:4]
        units = found.summaries[number]["layers"][0]["units"]
        assert [u["channel"] for u in units] == order
        for unit in units:
            peak = maps[number, unit["channel"]]
            assert unit["activation"] == pytest.approx(float(peak.max()))
            assert float(peak[unit["row"], unit["column"]]) == float(peak.max())


def test_a_layer_before_all_rectifiers_gets_the_gradient(deep: Network, pictures: Tensor) -> None:
    found = layerwise(deep, pictures, layers=["conv1"], units=2, rule="guided")
    plain = layerwise(deep, pictures, layers=["conv1"], units=2, rule="plain")
    assert torch.equal(found.values, plain.values)
    assert found.values.any()
    assert found.notes == ["no rectifier before conv1: the guided rule is the plain gradient there"]
    assert plain.notes == []


def test_by_default_the_last_layer_of_each_resolution(deep: Network, pictures: Tensor) -> None:
    found = layerwise(deep, pictures[:1])
    assert [layer["name"] for layer in found.summary["layers"]] == ["relu1", "relu2"]
    assert found.values.shape[2] == 4, "conv1 has four channels"
    assert found.columns == 4
    assert list(found.tile_titles)[4] == f"relu2 {found.summary['layers'][1]['units'][0]['channel']}"


@pytest.mark.slow
def test_by_default_the_stages_of_a_resnet(random_network: Callable[..., Network]) -> None:
    assert last_of_each_resolution(random_network("resnet18")) == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_tiles_keep_their_proportions_inside_those_of_the_picture() -> None:
    tiles = fitted(torch.ones(1, 3, 3, 3), (8, 10))
    assert tiles.shape == (1, 3, 8, 10)
    assert torch.equal(tiles[..., 1:9], torch.ones(1, 3, 8, 8))
    assert not tiles[..., 0].any()
    assert not tiles[..., 9].any()
    assert fitted(torch.ones(1, 3, 40, 60), (200, 300)).shape == (1, 3, 64, 96)


def test_a_layer_without_extent_gets_a_sentence(deep: Network, pictures: Tensor) -> None:
    with pytest.raises(OptionError, match="'fc1' has no spatial extent; try 'relu2'"):
        layerwise(deep, pictures, layers=["relu1", "fc1"])
