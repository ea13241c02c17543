"""Random views of a picture while it is optimised: jitter, rolls, rotation, scaling, padding, crops and noise.

A picture that excites a unit only as it stands shows what the network cannot tell from noise; one that does so
however it is shifted, turned and scaled shows more (Mordvintsev 2015; Olah et al. 2017, "Transformation robustness").

Consecutive geometric views are one resampling: each says where its pixels come from, and :func:`viewed` joins these
maps before any pixel is read. All pictures of a batch get the same view, so none depends on its neighbours, and the
sizes do not change from step to step. Randomness comes from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = 0.5  # what lies outside a picture


@dataclass(frozen=True)
class _View:
    """Where the pixels of ``size`` views come from: (3, 3) from view to picture, in pixels from the centre."""

    size: tuple[int, int]
    matrix: Tensor


def _affine(angle: float = 0.0, zoom: float = 1.0, down: float = 0.0, right: float = 0.0) -> Tensor:
    """From a view that is turned by ``angle`` (radians), enlarged by ``zoom`` and shifted, back to the picture."""
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    return torch.tensor([[cos, -sin, right], [sin, cos, down], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _whole(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


@dataclass(frozen=True)
class Pad:
    """``pixels`` of mid-grey on every side."""

    pixels: int

    def __call__(self, view: _View, generator: torch.Generator) -> _View:
        height, width = view.size
        return _View((height + 2 * self.pixels, width + 2 * self.pixels), view.matrix)


@dataclass(frozen=True)
class Jitter:
    """A window ``pixels`` smaller than the picture, anywhere in it: a shift by whole pixels."""

    pixels: int

    def __call__(self, view: _View, generator: torch.Generator) -> _View:
        down, right = (_whole(0, self.pixels, generator) - self.pixels / 2 for _ in range(2))
        size = (max(1, view.size[0] - self.pixels), max(1, view.size[1] - self.pixels))
        return _View(size, view.matrix @ _affine(down=down, right=right))


@dataclass(frozen=True)
class Shift:
    """The picture shifted by up to ``pixels`` each way, in a frame that stays; what leaves is lost, grey comes in."""

    pixels: int

    def __call__(self, view: _View, generator: torch.Generator) -> _View:
        down, right = (float(_whole(-self.pixels, self.pixels, generator)) for _ in range(2))
        return _View(view.size, view.matrix @ _affine(down=down, right=right))


@dataclass(frozen=True)
class Rotate:
    """Turned about the centre by up to ``degrees`` either way; ``still`` is the share of steps without."""

    degrees: float
    still: float = 0.0

    def __call__(self, view: _View, generator: torch.Generator) -> _View:
        angle = _between(-self.degrees, self.degrees, generator)
        angle = 0.0 if _between(0, 1, generator) < self.still else angle
        return _View(view.size, view.matrix @ _affine(angle=math.radians(angle)))


@dataclass(frozen=True)
class Scale:
    """Enlarged about the centre by a factor between ``low`` and ``high``, in a frame that stays."""

    low: float
    high: float

    def __call__(self, view: _View, generator: torch.Generator) -> _View:
        return _View(view.size, view.matrix @ _affine(zoom=_between(self.low, self.high, generator)))


@dataclass(frozen=True)
class Crops:
    """``count`` square-ish windows a step, each of a share between ``low`` and ``high`` of the sides, enlarged to all.

    The objective is averaged over them (Fel et al. 2023, section 3.2). Centres are normal around the picture's, with
    ``spread`` of its side as standard deviation. ``size`` is what they are scaled to, the picture's own if left out.
    """

    count: int
    low: float
    high: float
    spread: float = 0.1
    size: tuple[int, int] | None = None

    def views(self, view: _View, generator: torch.Generator) -> list[_View]:
        return [self._one(view, generator) for _ in range(self.count)]

    def _one(self, view: _View, generator: torch.Generator) -> _View:
        share = _between(self.low, self.high, generator)
        places = [
            float(torch.randn((), generator=generator)) * self.spread * side for side in (view.size[0], view.size[1])
        ]
        room = [(1 - share) / 2 * side for side in view.size]
        down, right = (max(-most, min(most, place)) for place, most in zip(places, room, strict=True))
        size = self.size or view.size
        zoom = max(size[0] / view.size[0], size[1] / view.size[1]) / share
        return _View(size, view.matrix @ _affine(down=down, right=right) @ _affine(zoom=zoom))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of standard deviation ``spread`` on every view, of the range [0, 1]."""

    spread: float


