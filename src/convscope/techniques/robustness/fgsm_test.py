from __future__ import annotations

import torch
from torch import Tensor

from convscope.network import Network
from convscope.techniques.robustness.fgsm import fgsm


def slopes(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """Of minus the logarithm of the class's probability."""
    moved = images.clone().requires_grad_()
    shares = network(moved).softmax(1)
    loss = -sum(shares[i, c].log() for i, c in enumerate(classes.tolist()))
    return torch.autograd.grad(loss, moved)[0]


def test_one_step_by_the_formula(victim: Network, images: Tensor, classes: Tensor) -> None:
    start = (images * 255).round() / 255
    expected = (start + 5 / 255 * slopes(victim, start, classes).sign()).clamp(0, 1)
    found = fgsm(victim, images, epsilon="5/255")
    torch.testing.assert_close(found.values.double(), expected, rtol=0, atol=1e-6)


def test_a_targeted_step_goes_the_other_way(victim: Network, images: Tensor, classes: Tensor) -> None:
    start, wanted = (images * 255).round() / 255, (classes + 1) % 3
    expected = (start - 5 / 255 * slopes(victim, start, wanted).sign()).clamp(0, 1)
    found = fgsm(victim, images, target=wanted, epsilon="5/255")
    torch.testing.assert_close(found.values.double(), expected, rtol=0, atol=1e-6)


def test_in_l2_the_step_is_along_the_gradient(victim: Network, images: Tensor, classes: Tensor) -> None:
    found = fgsm(victim, images, epsilon=1.0, norm="l2")
    change = (found.values - found.originals).double()
    slope = slopes(victim, found.originals.double(), classes)
    free = ((found.originals > 0.1) & (found.originals < 0.9)).all()  # cut at 0 and 1 elsewhere
    cosine = torch.nn.functional.cosine_similarity(change.flatten(1), slope.flatten(1))
    assert not bool(free)
    assert bool((cosine > 0.85).all())
    assert bool((change.flatten(1).norm(dim=1) <= 1.00003).all())
