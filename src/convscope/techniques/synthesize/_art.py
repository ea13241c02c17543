"""A painting that nobody has painted, for pages and tests that need one and own none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PALETTE = ((0.05, 0.08, 0.25), (0.08, 0.24, 0.58), (0.32, 0.58, 0.82), (0.96, 0.8, 0.3), (1.0, 0.96, 0.78))
STROKE = 16  # pixels from the middle of a stroke to its end


def swirls(side: int = 256, seed: int = 0) -> Tensor:
    """(3, side, side): strokes of blue and yellow along curved lines.

    Coloured noise is averaged along the lines of a random flow without sources (Cabral & Leedom 1993, "Imaging vector
    fields using line integral convolution").
    """
    generator = torch.Generator().manual_seed(seed)

    def field(cells: int) -> Tensor:
        drawn = torch.randn(1, 1, cells, cells, generator=generator)
        return F.interpolate(drawn, (side, side), mode="bicubic", align_corners=True)[0, 0]

    potential, tone, paint = field(7), field(8), field(side // 2)
    down, right = torch.gradient(potential)
    flow = F.normalize(torch.stack([right, -down]), dim=0)
    strokes = torch.stack([_along(paint, flow * sign) for sign in (1, -1)]).mean(0)
    strokes = (strokes - strokes.mean()) / strokes.std()
    return _painted(torch.sigmoid(1.3 * tone + 0.9 * strokes - 0.4))


def _along(paint: Tensor, flow: Tensor) -> Tensor:
    """(H, W): the mean of paint over the line that leads away from each pixel; ``flow`` (2, H, W) is down, right."""
    side = paint.shape[0]
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).float()
    total = torch.zeros_like(paint)
    for _ in range(STROKE):
        total += _at(paint[None], place)[0]
        place = place + _at(flow, place)
    return total / STROKE


def _at(maps: Tensor, place: Tensor) -> Tensor:
    """(C, H, W) of maps at places (2, H, W), in pixels."""
    grid = (place / (maps.shape[1] - 1) * 2 - 1).flip(0).permute(1, 2, 0)
    return F.grid_sample(maps[None], grid[None], padding_mode="reflection", align_corners=True)[0]


def _painted(share: Tensor) -> Tensor:
    """(3, H, W): a share in [0, 1] as a colour of the palette, or between two."""
    colours = torch.tensor(PALETTE).T
    place = share * (len(PALETTE) - 1)
    below = place.long().clamp(max=len(PALETTE) - 2)
    return torch.lerp(colours[:, below], colours[:, below + 1], place - below)
