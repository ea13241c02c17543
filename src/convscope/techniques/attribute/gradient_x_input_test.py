"""gradient_x_input against captum, and its sum for a linear network."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn

from convscope.network import Network
from convscope.techniques.attribute.gradient_x_input import gradient_x_input

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.parametrize("target", [0, 1, 2])
def test_equals_captums_from_the_mean_colour(deep: Network, pictures: Tensor, target: int) -> None:
    found = gradient_x_input(deep, pictures, target=target, baseline="mean")
    inputs = deep.normalise(pictures).requires_grad_()
    expected = InputXGradient(deep.module).attribute(inputs, target=target).detach()
    torch.testing.assert_close(found.values, expected.sum(1), rtol=1e-4, atol=1e-5)


def test_equals_captums_from_black(deep: Network, pictures: Tensor) -> None:
    found = gradient_x_input(deep, pictures, target=[2, 1, 0])
    inputs = pictures.clone().requires_grad_()
    whole = InputXGradient(lambda x: deep.module(deep.normalise(x)))
    expected = whole.attribute(inputs, target=torch.tensor([2, 1, 0])).detach()
    torch.testing.assert_close(found.values, expected.sum(1), rtol=1e-4, atol=1e-5)


def test_for_a_linear_network_the_sum_is_the_difference_of_scores(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(240, 4)).requires_grad_(False)
    found = gradient_x_input(Network(module, input_size=(8, 10)), pictures, target=3)
    expected = module(pictures)[:, 3] - module[1].bias[3]
    torch.testing.assert_close(found.values.sum((1, 2)), expected, rtol=1e-4, atol=1e-5)
