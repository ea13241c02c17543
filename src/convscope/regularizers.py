"""What keeps an optimised picture from turning into noise: penalties, and operations between the steps.

A :class:`Penalty` is a number that the objective loses, differentiated with it. An :class:`Operation` changes the
pixels after each step, outside of any gradient. A :class:`Shaping` changes the gradient before the step. Penalties see
the picture itself and not its random views.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from convscope.images import blurred


class Penalty(ABC):
    """A number a picture that the objective loses."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N,)."""


class Sloped(Penalty):
    """One that says its own derivative: torch's way back through its parts takes three times as long."""

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            values, slopes = self.sloped(images.detach())
        return _Known.apply(images, values, slopes)  # type: ignore[no-untyped-call]

    @abstractmethod
    def sloped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) to (N,) and the derivatives by the pixels, (N, 3, H, W)."""


class _Known(torch.autograd.Function):
    """Values whose derivatives are known."""

    no_rectifier = True

    @staticmethod
    def forward(ctx: Any, images: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None]:
        return given.view(-1, 1, 1, 1) * ctx.saved_tensors[0], None, None


class Operation(ABC):
    """A change of the pixels after a step."""

    @abstractmethod
    def __call__(self, pixels: Tensor, gradient: Tensor, number: int) -> Tensor:
        """New pixels (N, 3, H, W) after step ``number``, counted from 0; ``gradient`` is the one of that step."""


class Shaping(ABC):
    """A change of the gradient before a step."""

    @abstractmethod
    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        """The gradient, of the parameters' shape, that the optimiser gets at step ``number``, counted from 0."""


Regularizer: TypeAlias = Penalty | Operation | Shaping


# ---- penalties


@dataclass(frozen=True)
class L2(Sloped):
    """weight * sum of (pixel - centre)^2 (Simonyan 2013, section 2: the L2-regularised image)."""

    weight: float
    centre: float | tuple[float, ...] = 0.0

    def sloped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        away = images - torch.as_tensor(self.centre).to(images).view(1, -1, 1, 1)
        return self.weight * _summed(away.square()), away.mul_(2 * self.weight)


@dataclass(frozen=True)
class TotalVariation(Sloped):
    """weight * sum of ((right - here)^2 + (below - here)^2)^(beta / 2) (Mahendran & Vedaldi 2015, section 2.1).

    Beyond the last row and column the picture goes on as it ends. For beta below 2 a hundred-millionth is added
    under the root, whose slope at zero is infinite.
    """

    weight: float
    beta: float = 2.0

    def sloped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        across, down = images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]
        if self.beta == 2:
            values = _summed(across.square()) + _summed(down.square())
        else:
            squares = torch.zeros_like(images)
            squares[..., :-1] += across.square()
            squares[..., :-1, :] += down.square()
            squares += 1e-8
            values = _summed(squares.pow(self.beta / 2))
            squares = squares.pow_(self.beta / 2 - 1).mul_(self.beta / 2)
            across, down = across * squares[..., :-1], down * squares[..., :-1, :]
        slopes = torch.zeros_like(images)
        slopes[..., 1:] += across
        slopes[..., :-1] -= across
        slopes[..., 1:, :] += down
        slopes[..., :-1, :] -= down
        return self.weight * values, slopes.mul_(2 * self.weight)


@dataclass(frozen=True)
class AlphaNorm(Sloped):
    """weight * sum of abs(pixel - centre)^alpha (Mahendran & Vedaldi 2015, section 2.1: alpha = 6 bounds the range)."""

    weight: float
    alpha: float = 6.0
    centre: float = 0.5

    def sloped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        away = images - self.centre
        squares = away.square()
        if self.alpha >= 4:  # by products
            values, slopes = _summed(squares.pow(self.alpha / 2)), away.mul_(squares.pow_(self.alpha / 2 - 1))
        else:
            values = _summed(away.abs().pow(self.alpha))
            slopes = away.abs().pow(self.alpha - 1).mul_(away.sign())
        return self.weight * values, slopes.mul_(self.weight * self.alpha)


def _summed(values: Tensor) -> Tensor:
    """(N, ...) to (N,)."""
    return values.flatten(1).sum(1)


#: what colours are projected on: single channels, their sums and differences
AXES = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1),
        (1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))  # fmt: skip
COARSER = (1, 2, 4, 8, 16)  # how much coarser pictures are whose colours are compared


