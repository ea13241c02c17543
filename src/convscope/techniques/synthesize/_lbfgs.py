"""L-BFGS for pictures: no line search, steps of bounded length, and little more than reading its memory twice.

The direction is that of the two loops (Nocedal & Wright 2006, algorithm 7.4) over the last ``memory`` pairs of
s = x - x_before and y = g - g_before. As only inner products enter them, the loops run on a matrix of these (Chen, Wang
& Zhou 2014, "Large-scale L-BFGS using MapReduce"), which two passes over the pairs give.

A pass forward and back is what a step costs, so none is spent on a line search. Instead no step is longer than ``most``
of the length of x, a pair is kept only where the slope has risen along it (s y > 0.001 |s| |y|), and as long as there
are no pairs the step goes along the gradient, ``first`` of the length of x, each time twice as far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

FLATTEST = 1e-3  # cosine between s and y below which a pair says nothing of the curvature


class LBFGS(Optimizer):
    """Of one tensor or several that belong together.

    Args:
        parameters: what is moved.
        rate: of the full step.
        memory: pairs that are kept.
        first: length of the first step, of that of x.
        most: length of the longest step, of that of x.
    """

    def __init__(
        self, parameters: list[Tensor], rate: float = 1.0, *, memory: int = 10, first: float = 0.02, most: float = 0.25
    ) -> None:
        super().__init__(parameters, {"lr": rate})
        self._memory, self._first, self._most = memory, first, most

    @torch.no_grad()
    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """One evaluation, one step."""
        with torch.enable_grad():
            loss = closure()
        moved = [p for group in self.param_groups for p in group["params"]]
        here = torch.cat([p.flatten() for p in moved])
        slope = torch.cat([p.grad.flatten() for p in moved])
        change = self._change(self.state[moved[0]], here, slope)
        for parameter, part in zip(moved, change.split([p.numel() for p in moved]), strict=True):
            parameter.add_(part.view_as(parameter))
        return loss

    def _change(self, state: dict[str, Any], here: Tensor, slope: Tensor) -> Tensor:
        """What is added to x."""
        place = None
        if not state:
            state.update(pairs=here.new_zeros(2 * self._memory, len(here)), count=0, refused=0)
            state["products"] = here.new_zeros(2 * self._memory, 2 * self._memory, device="cpu")
        else:
            place = self._remembered(state, here - state["here"], slope - state["slope"])
        state["here"], state["slope"] = here.clone(), slope.clone()
        rate, size = self.param_groups[0]["lr"], here.norm()
        if state["count"]:
            found = self._direction(state, slope, self._met(state, slope, place)).mul_(-rate)
        else:
            found = slope * (-rate * self._first * 2 ** state["refused"] * size / slope.norm().clamp(min=1e-30))
        return found.mul_((self._most * size / found.norm().clamp(min=1e-30)).clamp(max=1))

    def _remembered(self, state: dict[str, Any], s: Tensor, y: Tensor) -> int | None:
        """The row of the pair, put in place of the oldest one; rows are s and y of each in turn."""
        product, *squares = torch.stack([s @ y, s @ s, y @ y]).tolist()  # all at once: a GPU is waited for
        if product <= FLATTEST * math.sqrt(math.prod(squares)):
            state["refused"] += 1
            return None
        place = 2 * (state["count"] % self._memory)
        state["pairs"][place], state["pairs"][place + 1] = s, y
        state["count"] += 1
        return place

    def _met(self, state: dict[str, Any], slope: Tensor, place: int | None) -> Tensor:
        """The pairs' products with g; in the same pass over them those of the new pair, if any, are kept."""
        pairs = state["pairs"]
        if place is None:
            return (pairs @ slope).cpu().double()
        found = (torch.cat([pairs[place : place + 2], slope[None]]) @ pairs.T).cpu()
        products = state["products"] = state["products"].cpu()  # a state that was loaded has it on the device
        products[place : place + 2], products[:, place : place + 2] = found[:2], found[:2].T
        return found[2].double()

    def _direction(self, state: dict[str, Any], slope: Tensor, with_slope: Tensor) -> Tensor:
        """H g, by the two loops on the coefficients of g and the pairs."""
        pairs, count = state["pairs"], state["count"]
        products, met = state["products"].double().cpu().numpy(), with_slope.numpy()
        places = [2 * (number % self._memory) for number in range(max(0, count - self._memory), count)]
        weights = np.zeros(len(pairs))
        shares: list[float] = []
        for place in reversed(places):
            shares.append((products[place] @ weights + met[place]) / products[place, place + 1])
            weights[place + 1] -= shares[-1]
        last = places[-1]
        scale = float(products[last, last + 1] / products[last + 1, last + 1])
        weights *= scale
        for place, share in zip(places, reversed(shares), strict=True):
            back = products[place + 1] @ weights + scale * met[place + 1]
            weights[place] += share - back / products[place, place + 1]
        return torch.from_numpy(weights).to(slope) @ pairs + scale * slope
