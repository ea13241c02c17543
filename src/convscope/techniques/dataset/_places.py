"""Finding places of one picture again in others, by what a layer computes there or by descriptors of the pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.hooks import observe
from convscope.images import check_images
from convscope.network import Network

SIFT_WIDTHS = (1 / 6, 1 / 4, 2 / 5)  # of a picture's side that a descriptor sees; the best of them counts
_LUMA = (0.299, 0.587, 0.114)
_CONTRAST = 9  # pixels of the window in which a point must have some contrast
_MARGIN = 1 / 10  # of a side in which no points are asked for


@dataclass(frozen=True)
class Grid:
    """Where the cells of a layer lie: the centre of cell (r, c) is ``offset + stride * (r, c)`` in pixels."""

    cells: tuple[int, int]
    offset: tuple[float, float]
    stride: tuple[float, float]

    def pixels(self, places: Tensor) -> Tensor:
        """Rows and columns of cells (..., 2), also between them, as those of pixels."""
        return places * torch.tensor(self.stride) + torch.tensor(self.offset)

    def places(self, pixels: Tensor) -> Tensor:
        """The other way round, kept within the grid."""
        found = (pixels - torch.tensor(self.offset)) / torch.tensor(self.stride)
        return found.clamp(min=0).minimum(torch.tensor(self.cells) - 1.0)

    def centres(self) -> Tensor:
        """(cells, 2) of all of them, row by row, in pixels."""
        rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in self.cells), indexing="ij")
        return self.pixels(torch.stack([rows, columns], -1).flatten(0, 1))


def grid_of(network: Network, layer: str, cells: tuple[int, int], size: tuple[int, int]) -> Grid:
    """The grid of a layer for pictures of that size: by its receptive field, or evenly spread where that is global."""
    field = network.receptive_fields.get(network.layer(layer).name)
    even = tuple(side / n for side, n in zip(size, cells, strict=True))
    if field is None or field.whole or not all(0.5 < s / e < 2 for s, e in zip(field.stride, even, strict=True)):
        return Grid(cells, (even[0] / 2 - 0.5, even[1] / 2 - 0.5), (even[0], even[1]))
    return Grid(cells, field.offset, field.stride)


def describe(network: Network, layer: str, images: Tensor) -> Tensor:
    """(N, C, h, w) of size 1 at each place: what ``layer`` computes, less its mean over all places of each picture."""
    with torch.no_grad():
        parts = [
            network.maps(layer, observe(network, part, [layer])[layer]).float().cpu()
            for part in images.split(network.at_once(images))
        ]
    maps = torch.cat(parts)
    return F.normalize(maps - maps.mean((2, 3), keepdim=True), dim=1)


def at(maps: Tensor, places: Tensor) -> Tensor:
    """(P, C) of size 1: maps (C, h, w) read between the cells at places (P, 2)."""
    height, width = maps.shape[-2:]
    scale = torch.tensor([max(height - 1, 1), max(width - 1, 1)])
    grid = (2 * places / scale - 1).flip(-1)[None, :, None]
    found = F.grid_sample(maps[None], grid.to(maps), mode="bilinear", align_corners=True, padding_mode="border")
    return F.normalize(found[0, :, :, 0].T, dim=1)


def find(descriptors: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of (P, C) descriptors is found in maps (C, h, w): places (P, 2) between the cells, and cosines (P,).

    The best cell, moved within half a cell to the top of the parabola through it and its neighbours on either side.
    """
    likeness = torch.einsum("pc,chw->phw", descriptors, maps)
    best = likeness.flatten(1).argmax(1)
    rows, columns = best // maps.shape[2], best % maps.shape[2]
    every = torch.arange(len(descriptors))
    down = _top(likeness[every, :, columns], rows)
    across = _top(likeness[every, rows], columns)
    return torch.stack([rows + down, columns + across], 1), likeness.flatten(1).amax(1)


def _top(lines: Tensor, best: Tensor) -> Tensor:
    """(P,) in [-1/2, 1/2]: where the parabola through the best of each line (P, n) and its neighbours is highest."""
    every, last = torch.arange(len(lines)), lines.shape[1] - 1
    here = lines[every, best]
    before, after = lines[every, (best - 1).clamp(min=0)], lines[every, (best + 1).clamp(max=last)]
    bend = before - 2 * here + after
    moved = torch.where(bend < 0, (before - after) / (2 * bend).clamp(max=-1e-12), torch.zeros(()))
    inside = (best > 0) & (best < last)
    return torch.where(inside, moved.clamp(-0.5, 0.5), torch.zeros(()))


# ---- descriptors of the pixels


def sift(image: Tensor, centres: Tensor, width: float) -> Tensor:
    """(P, 128) of size 1: upright SIFT descriptors of a picture (3, H, W) at points (P, 2) in pixels.

    ``width``: pixels that a descriptor sees. By scikit-image, whose detector is passed over.
    """
    from skimage.feature import SIFT

    grey = (image.float() * torch.tensor(_LUMA).view(3, 1, 1)).sum(0).double().numpy()
    extractor = SIFT(upsampling=1)
    sigma = width / 2 / (extractor.lambda_descr * (1 + 1 / extractor.n_hist))
    octave = max(0, min(int(math.log2(max(sigma / extractor.sigma_min, 1))), _octaves(extractor, grey)))
    count = len(centres)
    extractor.positions = centres.double().numpy()
    extractor.scales = np.ones(count, int)
    extractor.sigmas, extractor.orientations = np.full(count, sigma), np.zeros(count)
    extractor.octaves = np.full(count, octave)
    with np.errstate(invalid="ignore", divide="ignore"):
        extractor.extract(grey)
    found = np.asarray(extractor.descriptors, np.float32)
    return F.normalize(torch.from_numpy(np.nan_to_num(found)), dim=1)


