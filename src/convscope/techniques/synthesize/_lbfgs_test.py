from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convscope.techniques.synthesize._lbfgs import LBFGS


def valley(x: Tensor) -> Tensor:
    """Bent and narrow (Rosenbrock), in many dimensions."""
    return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()


def slope_of(x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(valley(x), x)[0]


def minimised(optimizer: LBFGS, x: Tensor, steps: int) -> list[Tensor]:
    def closure() -> float:
        x.grad = slope_of(x)
        return float(valley(x.detach()))

    found = []
    for _ in range(steps):
        optimizer.step(closure)
        found.append(x.detach().clone())
    return found


def by_hand(x: Tensor, steps: int, memory: int, first: float, most: float) -> list[Tensor]:
    """The two loops as Nocedal & Wright print them."""
    pairs: list[tuple[Tensor, Tensor]] = []
    before: tuple[Tensor, Tensor] | None = None
    found, refused = [], 0
    for _ in range(steps):
        slope = slope_of(x)
        if before is not None:
            s, y = x - before[0], slope - before[1]
            if s @ y > 1e-3 * s.norm() * y.norm():
                pairs = [*pairs, (s, y)][-memory:]
            else:
                refused += 1
        before, q, shares = (x, slope), slope.clone(), []
        for s, y in reversed(pairs):
            shares.append((s @ q) / (y @ s))
            q = q - shares[-1] * y
        q = q * (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1]) if pairs else q
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            q = q + s * (share - (y @ q) / (y @ s))
        length = q.norm() if pairs else first * 2**refused * x.norm()
        x = x - q / q.norm() * min(length, most * x.norm())
        found.append(x)
    return found


@pytest.mark.parametrize("memory", [1, 3, 20])
def test_steps_are_those_of_the_two_loops(memory: int) -> None:
    start = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = by_hand(start, 25, memory, 0.01, 0.2)
    x = start.clone().requires_grad_()
    found = minimised(LBFGS([x], memory=memory, first=0.01, most=0.2), x, 25)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-6, atol=1e-9)


def test_it_comes_to_the_bottom_of_a_bent_valley() -> None:
    x = torch.full((6,), -0.5, dtype=torch.float64, requires_grad=True)
    last = minimised(LBFGS([x]), x, 300)[-1]
    torch.testing.assert_close(last, torch.ones(6, dtype=torch.float64), atol=1e-4, rtol=0)


def test_no_step_is_longer_than_allowed_and_several_tensors_count_as_one() -> None:
    start = torch.tensor([3.0, -4.0, 5.0, 1.0], dtype=torch.float64)
    whole, parts = start.clone().requires_grad_(), [p.clone().requires_grad_() for p in start.split([1, 3])]
    one, several = LBFGS([whole], most=0.1), LBFGS(list(parts), most=0.1)
    for _ in range(8):
        before = whole.detach().clone()
        minimised(one, whole, 1)

        def closure() -> float:
            slope = slope_of(torch.cat([p.detach() for p in parts]))
            parts[0].grad, parts[1].grad = slope[:1], slope[1:]
            return 0.0

        several.step(closure)
        assert (whole.detach() - before).norm() <= 0.1 * before.norm() + 1e-12
        torch.testing.assert_close(torch.cat([p.detach() for p in parts]), whole.detach())


def test_it_goes_on_from_a_saved_state() -> None:
    start = torch.full((5,), -0.5, dtype=torch.float64)
    x = start.clone().requires_grad_()
    expected = minimised(LBFGS([x], memory=3), x, 20)[-1]
    y = start.clone().requires_grad_()
    first = LBFGS([y], memory=3)
    minimised(first, y, 9)
    second = LBFGS([y], memory=3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(minimised(second, y, 11)[-1], expected)


def test_without_a_slope_it_stays() -> None:
    x = torch.ones(4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(minimised(LBFGS([x]), x, 3)[-1], torch.ones(4, dtype=torch.float64))
