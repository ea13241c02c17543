"""ablationcam against a brute force that zeroes one channel at a time in the network's own code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.ablationcam import ablationcam

pytest_plugins = "convscope.techniques.attribute._examples_test"


def by_brute_force(net: Network, image: Tensor, target: int) -> Tensor:
    """(h, w) at relu1 of the deep network."""
    module = net.module

    def score(maps: Tensor) -> float:
        return float(module[7](F.relu(module[5](F.relu(module[2](maps)).flatten(1))))[0, target])

    maps = F.relu(module[0](net.normalise(image[None]))).detach()
    found = torch.zeros(maps.shape[2:])
    for k in range(maps.shape[1]):
        without = maps.clone()
        without[0, k] = 0
        found += (score(maps) - score(without)) * maps[0, k]
    return found


@pytest.mark.parametrize("max_batch", [32, 3, 1])
def test_equals_zeroing_one_channel_at_a_time(deep: Network, pictures: Tensor, max_batch: int) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = ablationcam(deep, pictures, target=[2, 0, 1], layer="relu1")
    for number, target in enumerate([2, 0, 1]):
        expected = by_brute_force(deep, pictures[number], target)
        torch.testing.assert_close(found.cells[number], expected, rtol=1e-4, atol=1e-5)


def test_on_the_toy_network(toy: Network, ramp: Tensor) -> None:
    found = ablationcam.function(toy, ramp, target=0, layer="relu1")
    # relu1 is 0 4 31 40 and 0 0 6 15: without channel 0 the score falls from 54 to 0, without 1 it rises to 75
    first, second = torch.tensor([[0.0, 4.0], [31.0, 40.0]]), torch.tensor([[0.0, 0.0], [6.0, 15.0]])
    torch.testing.assert_close(found.cells[0], 54 * first - 21 * second)


def test_a_silent_channel_costs_no_pass(averaging: Network, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    averaging.module.conv.bias.data[[1, 3]] = -100.0
    averaging.layers()
    sizes = []
    whole = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: sizes.append(len(x)) or whole(self, x))
    ablationcam(averaging, pictures[:1], layer="relu")
    assert sizes == [1, 3]


class Concatenating(nn.Module):
    """What goes past the layer is concatenated with it, which does not broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1)
        self.fc = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x).relu()
        return self.fc(torch.cat([first, self.conv2(first)], 1).amax((2, 3)))


def test_a_layer_that_is_concatenated_is_ablated_all_the_same(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Concatenating().requires_grad_(False)
    found = ablationcam(Network(module, input_size=(8, 10)), pictures[:1], target=1, layer="conv2")
    first = module.conv1(pictures[:1]).relu()
    second = module.conv2(first).detach()
    score = module(pictures[:1])[0, 1]
    expected = torch.zeros(8, 10)
    for k in range(5):
        without = second.clone()
        without[:, k] = 0
        lost = score - module.fc(torch.cat([first, without], 1).amax((2, 3)))[0, 1]
        expected += float(lost) * second[0, k]
    torch.testing.assert_close(found.cells[0], expected, rtol=1e-4, atol=1e-5)


class ChannelsLast(nn.Module):
    """A layer whose channels come last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.mix = nn.Linear(4, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mix(self.conv(x).movedim(1, -1)).amax((1, 2)))


def test_channels_that_come_last_are_the_ones_set_to_zero(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ChannelsLast().requires_grad_(False)
    found = ablationcam(Network(module, input_size=(8, 10)), pictures[:1], target=2, layer="mix")
    mixed = module.mix(module.conv(pictures[:1]).movedim(1, -1)).detach()
    expected = torch.zeros(8, 10)
    for k in range(6):
        without = mixed.clone()
        without[..., k] = 0
        lost = (module.fc(mixed.amax((1, 2))) - module.fc(without.amax((1, 2))))[0, 2]
        expected += float(lost) * mixed[0, ..., k]
    torch.testing.assert_close(found.cells[0], expected, rtol=1e-4, atol=1e-5)
