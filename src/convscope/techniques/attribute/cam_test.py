"""cam: its formula in loops, the identity that defines it, and who has one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import NetworkError
from convscope.network import Network
from convscope.techniques.attribute.cam import cam
from convscope.techniques.attribute.gradcam import gradcam

pytest_plugins = "convscope.techniques.attribute._examples_test"


def test_equals_the_formula_in_loops(averaging: Network, pictures: Tensor) -> None:
    found = cam(averaging, pictures, target=[2, 0, 1])
    module = averaging.module
    maps = F.relu(module.conv(averaging.normalise(pictures)))
    for number, target in enumerate([2, 0, 1]):
        expected = sum(module.fc.weight[target, k] * maps[number, k] for k in range(5))
        torch.testing.assert_close(found.cells[number], expected.detach())


def test_the_mean_of_the_map_and_the_bias_are_the_score(averaging: Network, pictures: Tensor) -> None:
    found = cam(averaging, pictures)
    for cells, summary in zip(found.cells, found.summaries, strict=True):
        bias = averaging.module.fc.bias[summary["target"]["index"]]
        assert float(cells.mean() + bias) == pytest.approx(summary["score"], abs=1e-5)


def test_gradcam_at_the_averaged_maps_is_it_over_the_number_of_cells(averaging: Network, pictures: Tensor) -> None:
    torch.testing.assert_close(cam(averaging, pictures).values / 80, gradcam(averaging, pictures).values)


class Ending(nn.Module):
    """One of many ways to end a network."""

    def __init__(self, end: Callable[[Ending, Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, 3)
        self.fc1 = nn.Conv2d(channels, 3, 1)
        self.norm = nn.LayerNorm(channels)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self, self.conv(x).sin())


WITH = {
    "mean": lambda m, x: m.fc(x.mean((2, 3))),
    "negative dims, dropout": lambda m, x: m.fc(m.drop(x.mean([-1, -2]))),
    "avg_pool2d": lambda m, x: m.fc(F.avg_pool2d(x, (8, 10)).flatten(1)),
    "adaptive": lambda m, x: m.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)),
    "one-by-one convolution": lambda m, x: m.fc1(F.adaptive_avg_pool2d(x, 1)).flatten(1),
    "channels last": lambda m, x: m.fc(x.movedim(1, -1).mean((1, 2))),
    "after a gate": lambda m, x: m.fc((x * x.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3))),
}
WITHOUT = {
    "norm": lambda m, x: m.fc(m.norm(x.mean((2, 3)))),
    "maximum": lambda m, x: m.fc(x.amax((2, 3))),
    "softmax": lambda m, x: m.fc(x.mean((2, 3))).softmax(1),
    "two pools": lambda m, x: m.fc(x.mean((2, 3)) + x.amax((2, 3))),
    "a part": lambda m, x: m.fc(F.avg_pool2d(x, (7, 9)).flatten(1)),
    "a gate only": lambda m, x: m.fc((x * x.mean((2, 3), keepdim=True).sigmoid()).amax((2, 3))),
}


def ending(end: Callable[[Ending, Tensor], Tensor]) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(Ending(end).eval(), name="ending", input_size=(8, 10))


@pytest.mark.parametrize("name", WITH)
def test_networks_that_average_and_then_classify_have_one(name: str, pictures: Tensor) -> None:
    net = ending(WITH[name])
    found = cam(net, pictures, target=1)
    maps = net.module.conv(pictures).sin()
    if name == "after a gate":
        maps = maps * maps.mean((2, 3), keepdim=True).sigmoid()
    part = net.module.fc1 if name == "one-by-one convolution" else net.module.fc
    weights = part.weight[1].flatten()[:, None, None]
    torch.testing.assert_close(found.cells, (weights * maps).sum(1).detach())


@pytest.mark.parametrize("name", WITHOUT)
def test_others_get_a_sentence_that_names_gradcam(name: str, pictures: Tensor) -> None:
    with pytest.raises(NetworkError, match="ending does not end in a linear classifier on global average pooling"):
        cam(ending(WITHOUT[name]), pictures)


def test_a_network_with_a_map_a_class_shows_the_classs_own(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = cam(Network(module, input_size=(8, 10)), pictures, target=[3, 0, 1])
    maps = F.relu(module[0](pictures)).detach()
    torch.testing.assert_close(found.cells, torch.stack([maps[0, 3], maps[1, 0], maps[2, 1]]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvisions_have_one(random_network: Callable[..., Network], name: str) -> None:
    net = random_network(name)
    found = cam(net, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), target=7)
    score = found.summary["score"]
    bias = float(net.module.fc.bias[7].detach()) if hasattr(net.module, "fc") else 0.0
    assert float(found.cells.mean()) + bias == pytest.approx(score, abs=1e-4)


@pytest.mark.slow
def test_torchvisions_alexnet_has_none(random_network: Callable[..., Network]) -> None:
    with pytest.raises(NetworkError, match="so it has no CAM"):
        cam(random_network("alexnet"), torch.rand(1, 3, 64, 64), target=7)
