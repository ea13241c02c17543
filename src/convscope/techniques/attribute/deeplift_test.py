"""deeplift: the rescale rule by hand, captum where it is right, and completeness where it is not."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import MissingExtra
from convscope.network import Network
from convscope.techniques.attribute._path import baseline_of
from convscope.techniques.attribute.deeplift import _Windows, deeplift
from convscope.techniques.attribute.gradient_x_input import gradient_x_input

pytest_plugins = "convscope.techniques.attribute._examples_test"


def test_the_toy_by_hand(toy: Network) -> None:
    """Input 0 to 15 from a baseline of zeros: relu1's multipliers are its outputs over the sums of its windows."""
    picture = torch.arange(16.0).reshape(4, 4) / 15
    scaled = Network(toy.module, std=torch.tensor([1 / 15]), mean=torch.zeros(1), input_size=(4, 4))
    found = deeplift(scaled, picture.expand(1, 3, 4, 4), target=2)
    numbers, expected = picture * 15, torch.zeros(4, 4)
    signs = iter([1, 1, 1, 1, 1, -1, -1, -1])
    for bias in (-50.0, -75.0):
        for row in (0, 1):
            for column in (0, 1):
                window = numbers[row : row + 3, column : column + 3]
                total = float(window.sum())
                multiplier = max(total + bias, 0.0) / total  # of x = total + bias, x' = bias, y' = 0
                expected[row : row + 3, column : column + 3] += next(signs) * multiplier * window
    torch.testing.assert_close(found.values[0], expected, rtol=1e-3, atol=1e-3)
    assert float(found.values.sum()) == pytest.approx(54, abs=1e-3)


@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
def test_equals_captums_where_modules_run_once(deep: Network, pictures: Tensor, baseline: str) -> None:
    found = deeplift(deep, pictures, target=[2, 1, 0], baseline=baseline)
    starts = baseline_of(deep, pictures, baseline)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = DeepLift(deep.module)
        inputs = (deep.normalise(each) for each in (pictures, starts))
        expected = oracle.attribute(*inputs, target=torch.tensor([2, 1, 0])).detach()
    torch.testing.assert_close(found.values, expected.sum(1), rtol=1e-4, atol=1e-5)


def test_for_a_linear_network_it_is_gradient_times_input(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Network(nn.Sequential(nn.Flatten(), nn.Linear(240, 4)), input_size=(8, 10))
    for baseline in ("black", "mean"):
        expected = gradient_x_input(net, pictures, baseline=baseline).values
        torch.testing.assert_close(deeplift(net, pictures, baseline=baseline).values, expected, rtol=1e-4, atol=1e-5)


class Awkward(nn.Module):
    """What captum's hooks get wrong or refuse: shared inputs, reuse, functions, overlapping pools, smooth kinds."""

    def __init__(self, activation: nn.Module, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.act, self.pool = activation, pool
        self.norm = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x + self.conv2(self.act(x))  # before the activation, and behind it
        x = self.norm(F.relu(self.pool(x)))
        return self.fc(self.act(x).mean((2, 3)))


POOLS = [
    nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d((2, 3), (1, 2)),
    nn.MaxPool2d(2, 3),
]  # fmt: skip
ACTIVATIONS = [nn.ReLU(inplace=True), nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.PReLU(), nn.ELU(), nn.Tanh()]


def awkward(activation: nn.Module, pool: nn.MaxPool2d) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        module = Awkward(activation, pool).eval()
    for parameter in module.parameters():
        parameter.data *= 2
    return Network(module, input_size=(8, 10))


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_the_map_adds_up(activation: nn.Module, pool: nn.MaxPool2d, pictures: Tensor) -> None:
    net = awkward(activation, pool)
    found = deeplift(net, pictures, target=1, baseline="mean")
    wanted = (net(pictures)[:, 1] - net(baseline_of(net, pictures, "mean"))[:, 1]).detach()
    for number, summary in enumerate(found.summaries):
        said = summary["completeness"]
        assert said["wanted"] == pytest.approx(float(wanted[number]), abs=1e-5)
        assert said["sum"] == pytest.approx(float(found.values[number].sum()), abs=1e-4)
        assert abs(said["error"]) < 2e-4


@pytest.mark.parametrize("pool", [*POOLS, nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True)], ids=str)
def test_windows_side_by_side_pool_the_same(pool: nn.MaxPool2d) -> None:
    maps = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_Windows(pool)(maps), pool(maps))


def test_a_unit_without_a_place_is_asked_about_at_the_pictures_own(deep: Network, pictures: Tensor) -> None:
    found = deeplift(deep, pictures, layer="conv2", unit=3)
    maps = deep.module.conv2(deep.module.conv1(deep.normalise(pictures)).relu())[:, 3]
    for number in range(3):
        row, column = divmod(int(maps[number].argmax()), 5)
        placed = deeplift(deep, pictures[number], layer="conv2", unit=f"3,{row},{column}")
        torch.testing.assert_close(found.values[number], placed.values[0])
        assert abs(found.summaries[number]["completeness"]["error"]) < 1e-5
        assert found.summaries[number]["score"] == pytest.approx(float(maps[number].max()), abs=1e-5)


def test_a_gate_is_named_and_its_error_shown(pictures: Tensor) -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x.sigmoid()).mean((2, 3))

    found = deeplift(Network(Gate(), input_size=(8, 10)), pictures, target=0)
    assert found.notes == ["no rule is known for products of activations: there the plain gradient passes"]
    assert abs(found.summaries[0]["completeness"]["error"]) > 1e-3


def test_a_missing_captum_gets_a_sentence(deep: Network, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(MissingExtra, match=r"convscope\[deeplift\]"):
        deeplift(deep, pictures)


def test_it_is_computed_in_float32_and_says_so(deep: Network, pictures: Tensor) -> None:
    found = deeplift(replace(deep, precision="bfloat16"), pictures, target=1)
    assert found.provenance is not None
    assert found.provenance.precision == "float32"
    assert torch.equal(found.values, deeplift(deep, pictures, target=1).values)
