from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from convscope.evaluate.cost import Arithmetic, passes
from convscope.evaluate.methods import Method
from convscope.evaluate.sample import Sample
from convscope.network import Network


def test_arithmetic_of_a_convolution_and_its_gradient() -> None:
    conv = nn.Conv2d(3, 5, 3, bias=False)
    x = torch.rand(2, 3, 10, 8, requires_grad=True)
    forward = 2 * 2 * (5 * 8 * 6) * (3 * 9)  # a multiplication and an addition each
    with Arithmetic() as arithmetic:
        out = conv(x)
        assert arithmetic.done == forward
        torch.autograd.grad(out.sum(), x)
    assert arithmetic.done == pytest.approx(2 * forward, rel=0.01)


def test_passes_of_methods(given: Sample, network: Network) -> None:
    one = given.images[:1]
    forward = passes(network, one, lambda: network(one))
    assert forward == 1.0
    three = passes(network, one, lambda: [network(one) for _ in range(3)])
    assert three == 3.0
    saliency = Method("saliency")
    assert passes(network, one, lambda: saliency(network, one, [0])) == pytest.approx(2.0, abs=0.1)


def test_a_budget_ends_the_computation(given: Sample, network: Network) -> None:
    one, ran = given.images[:1], []

    def many() -> None:
        for number in range(10):
            network(one)
            ran.append(number)

    assert passes(network, one, many, most=3.5) == math.inf
    assert len(ran) == 3


def test_a_network_that_multiplies_nothing_has_no_unit() -> None:
    bare = Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="bare", input_size=(8, 8))
    assert math.isnan(passes(bare, torch.rand(1, 3, 8, 8), lambda: None))