@dataclass(frozen=True)
class Roll:
    """The picture itself moved by up to ``pixels`` each way; what leaves on one side comes in on the other.

    Rolls come before all views, wherever they stand among them (Mordvintsev 2015: the jitter of DeepDream).
    """

    pixels: int

    def of(self, images: Tensor, generator: torch.Generator) -> Tensor:
        down, right = (_whole(-self.pixels, self.pixels, generator) for _ in range(2))
        return images.roll((down, right), (-2, -1)) if self.pixels else images


Transform: TypeAlias = Roll | Pad | Jitter | Shift | Rotate | Scale | Crops | Noise

#: What lucid does to a picture at each step (Olah et al. 2017, appendix; with one resampling for all, not one each).
ROBUST = (Pad(12), Jitter(8), Scale(0.9, 1.1), Rotate(10, still=0.2), Jitter(4))


def viewed(
    images: Tensor, transforms: Sequence[Transform], generator: torch.Generator, *, size: tuple[int, int] | None = None
) -> Tensor:
    """(N, 3, H, W) as (N, 3, h, w), or (K N, 3, h, w) with crops: all N in the first crop, then in the second.

    Args:
        images: what to look at.
        transforms: in the order in which they happen.
        generator: of their randomness, on the CPU.
        size: of the views, their middle cut out or padded to it; as the transforms leave it for None.
    """
    for roll in (t for t in transforms if isinstance(t, Roll)):
        images = roll.of(images, generator)
    views = [_View((images.shape[-2], images.shape[-1]), torch.eye(3, dtype=torch.float64))]
    for transform in transforms:
        if isinstance(transform, Crops):
            views = [part for view in views for part in transform.views(view, generator)]
        elif not isinstance(transform, (Noise, Roll)):
            views = [transform(view, generator) for view in views]
    parts = [_resampled(images, view.matrix, size or view.size) for view in views]
    found = torch.cat(parts) if len(parts) > 1 else parts[0]
    for noise in (t for t in transforms if isinstance(t, Noise)):
        drawn = torch.randn(len(views), *found.shape[1:], generator=generator)
        found = found + noise.spread * drawn.repeat_interleave(len(images), 0).to(found)
    return found


def _resampled(images: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture behind each pixel of a view of ``size``; a pure shift by whole pixels reads them as they are."""
    moved = matrix[:2, 2].flip(0) - torch.tensor([(o - i) / 2 for o, i in zip(size, images.shape[-2:], strict=True)])
    if torch.equal(matrix[:2, :2], torch.eye(2, dtype=torch.float64)) and bool((moved == moved.round()).all()):
        return _shifted(images, int(moved[0]), int(moved[1]), size)
    height, width = images.shape[-2:]
    # affine_grid counts in half sides from the centre; outside is grey.
    inward = torch.diag(torch.tensor([2 / width, 2 / height, 1.0], dtype=torch.float64))
    outward = torch.diag(torch.tensor([size[1] / 2, size[0] / 2, 1.0], dtype=torch.float64))
    theta = (inward @ matrix @ outward)[:2].to(images).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, [len(images), images.shape[1], *size], align_corners=False)
    return GREY + F.grid_sample(images - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _shifted(images: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """The window of ``size`` whose corner is at (top, left), grey outside the picture."""
    height, width = images.shape[-2:]
    pads = (-left, left + size[1] - width, -top, top + size[0] - height)
    return F.pad(images - GREY, pads) + GREY if any(pads) else images
