"""A patch pasted into pictures at random places, sizes and angles: what it is trained over.

``Pasted`` is a parameterization: whenever pictures are asked for, some are drawn and the patch is laid on each anew, so
that gradient ascent climbs the mean over all of them (Brown et al. 2017, section 2: expectation over transformations).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import OptionError

Form = Literal["circle", "square"]
SOFT = 1.0  # pixels over which the patch's edge fades


@dataclass(frozen=True)
class Place:
    """Where a patch lies: the middle in pixels, its side (or diameter) in pixels, and how far it is turned."""

    row: float
    column: float
    side: float
    radians: float


@dataclass(frozen=True)
class Placing:
    """The places that a patch may take in pictures of ``size``: shares of the area, and angles either way."""

    size: tuple[int, int]
    form: Form
    degrees: float

    def side(self, share: float) -> float:
        """Side or diameter, in pixels, of a patch that covers that share of the picture."""
        area = share * self.size[0] * self.size[1]
        return math.sqrt(area) if self.form == "square" else 2 * math.sqrt(area / math.pi)

    def reach(self, side: float, radians: float) -> float:
        """How far it extends from its middle, along rows and columns."""
        return side / 2 * (abs(math.cos(radians)) + abs(math.sin(radians)) if self.form == "square" else 1.0)

    @property
    def most(self) -> float:
        """The largest share that fits at every angle."""
        turned = min(math.radians(self.degrees), math.pi / 4)
        side = min(self.size) / 2 / self.reach(1.0, turned)
        area = side**2 if self.form == "square" else math.pi * side**2 / 4
        return area / (self.size[0] * self.size[1])

    def check(self, share: float) -> None:
        """:class:`OptionError` where a patch of that share is larger than the picture."""
        if share > self.most * (1 + 1e-9):
            height, width = self.size
            turned = f", turned by up to {self.degrees:g} degrees," if self.form == "square" and self.degrees else ""
            raise OptionError(
                f"patch: a {self.form} over {share:.0%} of a picture of {height}x{width}{turned} is larger than the "
                f"picture; give at most {math.floor(self.most * 100) / 100:g}"
            )

    def drawn(self, share: float, generator: torch.Generator) -> Place:
        """A place, uniform among those where all of it lies in the picture."""
        turn, down, across = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        side, radians = self.side(share), math.radians(self.degrees) * (2 * turn - 1)
        reach = self.reach(side, radians)
        row, column = (reach + at * (n - 2 * reach) for at, n in zip((down, across), self.size, strict=True))
        return Place(row, column, side, radians)


def pasted(patch: Tensor, pictures: Tensor, places: Sequence[Place], form: Form) -> Tensor:
    """(N, 3, H, W): ``patch`` (3, h, h) on each picture at its place, differentiable by the patch.

    The patch is read bilinearly, and its edge fades over a pixel.
    """
    height, width = pictures.shape[-2:]
    rows = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float64)[None] + 0.5
    grids, masks = [], []
    for place in places:
        down, right = rows - place.row, columns - place.column
        cos, sin = math.cos(place.radians), math.sin(place.radians)
        y, x = (cos * down - sin * right, sin * down + cos * right)  # along the patch's own sides, in pixels
        away = (y.square() + x.square()).sqrt() if form == "circle" else torch.maximum(y.abs(), x.abs())
        masks.append(((place.side / 2 - away) / SOFT + 0.5).clamp(0, 1))
        grids.append(torch.stack([x, y], 2) * (2 / place.side))
    grid, mask = torch.stack(grids).to(patch), torch.stack(masks)[:, None].to(patch)
    every = patch.expand(len(places), *patch.shape)
    laid = F.grid_sample(every, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return pictures.to(patch) * (1 - mask) + laid * mask


class Pasted:
    """A patch on pictures that are drawn, with its places, whenever they are asked for.

    Args:
        patch: (3, h, h) to begin with, in [0, 1].
        pictures: (N, 3, H, W) of which a batch is drawn each time.
        placing: where it may lie.
        shares: smallest and largest share of the picture, of which each time one is drawn.
        batch: pictures a step.
        seed: of all that.
    """

    def __init__(
        self, patch: Tensor, pictures: Tensor, placing: Placing, *, shares: tuple[float, float], batch: int, seed: int
    ) -> None:
        wide = patch.detach().to(torch.promote_types(patch.dtype, torch.float32))
        self.patch = wide[None].clone().requires_grad_()
        self._pictures, self._placing, self._shares, self._batch = pictures, placing, shares, batch
        self._generator = torch.Generator().manual_seed(seed)

    def parameters(self) -> list[Tensor]:
        return [self.patch]

    def images(self) -> Tensor:
        chosen = torch.randint(len(self._pictures), (self._batch,), generator=self._generator)
        low, high = self._shares
        sizes = low + (high - low) * torch.rand(self._batch, generator=self._generator, dtype=torch.float64)
        places = [self._placing.drawn(share, self._generator) for share in sizes.tolist()]
        shown = self._pictures[chosen].to(self.patch.device)
        return pasted(self.patch[0], shown, places, self._placing.form)

    @torch.no_grad()
    def project(self) -> None:
        self.patch.clamp_(0, 1)


def covered(form: Form, side: int) -> Tensor:
    """(h, h) true where a patch of that form has any colour."""
    at = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    away = (at[:, None].square() + at.square()).sqrt() if form == "circle" else at.abs()[:, None].expand(side, side)
    return away <= side / 2