def _octaves(extractor: object, grey: np.ndarray) -> int:
    """The last octave that a picture has."""
    extractor._set_number_of_octaves(grey.shape)  # type: ignore[attr-defined]
    return int(extractor.n_octaves) - 1  # type: ignore[attr-defined]


# ---- pictures that are known to show the same


@dataclass(frozen=True)
class Warp:
    """A picture bent in a known way: ``sources`` (H, W, 2) says from which row and column each pixel came."""

    image: Tensor
    sources: Tensor


def warp(image: Tensor, generator: torch.Generator) -> Warp:
    """A picture (3, H, W) turned, scaled and moved, and bent by waves, by chance.

    Turned by up to 20 degrees, scaled by 0.8 to 1.25, moved by up to 6 % of its size and bent by up to 3 %.
    """
    height, width = image.shape[-2:]

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    angle, scale = math.radians(uniform(-20, 20)), math.exp(uniform(-1, 1) * math.log(1.25))
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    wave = [uniform(0.6, 1.4) * 2 * math.pi / side for side in (height, width)]
    bend = [uniform(0, 0.03) * side for side in (height, width)]
    phase = [uniform(0, 2 * math.pi) for _ in range(2)]
    down = (math.cos(angle) * y - math.sin(angle) * x) / scale + bend[0] * torch.sin(wave[1] * x + phase[0])
    across = (math.sin(angle) * y + math.cos(angle) * x) / scale + bend[1] * torch.sin(wave[0] * y + phase[1])
    sources = torch.stack(
        [
            down + (height - 1) / 2 + uniform(-0.06, 0.06) * height,
            across + (width - 1) / 2 + uniform(-0.06, 0.06) * width,
        ],
        -1,
    )
    grid = (2 * sources / torch.tensor([height - 1.0, width - 1.0]) - 1).flip(-1)
    bent = F.grid_sample(
        image[None].float(), grid[None], mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return Warp(check_images(bent.clamp(0, 1))[0], sources)


def points_of(warped: Warp, count: int, generator: torch.Generator) -> Tensor:
    """(P, 2) pixels of a bent picture, drawn from the half with more contrast, whose sources lie well inside."""
    height, width = warped.image.shape[-2:]
    luma = warped.image.mean(0)[None, None]
    pad = _CONTRAST // 2
    mean, square = (F.avg_pool2d(F.pad(v, [pad] * 4, mode="reflect"), _CONTRAST, 1)[0, 0] for v in (luma, luma**2))
    contrast = (square - mean**2).clamp(min=0)
    limits = torch.tensor([height, width]) * _MARGIN
    inside = ((warped.sources > limits) & (warped.sources < torch.tensor([height, width]) - limits)).all(-1)
    top, left = round(float(limits[0])), round(float(limits[1]))
    inside[:top], inside[-top:], inside[:, :left], inside[:, -left:] = False, False, False, False
    allowed = inside & (contrast >= contrast[inside].median()) if inside.any() else inside
    places = allowed.flatten().nonzero()[:, 0]
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    return torch.stack([chosen // width, chosen % width], 1).float()


def errors_of(network: Network, layer: str, images: Tensor, count: int, seed: int) -> dict[str, Tensor]:
    """How far off points are found, in shares of the longer side: by the layer, by SIFT, and by pointing anywhere.

    Every picture (3, H, W) is bent once, and ``count`` points of the bent one are looked for in the straight one, over
    the same cells for every way of looking.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {"network": [], "anywhere": [], **{f"SIFT {w}": [] for w in SIFT_WIDTHS}}
    for image in images.float().cpu():
        warped = warp(image, generator)
        points = points_of(warped, count, generator)
        if not len(points):
            continue
        truth = warped.sources[points[:, 0].long(), points[:, 1].long()]
        straight, bent = describe(network, layer, torch.stack([image, warped.image]))
        size = (image.shape[-2], image.shape[-1])
        grid = grid_of(network, layer, (straight.shape[1], straight.shape[2]), size)
        places, _ = find(at(bent, grid.places(points)), straight)
        found["network"].append(_away(grid.pixels(places), truth, size))
        found["anywhere"].append(_away(grid.centres()[:, None], truth[None], size).flatten())
        for width in SIFT_WIDTHS:
            wide = width * max(size)
            maps = sift(image, grid.centres(), wide).T.unflatten(1, grid.cells)
            places, _ = find(sift(warped.image, points, wide), maps)
            found[f"SIFT {width}"].append(_away(grid.pixels(places), truth, size))
    joined = {name: torch.cat(parts) if parts else torch.zeros(0) for name, parts in found.items()}
    best = min((name for name in joined if name.startswith("SIFT")), key=lambda name: float(joined[name].median()))
    return {"network": joined["network"], "SIFT": joined[best], "anywhere": joined["anywhere"]}


def _away(found: Tensor, truth: Tensor, size: Sequence[int]) -> Tensor:
    return (found - truth).norm(dim=-1) / max(size)
