from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from convscope.errors import OptionError
from convscope.network import Network
from convscope.techniques.robustness.pgd import pgd


def by_hand(network: Network, image: Tensor, label: int, epsilon: float, steps: int, rate: float) -> Tensor:
    """One picture, one number at a time, in L-inf; loss by its definition."""
    here = image.clone()
    for _ in range(steps):
        moved = here.clone().requires_grad_()
        logits = network(moved[None])[0]
        loss = logits.exp().sum().log() - logits[label]
        (slope,) = torch.autograd.grad(loss, moved)
        for place in torch.cartesian_prod(*(torch.arange(n) for n in image.shape)):
            at = tuple(place.tolist())
            value = float(here[at]) + rate * float(torch.sign(slope[at]))
            low, high = max(float(image[at]) - epsilon, 0.0), min(float(image[at]) + epsilon, 1.0)
            here[at] = min(max(value, low), high)
    return here


def test_the_picture_equals_a_slow_one_rounded(victim: Network, images: Tensor, classes: Tensor) -> None:
    found = pgd(victim, images, epsilon="6/255", steps=3, rate="2/255", random_start=False)
    for number in range(2):
        start = (images[number] * 255).round() / 255
        slow = by_hand(victim, start, int(classes[number]), 6 / 255, 3, 2 / 255)
        torch.testing.assert_close(found.values[number].double(), (slow * 255).round() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fools_within_the_budget(victim: Network, images: Tensor, norm: Any) -> None:
    budget = {"linf": 0.15, "l2": 1.5}[norm]
    found = pgd(victim, images, epsilon=budget, norm=norm, steps=10)
    assert sum(found.success) >= 4
    assert all(s[norm] <= budget * (1 + 2e-5) for s in found.summaries)


def test_it_goes_towards_a_target(victim: Network, images: Tensor, classes: Tensor) -> None:
    wanted = (classes + 1) % 3
    found = pgd(victim, images, target=wanted, epsilon=0.3, steps=10)
    for summary, index in zip(found.summaries, wanted.tolist(), strict=True):
        if summary["success"]:
            assert summary["adversarial"]["index"] == index
    assert sum(found.success) >= 4


def test_more_tries_never_do_worse_and_random_starts_differ(victim: Network, images: Tensor) -> None:
    small = {"epsilon": 0.02, "steps": 2}
    one, three = (pgd(victim, images, restarts=tries, **small) for tries in (1, 3))
    assert sum(three.success) >= sum(one.success)
    assert not torch.equal(one.values, pgd(victim, images, seed=1, **small).values)


def test_momentum_and_margin_are_other_attacks(victim: Network, images: Tensor) -> None:
    small: dict[str, Any] = {"epsilon": 0.05, "steps": 4, "random_start": False, "norm": "l2"}
    plain = pgd(victim, images, **small).values
    assert not torch.equal(plain, pgd(victim, images, momentum=0.9, **small).values)
    assert not torch.equal(plain, pgd(victim, images, loss="margin", **small).values)


def test_fractions_are_read_and_nonsense_is_refused(victim: Network, images: Tensor) -> None:
    assert pgd(victim, images, epsilon="8/255", steps=1).provenance.options["epsilon"] == 8 / 255
    for bad in ("many", "1/0", "a/255"):
        with pytest.raises(OptionError, match=r"epsilon should be a number or a fraction, as 0\.016 or 4/255"):
            pgd(victim, images, epsilon=bad)
    with pytest.raises(OptionError, match="greater than 0"):
        pgd(victim, images, epsilon=-0.1)
    with pytest.raises(OptionError, match="say 8/255"):
        pgd(victim, images, epsilon=8)
