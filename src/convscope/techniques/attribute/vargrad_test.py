"""vargrad against the variance of gradients of the same noisy copies taken one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network
from convscope.techniques.attribute.vargrad import vargrad

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.parametrize(("max_batch", "reduce"), [(32, "max"), (3, "sum")])
def test_equals_the_variance_of_gradients_taken_one_by_one(
    deep: Network, pictures: Tensor, max_batch: int, reduce: str
) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = vargrad(deep, pictures, target=[0, 1, 2], samples=6, noise=0.3, seed=4, reduce=reduce)
    draws = torch.randn(6, 3, 8, 10, generator=torch.Generator().manual_seed(4))
    for number, image in enumerate(pictures):
        slopes = []
        for draw in draws:
            copy = (image + 0.3 * float(image.max() - image.min()) * draw).requires_grad_()
            deep.module(deep.normalise(copy[None]))[0, number].backward()
            slopes.append(copy.grad.double())
        mean = sum(slopes) / 6
        variance = sum((slope - mean) ** 2 for slope in slopes) / 6
        expected = variance.amax(0) if reduce == "max" else variance.sum(0)
        torch.testing.assert_close(found.values[number].double(), expected, rtol=1e-4, atol=1e-6)


def test_a_linear_network_has_none(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(240, 4))
    found = vargrad(Network(module, input_size=(8, 10)), pictures, samples=5)
    assert float(found.values.max()) < 1e-12
    assert not found.signed