@dataclass(frozen=True)
class Colours(Sloped):
    """weight * squared distance of a picture's colours from another's, or from a mixture of several, fine and coarse.

    It is the squared sliced Wasserstein distance (Rabin et al. 2011; Heitz et al. 2021 compare features so), of pixels
    and of means of 2 to 16 pixels a side: projected on each of :data:`AXES`, both pictures' colours are put in order,
    and their mean squared difference is averaged over resolutions. Where colours lie does not matter. The first filters
    of many networks see edges alone, so that none of their layers knows whether a plain sky is blue.

    Args:
        weight: of the square of a distance in the range [0, 1].
        like: (1, 3, h, w) or (N, 3, h, w), the other picture, or one each; or several such.
        shares: of each of several, which sum to 1.
        coarser: how many pixels a side are averaged; those that are larger than a picture are left out, and where all
            are, single pixels are compared.
    """

    weight: float
    like: Tensor | Sequence[Tensor]
    shares: Sequence[float] = (1.0,)
    coarser: tuple[int, ...] = COARSER

    def sloped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        smallest = min(side for picture in (images, *self._pictures) for side in picture.shape[2:])
        scales = [c for c in self.coarser if c <= smallest] or [1]
        total, slopes = images.new_zeros(len(images)), torch.zeros_like(images)
        for coarser in scales:
            if coarser not in self._ordered:  # once for all steps
                self._ordered[coarser] = self._mixed(coarser)
            axes, projected = axes_like(images), projected_colours(images, coarser)
            apart = projected - ranked(projected, self._ordered[coarser].to(images))
            total += apart.square().mean((1, 2))
            step = 2 if coarser == 1 else coarser
            rows, columns = (length // coarser if coarser > 1 else -(-length // 2) for length in images.shape[2:])
            back = (axes.T @ apart).mul_(2 / apart[0].numel()).view(len(images), -1, rows, columns)
            if coarser == 1:
                slopes[..., ::2, ::2] += back
            else:
                inside = slopes[..., : rows * step, : columns * step].unflatten(3, (columns, step))
                inside.unflatten(2, (rows, step)).add_(back[:, :, :, None, :, None], alpha=1 / step**2)
        share = self.weight / len(scales)
        return share * total, slopes.mul_(share)

    @cached_property
    def _ordered(self) -> dict[int, Tensor]:
        """Coarseness to what is wanted, (1 or N, axes, n)."""
        return {}

    @property
    def _pictures(self) -> Sequence[Tensor]:
        return [self.like] if isinstance(self.like, Tensor) else self.like

    def _mixed(self, coarser: int) -> Tensor:
        """As many of the colours of each picture as its share says."""
        ordered = [sorted_colours(picture, coarser) for picture in self._pictures]
        if len(ordered) == 1:
            return ordered[0]
        most = max(each.shape[2] for each in ordered)
        counts = [max(1, round(share * most)) for share in self.shares]
        return torch.cat([as_many(o, count) for o, count in zip(ordered, counts, strict=True)], 2).sort(2).values


def axes_like(images: Tensor) -> Tensor:
    """(axes, 3): :data:`AXES` at length 1."""
    return F.normalize(torch.tensor(AXES, dtype=torch.float32), dim=1).to(images)


def projected_colours(images: Tensor, coarser: int) -> Tensor:
    """(N, axes, n) projections of a coarser picture's colours on :data:`AXES`; of the picture itself every second row
    and column."""
    return on_axes(images[..., ::2, ::2] if coarser == 1 else F.avg_pool2d(images, coarser))


def on_axes(planes: Tensor) -> Tensor:
    """(N, axes, n) projections of (N, 3, h, w) on :data:`AXES`."""
    return axes_like(planes) @ planes.flatten(2)


def sorted_colours(images: Tensor, coarser: int) -> Tensor:
    """The same in ascending order."""
    return projected_colours(images, coarser).sort(2).values


def as_many(ordered: Tensor, count: int) -> Tensor:
    """(..., count) of (..., n) sorted numbers, evenly spread."""
    places = torch.linspace(0, ordered.shape[-1] - 1, count, device=ordered.device).round().long()
    return ordered[..., places]


def ranked(projected: Tensor, wanted: Tensor) -> Tensor:
    """(N, axes, n): for each number the one of the sorted (N or 1, axes, m) that has its rank."""
    ordered = as_many(wanted, projected.shape[2]).expand_as(projected)
    return torch.empty_like(ordered).scatter_(2, order_of(projected), ordered)


def colour_distance(projected: Tensor, wanted: Tensor) -> Tensor:
    """(N,) squared, of (N, axes, n) from sorted (N or 1, axes, m): each number is compared with that of its rank."""
    return (projected - ranked(projected.detach(), wanted)).square().mean((1, 2))


def order_of(values: Tensor) -> Tensor:
    """Where the smallest, the next, ... of the last dim stand; on a CPU by NumPy, which takes a fifth of the time."""
    values = values.detach()
    if values.device.type != "cpu":
        return values.argsort()
    return torch.from_numpy(np.argsort(values.numpy()))


# ---- operations between steps (Yosinski et al. 2015, section 3, in the published order)


@dataclass(frozen=True)
class Decay(Operation):
    """Pixels times (1 - rate)."""

    rate: float

    def __call__(self, pixels: Tensor, gradient: Tensor, number: int) -> Tensor:
        return pixels * (1 - self.rate)


@dataclass(frozen=True)
class Blur(Operation):
    """Gaussian blur of standard deviation ``width`` pixels at every ``every``-th step, the first included."""

    width: float
    every: int = 1

    def __call__(self, pixels: Tensor, gradient: Tensor, number: int) -> Tensor:
        return blurred(pixels, self.width) if self.width > 0 and number % self.every == 0 else pixels


@dataclass(frozen=True)
class ClipSmallNorm(Operation):
    """Pixels whose length over colours is below this percentile become zero."""

    percentile: float

    def __call__(self, pixels: Tensor, gradient: Tensor, number: int) -> Tensor:
        return _kept_above(pixels, pixels.square().sum(1).sqrt(), self.percentile)


@dataclass(frozen=True)
class ClipSmallContribution(Operation):
    """Pixels become zero whose removal would change the score by less than this percentile.

    To first order, that change is abs(sum over colours of pixel * gradient).
    """

    percentile: float

    def __call__(self, pixels: Tensor, gradient: Tensor, number: int) -> Tensor:
        return _kept_above(pixels, (pixels * gradient).sum(1).abs(), self.percentile)


@dataclass(frozen=True)
class Denoise(Operation):
    """Total-variation denoising after each step (Nguyen et al. 2016, section 3.2; Goldstein & Osher 2009).

    ``weight`` goes from ``start`` to ``end`` over ``steps``; the smaller it is, the smoother the picture becomes. It is
    that of :func:`skimage.restoration.denoise_tv_bregman` for values between 0 and 255.
    """

    start: float
    end: float
    steps: int

    def __call__(self, pixels: Tensor, gradient: Tensor, number: int) -> Tensor:
        from skimage.restoration import denoise_tv_bregman

        weight = ramp(self.start, self.end, number, self.steps)
        planes = pixels.detach().cpu().double().permute(0, 2, 3, 1).numpy() * 255
        smooth = [denoise_tv_bregman(p, weight=weight, max_num_iter=100, eps=1e-3, channel_axis=-1) for p in planes]
        return torch.stack([torch.from_numpy(p) for p in smooth]).permute(0, 3, 1, 2).to(pixels) / 255


def ramp(start: float, end: float, number: int, steps: int) -> float:
    """From ``start`` at the first of ``steps`` to ``end`` at the last, in a straight line."""
    return start + (end - start) * min(1.0, number / max(1, steps - 1))


def _kept_above(pixels: Tensor, size: Tensor, percentile: float) -> Tensor:
    """Pixels (N, C, H, W), zero where ``size`` (N, H, W) is below its percentile."""
    if percentile <= 0:
        return pixels
    order = size.flatten(1).sort(1).values
    place = percentile / 100 * (order.shape[1] - 1)
    low = order[:, int(place)]
    border = low + (order[:, min(int(place) + 1, order.shape[1] - 1)] - low) * (place - int(place))
    return torch.where(size[:, None] < border.view(-1, 1, 1, 1), 0, pixels)


# ---- shapes of a gradient


@dataclass(frozen=True)
class MeanOne(Shaping):
    """Divided by its mean absolute value, each picture's by its own (Mordvintsev 2015)."""

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        size = gradient.abs().flatten(1).mean(1).view(-1, *[1] * (gradient.ndim - 1))
        return gradient / torch.where(size > 0, size, 1)


@dataclass(frozen=True)
class UnitLength(Shaping):
    """Divided by its Euclidean length, each picture's by its own."""

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        size = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        return gradient / torch.where(size > 0, size, 1)


@dataclass(frozen=True)
class Sign(Shaping):
    """Its sign: every number moves alike (Goodfellow 2014, section 4)."""

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        return gradient.sign()


@dataclass(frozen=True)
class Smooth(Shaping):
    """Blurred by a Gaussian of ``width`` pixels."""

    width: float

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        return blurred(gradient, self.width)


@dataclass(frozen=True)
class Ramp(Shaping):
    """Times a factor from ``start`` to ``end`` over ``steps``: a schedule of the step's size."""

    start: float
    end: float
    steps: int

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        return gradient * ramp(self.start, self.end, number, self.steps)


@dataclass(frozen=True)
class Frame(Shaping):
    """Zero in a frame of ``margin``, as a share of the shorter side: only the middle of the picture changes."""

    margin: float

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        width = int(self.margin * min(gradient.shape[-2:]))
        inside = torch.zeros_like(gradient)
        inside[..., width : gradient.shape[-2] - width, width : gradient.shape[-1] - width] = 1
        return gradient * inside


@dataclass(frozen=True)
class CentreBias(Shaping):
    """Weighted by a Gaussian about the centre that widens as the steps go on (Nguyen et al. 2016, section 3.2).

    Standard deviation, as a share of the sides: from ``start`` at the first step to ``end`` at step ``steps``.
    """

    steps: int
    start: float = 0.15
    end: float = 0.5

    def __call__(self, gradient: Tensor, number: int) -> Tensor:
        share = ramp(self.start, self.end, number, self.steps)
        sides = [torch.linspace(-0.5, 0.5, side, device=gradient.device) for side in gradient.shape[-2:]]
        distance = sides[0][:, None].square() + sides[1].square()
        return gradient * torch.exp(-distance / (2 * share**2)).to(gradient)
