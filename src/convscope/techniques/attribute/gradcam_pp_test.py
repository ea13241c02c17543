"""gradcam_pp against the paper's alphas, with derivatives of exp(S) taken one by one by autograd."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.gradcam_pp import gradcam_pp

pytest_plugins = "convscope.techniques.attribute._examples_test"


def by_the_paper(net: Network, image: Tensor, target: int) -> Tensor:
    """Derivatives of Y = exp(S), cell by cell, to the third order; weights and map by loops."""
    module = net.module.double()
    maps = F.relu(module[0](net.normalise(image[None].double())))[0].detach()

    def score(a: Tensor) -> Tensor:
        conv2 = F.relu(module[2](a[None]))
        return module[7](F.relu(module[5](conv2.flatten(1))))[0, target]

    base = score(maps).item()
    found = torch.zeros(maps.shape[1:], dtype=torch.float64)
    for k in range(len(maps)):
        weight = 0.0
        for i in range(maps.shape[1]):
            for j in range(maps.shape[2]):
                value = maps[k, i, j].clone().requires_grad_()
                moved = maps.clone()
                moved[k, i, j] = value
                y = torch.exp(score(moved) - base)  # exp(S) itself divided out
                derivatives = []
                for _ in range(3):
                    (y,) = torch.autograd.grad(y, value, create_graph=True)
                    derivatives.append(y.item())
                first, second, third = derivatives
                below = 2 * second + float(maps[k].sum()) * third
                weight += (second / below if below else 0.0) * max(first, 0.0)
        found += weight * maps[k]
    return found


def test_equals_the_paper_with_derivatives_taken_one_by_one(deep: Network, pictures: Tensor) -> None:
    found = gradcam_pp(deep, pictures[:2], target=[1, 2], layer="relu1")
    assert found.cells is not None
    for number, target in enumerate([1, 2]):
        expected = by_the_paper(deep, pictures[number], target)
        torch.testing.assert_close(found.cells[number].double(), expected, rtol=1e-4, atol=1e-5)


def test_on_the_toy_network(toy: Network, ramp: Tensor) -> None:
    found = gradcam_pp.function(toy, ramp, target=0, layer="relu1")
    first, second = (F.conv2d(ramp, torch.ones(1, 1, 3, 3)) + b for b in (-50.0, -75.0))
    a, b = first.clamp(min=0)[0, 0], second.clamp(min=0)[0, 0]
    # g is +1 for the first five of eight inputs: all four of channel 0, and the first of channel 1
    weights = 4 / (2 + a.sum()), 1 / (2 + b.sum())
    torch.testing.assert_close(found.cells[0], weights[0] * a + weights[1] * b)


def test_a_class_with_falling_slopes_only_has_no_map(averaging: Network, pictures: Tensor) -> None:
    averaging.module.fc.weight.data[1] = -1.0
    found = gradcam_pp(averaging, pictures[:1], target=1)
    assert found.values.abs().max() == 0
    assert found.notes == ["the map for bee is constant (0): no pixel stands out"]
