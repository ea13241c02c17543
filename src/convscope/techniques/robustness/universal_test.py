from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convscope.network import Network
from convscope.techniques.robustness.universal import ENOUGH, MOMENTUM, universal


@pytest.fixture
def folder() -> Tensor:
    return torch.rand(12, 3, 8, 9, generator=torch.Generator().manual_seed(9)).mul(255).round() / 255


def by_hand(network: Network, images: Tensor, epsilon: float, steps: int, rate: float) -> Tensor:
    """All pictures at each step, one after the other."""
    labels = [int(network(image[None]).argmax()) for image in images.double()]
    change, past = torch.zeros(1, 3, 8, 9, dtype=torch.float64), torch.zeros(1, 3, 8, 9, dtype=torch.float64)
    for _ in range(steps):
        total = torch.zeros_like(change)
        for image, label in zip(images.double(), labels, strict=True):
            moved = change.clone().requires_grad_()
            shares = network((image[None] + moved).clamp(0, 1))[0].softmax(0)
            loss = -shares[label].log()
            if float(loss.detach()) < ENOUGH:
                total += torch.autograd.grad(loss, moved)[0]
        past = MOMENTUM * past + total / total.abs().mean()
        change = (change + rate * past.sign()).clamp(-epsilon, epsilon)
    return (change * 255).round() / 255


def test_the_change_equals_a_slow_one(victim: Network, folder: Tensor) -> None:
    found = universal(victim, folder, epsilon=0.1, held_out=0, rounds=3, batch=12, rate=0.03)
    expected = by_hand(victim, folder, 0.1, 3, 0.03)
    torch.testing.assert_close(found.change.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rates_are_counted_on_the_files(victim: Network, folder: Tensor, norm: str) -> None:
    epsilon = {"linf": 0.12, "l2": 1.5}[norm]
    found = universal(victim, folder, epsilon=epsilon, norm=norm, rounds=8, batch=4, held_out=0.25)
    summary = found.summary
    assert summary[norm] <= epsilon * (1 + 2e-5)
    counts = {"held_out": 0, "seen": 0}
    for place, image in enumerate(folder):
        changed = ((image[None] + found.change).clamp(0, 1) * 255).round() / 255
        with torch.no_grad():
            before, after = (int(victim(picture.double()).argmax()) for picture in (image[None], changed))
        counts["held_out" if place in found.places else "seen"] += before != after
    assert len(found.places) == 3
    assert {which: told["fooled"] for which, told in summary["fooled"].items()} == counts
    assert summary["fooled"]["seen"]["low"] <= summary["fooled"]["seen"]["share"] <= summary["fooled"]["seen"]["high"]
    assert counts["seen"] >= 4
    torch.testing.assert_close(found.originals, folder[list(found.places)])


def test_what_is_held_out_has_no_say(victim: Network, folder: Tensor) -> None:
    first = universal(victim, folder, epsilon=0.1, rounds=2)
    others = folder.clone()
    others[list(first.places)] = 0.5
    assert torch.equal(universal(victim, others, epsilon=0.1, rounds=2).change, first.change)


def test_one_picture_has_none_held_out_and_says_so(victim: Network, folder: Tensor) -> None:
    found = universal(victim, folder[:1], epsilon=0.2, rounds=4)
    assert found.summary["fooled"]["held_out"] is None
    assert "no picture was held out" in found.notes[0]
    assert found.values.shape == (1, 3, 8, 9)
