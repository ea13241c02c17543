"""smoothgrad against gradients of the same noisy copies taken one by one, and its two limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convscope.errors import OptionError
from convscope.network import Network
from convscope.techniques.attribute.saliency import saliency
from convscope.techniques.attribute.smoothgrad import smoothgrad

pytest_plugins = "convscope.techniques.attribute._examples_test"


def slopes_one_by_one(net: Network, image: Tensor, target: int, samples: int, noise: float, seed: int) -> Tensor:
    """(samples, 3, H, W)."""
    draws = torch.randn(samples, *image.shape, generator=torch.Generator().manual_seed(seed))
    found = []
    for draw in draws:
        copy = (image + noise * float(image.max() - image.min()) * draw).requires_grad_()
        net.module(net.normalise(copy[None]))[0, target].backward()
        found.append(copy.grad)
    return torch.stack(found)


@pytest.mark.parametrize("max_batch", [32, 3])
def test_equals_the_mean_of_gradients_taken_one_by_one(deep: Network, pictures: Tensor, max_batch: int) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = smoothgrad(deep, pictures, target=[0, 1, 2], samples=7, noise=0.3, seed=5, reduce="sum", signed=True)
    for number in range(3):
        mean = slopes_one_by_one(deep, pictures[number], number, 7, 0.3, 5).mean(0)
        torch.testing.assert_close(found.values[number], mean.sum(0), rtol=1e-4, atol=1e-5)
    strongest = smoothgrad(deep, pictures[:1], target=0, samples=7, noise=0.3, seed=5)
    mean = slopes_one_by_one(deep, pictures[0], 0, 7, 0.3, 5).mean(0)
    torch.testing.assert_close(strongest.values[0], mean.abs().amax(0), rtol=1e-4, atol=1e-5)


def test_without_noise_it_is_saliency(deep: Network, pictures: Tensor) -> None:
    torch.testing.assert_close(smoothgrad(deep, pictures, samples=2, noise=0.0).values, saliency(deep, pictures).values)


def test_the_seed_decides(deep: Network, pictures: Tensor) -> None:
    first, second = (smoothgrad(deep, pictures, samples=3, seed=seed).values for seed in (0, 1))
    assert not torch.allclose(first, second)
    before = torch.random.get_rng_state()
    assert torch.equal(smoothgrad(deep, pictures, samples=3, seed=1).values, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_signed_length_gets_a_sentence(deep: Network, pictures: Tensor) -> None:
    with pytest.raises(OptionError, match="l2 has no sign"):
        smoothgrad(deep, pictures, reduce="l2", signed=True)
