"""neuron against autograd, its captum namesakes, and the promise that nothing lies outside the receptive field."""

from __future__ import annotations

import pytest
import torch
from captum.attr import NeuronDeconvolution, NeuronGradient, NeuronGuidedBackprop
from torch import Tensor, nn

from convscope.errors import OptionError, RuleError, UnknownLayer
from convscope.network import Network
from convscope.techniques.attribute.neuron import cut, neuron

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize(
    ("rule", "oracle"),
    [("plain", NeuronGradient), ("deconvnet", NeuronDeconvolution), ("guided", NeuronGuidedBackprop)],
)
def test_equals_captum(deep: Network, pictures: Tensor, rule: str, oracle: type) -> None:
    plain = nn.Sequential(*(nn.ReLU() if isinstance(part, nn.ReLU) else part for part in deep.module))
    found = neuron(deep, pictures, layer="conv2", unit="3,1,2", rule=rule)
    inputs = deep.normalise(pictures).requires_grad_()
    expected = oracle(plain, plain[2]).attribute(inputs, (3, 1, 2)) / deep.std.view(1, 3, 1, 1)
    torch.testing.assert_close(found.values, expected.detach(), rtol=1e-4, atol=1e-6)


def test_the_first_convolutions_gradient_is_its_filter(toy: Network, ramp: Tensor) -> None:
    found = neuron.function(toy, ramp, layer="conv1", unit="1,1,0")
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 1:4, 0:3] = 1
    assert torch.equal(found.values, expected)
    assert found.summary == {"channel": 1, "row": 1, "column": 0, "activation": 6.0, "box": [1, 0, 4, 3]}
    assert torch.equal(found.tiles, torch.ones(1, 1, 1, 3, 3))


@pytest.mark.parametrize("place", ["0,0", "1,2", "3,4"])
def test_nothing_lies_outside_the_box_and_the_box_is_tight(deep: Network, pictures: Tensor, place: str) -> None:
    found = neuron(deep, pictures, layer="conv2", unit=f"2,{place}")
    touched = torch.zeros(8, 10, dtype=torch.bool)
    for channel in range(6):
        touched |= neuron(deep, pictures, layer="conv2", unit=f"{channel},{place}").values.abs().sum((0, 1)) > 0
    rows, columns = touched.any(1).nonzero()[:, 0], touched.any(0).nonzero()[:, 0]
    tight = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
    assert all(summary["box"] == tight for summary in found.summaries)
    top, left, bottom, right = tight
    assert torch.equal(found.tiles[:, 0], found.values[:, :, top:bottom, left:right])


def test_a_channel_is_taken_where_it_is_strongest_and_without_one_the_strongest_unit_of_all(
    deep: Network, pictures: Tensor
) -> None:
    maps = deep.module[:4](deep.normalise(pictures))
    channel = neuron(deep, pictures, layer="relu2", unit=4)
    free = neuron(deep, pictures)
    for number, each in enumerate(maps):
        summary, peak = channel.summaries[number], each[4].argmax()
        assert (summary["row"], summary["column"]) == (int(peak) // 5, int(peak) % 5)
        assert summary["activation"] == pytest.approx(float(each[4].max()))
        best = free.summaries[number]
        assert best["activation"] == pytest.approx(float(each.max()))
        assert float(each[best["channel"], best["row"], best["column"]]) == float(each.max())


def test_pictures_of_another_size_have_their_own_boxes(deep: Network) -> None:
    trunk = Network(deep.module[:4], mean=deep.mean, std=deep.std, input_size=(8, 10))
    found = neuron(trunk, torch.rand(1, 3, 20, 30), layer="conv2", unit="0,8,14")
    assert found.summary["box"] == [14, 26, 19, 30]
    assert found.tiles.shape == (1, 1, 3, 5, 4)


def test_tiles_are_as_large_as_the_largest_box_and_stay_inside() -> None:
    values = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    tiles = cut(values, [(0, 0, 3, 3), (3, 2, 4, 4)])
    assert torch.equal(tiles[0], values[0, :, 0:3, 0:3])
    assert torch.equal(tiles[1], values[1, :, 1:4, 1:4])


def test_a_unit_without_rectifiers_before_it_or_that_is_not_there_gets_a_sentence(
    deep: Network, pictures: Tensor
) -> None:
    with pytest.raises(RuleError, match="the guided rule found no rectifier"):
        neuron(deep, pictures, layer="conv1", unit=0, rule="guided")
    with pytest.raises(OptionError, match="'conv2' has channels 0 to 5, not 6"):
        neuron(deep, pictures, layer="conv2", unit=6)
    with pytest.raises(OptionError, match="'conv2' has 4x5 positions; row 4, column 0 is outside"):
        neuron(deep, pictures, layer="conv2", unit="0,4,0")
    with pytest.raises(UnknownLayer):
        neuron(deep, pictures, layer="conv7", unit=0)
