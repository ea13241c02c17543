"""The numbers that tell a layer that works from one that does not, and what they usually mean.

``filters`` and ``gradients`` show them for a network as it is, ``health`` for one that has seen a whole data set, and
the monitor while it learns. The readings follow CS231n (Neural networks 1 to 3; Understanding and visualizing networks)
and Glorot & Bengio 2010, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOISY = 0.25  # mean smoothness below which a layer's filters are called noisy; independent noise has 0
DEAD, MANY_DEAD = 0.05, 0.4  # share of a layer's channels: worth saying, and of "as much as 40 %" (CS231n)
FAST, SLOW = 1e-2, 1e-5  # of one step's change of weights over their size; about 1e-3 is right (CS231n)
VANISHED = 1e-3  # of the gradient's size, from the last layer to the first


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: where, what was measured, and what that usually means."""

    where: str
    sign: str
    meaning: str
    grave: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.sign}; {self.meaning}"


# ---- what is measured


def smoothness(weights: Tensor) -> Tensor:
    """(outputs,) one minus half of von Neumann's ratio of each filter, over both directions and all inputs.

    Von Neumann's ratio (1941) is the mean squared step between neighbours over the variance. Independent noise has a
    smoothness of 0 on average, whatever its scale; a constant slope comes close to 1.

    ``weights`` is (outputs, inputs, kh, kw). NaN for 1x1 filters, and 0 for a filter that is constant zero.
    """
    steps = [d for d in (weights.diff(dim=2).flatten(1), weights.diff(dim=3).flatten(1)) if d.shape[1]]
    if not steps:
        return torch.full((len(weights),), torch.nan)
    centred = weights - weights.mean((2, 3), keepdim=True)
    count = weights.shape[2] * weights.shape[3]
    variance = centred.square().sum((1, 2, 3)) / (weights.shape[1] * (count - 1))
    ratio = torch.cat(steps, 1).square().mean(1) / variance.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(variance > 0, 1 - ratio / 2, torch.zeros((), device=weights.device))


@dataclass
class Moments:
    """Sums over pictures, from which mean, spread and share of zeros follow."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    zeros: int = 0

    def add(self, values: Tensor) -> None:
        values = values.detach().double()
        self.count += values.numel()
        self.total += float(values.sum())
        self.squares += float(values.square().sum())
        self.zeros += int((values == 0).sum())

    @property
    def statistics(self) -> tuple[float, float, float]:
        mean = self.total / self.count
        return mean, math.sqrt(max(self.squares / self.count - mean * mean, 0.0)), self.zeros / self.count


def size_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """The Euclidean size of one over that of the other, as a scalar; NaN for 0 over 0."""
    return part.detach().norm() / whole.detach().norm()


def channels_last(output: Tensor) -> Tensor:
    """(positions of all pictures, channels) of a layer's output (N, C, ...), (N, T, C) or (N, C)."""
    output = output if output.ndim == 3 else output.movedim(1, -1)
    return output.flatten(0, -2)


# ---- what it means


def dead_channels(where: str, share: float, seen: str) -> Finding | None:
    """A finding where many channels never answered to anything of what was seen (``"8,242 pictures"``)."""
    if not share >= DEAD:
        return None
    return Finding(
        where, f"{share:.0%} of the channels never rise above zero in {seen}".replace("%", " %"),
        "units die when the learning rate is too high or the biases start too low, and rarely come back: lower the "
        "rate or warm it up, use a normalisation, or cut them off, since they cost time and say nothing",
        grave=share >= MANY_DEAD,
    )  # fmt: skip


def noisy_filters(where: str, mean: float, noise: float = 0.0) -> Finding | None:
    """A finding where filters are hardly smoother than noise; ``noise`` is what the same weights have when shuffled."""
    if not mean < NOISY:
        return None
    return Finding(
        where, f"filters have a smoothness of {mean:.2f}, and noise has {noise:.2f}",
        "noisy filters mean too little training, too little regularisation or too high a learning rate: train longer, "
        "and add weight decay", grave=mean < NOISY / 2,
    )  # fmt: skip


def together(found: Sequence[Finding]) -> list[Finding]:
    """Findings of the same meaning as one, the grave first and the rest in their order."""
    groups: dict[tuple[str, bool], list[Finding]] = {}
    for finding in found:
        groups.setdefault((finding.meaning, finding.grave), []).append(finding)
    merged = [
        Finding(_listed([f.where for f in group]), _first(group), meaning, grave)
        for (meaning, grave), group in groups.items()
    ]
    return sorted(merged, key=lambda finding: not finding.grave)


def _first(group: Sequence[Finding]) -> str:
    return group[0].sign + (" (in the first of them)" if len(group) > 1 else "")


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def update_size(where: str, ratio: float) -> Finding | None:
    """A finding where a training step changes weights by too much or by next to nothing of their size."""
    if ratio > FAST:
        return Finding(
            where, f"one step changes the weights by {ratio:.1g} of their size, and about 0.001 is usual",
            "the learning rate is too high for this layer: lower it, or warm it up", grave=ratio > 10 * FAST,
        )  # fmt: skip
    if ratio < SLOW:
        return Finding(
            where, f"one step changes the weights by {ratio:.1g} of their size, and about 0.001 is usual",
            "the layer hardly learns: the learning rate is too low, or its gradient has vanished",
        )  # fmt: skip
    return None


def gradient_flow(first: str, last: str, ratio: float) -> Finding | None:
    """A finding where the loss's gradient shrinks or grows by orders of magnitude from the last layer to the first."""
    if ratio < VANISHED:
        return Finding(
            f"{last} to {first}", f"the gradient shrinks to {ratio:.1g} on the way back to the first layer",
            "the early layers starve: begin with larger weights (He), add normalisation or shortcuts", grave=ratio == 0,
        )  # fmt: skip
    if ratio > 1 / VANISHED:
        return Finding(
            f"{last} to {first}", f"the gradient grows {ratio:.1g} times on the way back to the first layer",
            "it explodes: begin with smaller weights, clip gradients, add normalisation", grave=True,
        )  # fmt: skip
    return None
