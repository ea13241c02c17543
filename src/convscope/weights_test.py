from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from convscope import memory, weights
from convscope.backward import GUIDED, gradient
from convscope.memory import kept, once
from convscope.network import Network, laid_out
from convscope.objectives import channel
from convscope.optimize import optimize
from convscope.parameterizations import Pixels


class Small(nn.Sequential):
    """Every kind of product; the last one shares its weight with a functional call."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(24, 5),
        )  # fmt: skip
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))


@contextmanager
def plainly() -> Iterator[None]:
    with patch("convscope.network.at_hand", lambda *_: nullcontext()):
        yield


@contextmanager
def counted() -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the weights that are made ready."""
    made: list[tuple[int, ...]] = []

    def noting(real: Any) -> Any:
        def make(weight: Tensor) -> Tensor:
            made.append(tuple(weight.shape))
            return real(weight)

        return make

    with (
        patch.object(weights, "_rounded", noting(weights._rounded)),
        patch.object(weights, "_last", noting(weights._last)),
    ):
        yield made


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", [True, False])
def test_scores_and_gradients_are_those_of_a_plain_pass(images: Tensor, precision: Any, frozen: bool) -> None:
    network = Network(Small().requires_grad_(not frozen), precision=precision)
    before = copy.deepcopy(network.module.state_dict())

    def passed() -> list[Tensor]:
        pixels = laid_out(images).requires_grad_()
        scores = network.forward(pixels)
        wanted = [pixels, *(p for p in network.module.parameters() if p.requires_grad)]
        return [scores, *torch.autograd.grad(scores.float().square().sum(), wanted)]

    with plainly():
        expected = passed()
    with kept():
        for _ in range(2):
            found = passed()
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.module.state_dict().items())


def test_each_weight_is_rounded_once_in_a_run_and_again_in_the_next(images: Tensor) -> None:
    network = Network(Small(), precision="bfloat16")
    products = [p.shape for p in network.module.parameters()]
    for _ in range(2):
        with counted() as made:
            for _ in optimize(network, channel(network, "9", 1), Pixels(images), steps=3):
                pass
        assert sorted(made) == sorted(map(tuple, products))


def test_weights_are_laid_out_once_where_maps_are(images: Tensor) -> None:
    network = Network(Small())
    with counted() as made, kept(), torch.no_grad():
        for _ in range(3):
            network.forward(laid_out(images))
        assert sorted(made) == sorted(
            tuple(p.shape)
            for p in network.module.parameters()
            if p.ndim == 4 and not p.is_contiguous(memory_format=torch.channels_last)
        )
        made.clear()
        network.forward(images)  # in the usual order nothing is gained
    assert not made


def test_a_weight_that_changes_in_a_run_is_rounded_again(images: Tensor) -> None:
    network = Network(Small(), precision="bfloat16")
    with kept(), torch.no_grad():
        first = network.forward(images)
        network.module[0].weight.mul_(-1)
        second = network.forward(images)
        network.module[0].weight = nn.Parameter(-network.module[0].weight)
        third = network.forward(images)
    with plainly(), torch.no_grad():
        assert torch.equal(third, network.forward(images))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_no_rule_takes_it_for_a_rectifier(images: Tensor) -> None:
    network = Network(Small(), precision="bfloat16")
    pixels = images.clone().requires_grad_()
    with kept(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradient(network.forward(pixels).float().sum(1), pixels, GUIDED)
    assert found.abs().sum() > 0


def test_weights_that_are_computed_at_each_pass_are_left_alone(images: Tensor) -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    network = Network(nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten()), precision="bfloat16")
    with counted() as made, kept(), torch.no_grad():
        found = network.forward(images)
    assert made == [(4,)]  # its bias
    with plainly(), torch.no_grad():
        assert torch.equal(found, network.forward(images))


# ---- once


def doubled(tensor: Tensor) -> Tensor:
    return tensor * 2


def test_once_inside_and_each_time_outside() -> None:
    tensor = torch.ones(3)
    assert once(tensor, doubled) is not once(tensor, doubled)
    with kept():
        with kept():
            first = once(tensor, doubled)
        assert once(tensor, doubled) is first
        tensor.add_(1)
        assert once(tensor, doubled).tolist() == [4, 4, 4]
        assert once(tensor, torch.neg).tolist() == [-2, -2, -2]
    assert not memory._made


def test_what_is_made_of_a_tensor_goes_with_it() -> None:
    with kept():
        once(torch.ones(3), doubled)
        assert len(memory._made) == 0
