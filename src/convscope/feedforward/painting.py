"""A stylist at work on pictures of any size, in one pass; in tiles where the memory for one would not be enough."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from convscope import memory, progress
from convscope.batching import is_out_of_memory
from convscope.feedforward.files import chosen, find, read_stylist
from convscope.feedforward.stylist import STEP, Moments, StyleNorm, Stylist, moments
from convscope.network import fast_in_bfloat16
from convscope.zoo.options import on_device

MOST = 2**22  # pixels that are painted in one pass, at some 220 bytes each
TILE = 1024  # side of a tile, in pixels
SAMPLES = 4  # rows and columns of crops that stand for the whole


@dataclass(frozen=True)
class Brush:
    """A stylist that was loaded, and which of its styles is meant."""

    stylist: Stylist
    style: int
    source: str

    @property
    def name(self) -> str:
        """As files and titles call it."""
        return self.stylist.names[self.style]

    @property
    def precision(self) -> str:
        """bfloat16 where the device is fast in it: it moves a pixel by a third of a step of 255 on average."""
        return "bfloat16" if fast_in_bfloat16(next(self.stylist.parameters()).device) else "float32"

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) in [0, 1] -> the same size and range, on the CPU."""
        device = next(self.stylist.parameters()).device
        rough = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.no_grad(), rough, memory.kept():
            return painted(self.stylist, image[None].to(device, torch.float32), self.style)[0].cpu()


def brush(style: str | os.PathLike[str]) -> Brush:
    """What ``starry-night``, ``FILE`` or ``FILE:NAME`` means, on the best device; raises as :func:`find` does."""
    path, name = find(style)
    stylist = _loaded(path, path.stat().st_mtime_ns)
    return Brush(stylist, chosen(stylist, name, str(path)), path.name)


@lru_cache(maxsize=4)
def _loaded(path: Path, _changed: int) -> Stylist:
    return read_stylist(path).to(on_device(None))


def painted(stylist: Stylist, images: Tensor, style: int, *, most: int = MOST) -> Tensor:
    """(1, 3, H, W) in [0, 1] -> painted: up to ``most`` pixels in one pass if memory allows, else in tiles."""
    if images.shape[2] * images.shape[3] <= most:
        try:
            return _pass(stylist, images, style)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or images.shape[2] * images.shape[3] <= TILE**2:
                raise
    gc.collect()
    return in_tiles(stylist, images, style, tile=TILE)


def _pass(stylist: Stylist, images: Tensor, style: int, place: tuple[int, int] = (0, 0)) -> Tensor:
    found: Tensor = stylist(images.contiguous(memory_format=torch.channels_last), style, place)
    return found.contiguous()


def in_tiles(stylist: Stylist, images: Tensor, style: int, *, tile: int = TILE, exact: bool = False) -> Tensor:
    """The same, tile by tile, without a seam: every tile gets what the stylist sees around it, and shared moments.

    The moments that instance norm divides by belong to the whole picture. They are taken from crops spread evenly
    over it, of 2 ``tile``^2 pixels together, or with ``exact`` from the picture itself, at the memory of one pass.
    """
    shared = gathered(stylist, images if exact else _samples(images, tile), style)
    found = torch.empty_like(images)
    with held(stylist, shared):
        for rows, columns in progress.over(list(_tiles(images.shape[2], images.shape[3], tile)), "tiles"):
            found[..., rows, columns] = _tile(stylist, images, style, rows, columns)
    return found


def _tiles(height: int, width: int, side: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _tile(stylist: Stylist, images: Tensor, style: int, rows: slice, columns: slice) -> Tensor:
    """One tile, painted with the halo around it, which is cut off again."""
    halo = stylist.halo
    top, left = max(0, rows.start - halo), max(0, columns.start - halo)
    found = _pass(stylist, images[..., top : rows.stop + halo, left : columns.stop + halo], style, (top, left))
    return found[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _samples(images: Tensor, tile: int) -> Tensor:
    """(16, 3, h, w): crops from the middle of each cell of a grid over one picture."""
    sides = [side // SAMPLES for side in images.shape[2:]]
    share = min(1.0, (2 * tile**2 / (images.shape[2] * images.shape[3])) ** 0.5)
    height, width = (max(1, int(side * share)) // STEP * STEP or 1 for side in sides)
    tops, lefts = (
        [cell * side + (side - crop) // 2 for cell in range(SAMPLES)]
        for side, crop in zip(sides, (height, width), strict=True)
    )
    return torch.cat([images[..., t : t + height, l : l + width] for t in tops for l in lefts])  # noqa: E741


def gathered(stylist: Stylist, images: Tensor, style: int) -> dict[StyleNorm, Moments]:
    """The moments that every norm met, of all the pictures together."""
    found: dict[StyleNorm, Moments] = {}

    def watching(norm: StyleNorm) -> None:
        def watch(maps: Tensor) -> Moments:
            together = maps.transpose(0, 1).flatten(1)[None, :, :, None]
            found[norm] = moments(together)
            return found[norm]

        norm.watch = watch

    with _watched(stylist):
        for norm in _norms(stylist):
            watching(norm)
        stylist(images, style)
    return found


@contextmanager
def held(stylist: Stylist, shared: Mapping[StyleNorm, Moments]) -> Iterator[None]:
    """In this block every norm uses these moments in place of the picture's own."""
    with _watched(stylist):
        for norm in _norms(stylist):
            norm.watch = lambda _maps, kept=shared[norm]: kept
        yield


@contextmanager
def _watched(stylist: Stylist) -> Iterator[None]:
    try:
        yield
    finally:
        for norm in _norms(stylist):
            norm.watch = None


def _norms(stylist: Stylist) -> list[StyleNorm]:
    return [part for part in stylist.modules() if isinstance(part, StyleNorm)]
