"""Steps in the direction that lowers the loss fastest among all of one length, with or without momentum."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from convscope.parameterizations import Norm


class Steepest(Optimizer):
    """Every step of the same length ``rate``, in L-inf or L2, for each picture by itself.

    In ``linf`` that is the sign of the gradient (Goodfellow et al. 2015, section 4), in ``l2`` the gradient over its
    length. With ``momentum`` it is that of the sum g <- momentum * g + gradient / mean of its absolute values (Dong et
    al. 2018, equations 6 and 7).

    Args:
        parameters: (N, ...) each.
        rate: length of a step.
        norm: in which it is measured.
        momentum: share of the past that is kept.
    """

    def __init__(
        self, parameters: list[Tensor], rate: float, *, norm: Norm = "linf", momentum: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": rate})
        self._norm, self._momentum = norm, momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """One evaluation, one step."""
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                slope = self._gathered(parameter) if self._momentum else parameter.grad
                parameter.add_(direction(slope, self._norm), alpha=-group["lr"])
        return loss

    def _gathered(self, parameter: Tensor) -> Tensor:
        assert parameter.grad is not None
        size = parameter.grad.abs().flatten(1).mean(1).view(-1, *[1] * (parameter.ndim - 1))
        now = parameter.grad / torch.where(size > 0, size, 1)
        before = self.state[parameter].get("momentum")
        found = now if before is None else now.add_(before, alpha=self._momentum)
        self.state[parameter]["momentum"] = found
        return found


def direction(slope: Tensor, norm: Norm) -> Tensor:
    """(N, ...) of length 1 in ``norm``: nowhere does a linear function of that ``slope`` rise faster."""
    if norm == "linf":
        return slope.sign()
    length = slope.flatten(1).norm(dim=1).clamp(min=1e-12)
    return slope / length.view(-1, *[1] * (slope.ndim - 1))
