from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convscope.techniques.robustness._steepest import Steepest, direction


def slopes(count: int = 3) -> Tensor:
    return torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_direction_of_that_length_rises_faster(norm: str) -> None:
    slope = slopes()
    best = (direction(slope, norm) * slope).flatten(1).sum(1)
    for seed in range(50):
        other = torch.randn(slope.shape, generator=torch.Generator().manual_seed(seed))
        length = other.flatten(1).norm(dim=1, p=2 if norm == "l2" else torch.inf).view(-1, 1, 1)
        assert bool(((other / length * slope).flatten(1).sum(1) <= best + 1e-6).all())


def test_a_slope_of_zero_moves_nothing() -> None:
    for norm in ("linf", "l2"):
        assert not direction(torch.zeros(2, 3), norm).any()


@pytest.mark.parametrize(("norm", "length"), [("linf", torch.inf), ("l2", 2)])
def test_a_step_has_the_length_of_the_rate(norm: str, length: float) -> None:
    moved = torch.zeros(3, 2, 3, requires_grad=True)
    optimizer = Steepest([moved], 0.25, norm=norm)
    moved.grad = slopes()
    optimizer.step(lambda: 0.0)
    torch.testing.assert_close(moved.detach().flatten(1).norm(dim=1, p=length), torch.full((3,), 0.25))
    assert bool((moved.detach() * slopes()).flatten(1).sum(1).lt(0).all())  # downhill


def test_momentum_adds_up_what_was_before() -> None:
    moved = torch.zeros(1, 2, requires_grad=True)
    optimizer = Steepest([moved], 1.0, momentum=0.5)
    for slope in ([3.0, -1.0], [-1.0, -1.0]):  # over their means [1.5, -0.5] and [-1, -1]; together [-0.25, -1.25]
        moved.grad = torch.tensor([slope])
        optimizer.step(lambda: 0.0)
    assert moved.tolist() == [[0.0, 2.0]]
