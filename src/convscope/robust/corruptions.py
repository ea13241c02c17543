"""Pictures spoiled as cameras, weather and files spoil them: twelve ways at five severities.

    corrupted(images, "fog", severity=3)

After Hendrycks and Dietterich (2019), arXiv:1903.12261, section 4, with the severities of their ImageNet-C, but our
own code, and so not their pictures: a rate on these is not one on ImageNet-C. Where it departs: lengths in pixels are
scaled from their 224 to the picture's shorter side; noise is the same for all pictures of a batch; motion blur runs
along a straight line at a random angle, with repeated borders; fog is a sum of smoothly enlarged noise of ever finer
grain instead of the plasma fractal, and its grain does not change with severity; snow is blurred along the same
straight line, and has more flakes at severities 3 to 5, since the published ones make 3 milder than 2; pixels begin at
three quarters of the size, since 0.6 of it can lie further off than a half. Glass blur, frost (which needs photographs
of ice) and elastic transforms are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from convscope.defences import Jpeg
from convscope.errors import OptionError, nearest

SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED = 224  # pixels of the pictures that lengths are given for
Corruption = Callable[[Tensor, Any, torch.Generator], Tensor]


def corrupted(images: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """(N, 3, H, W) in [0, 1], spoiled; ``name`` as in :data:`CORRUPTIONS`, ``severity`` 1 to 5.

    Raises :class:`OptionError` for another name or severity.
    """
    if name not in CORRUPTIONS:
        raise OptionError(f"there is no corruption {name!r}{nearest(name, CORRUPTIONS)}; {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise OptionError(f"severities are 1 to 5, not {severity!r}")
    spoil, strengths, _ = CORRUPTIONS[name]
    generator = torch.Generator().manual_seed(seed)
    return spoil(images, strengths[severity - 1], generator).clamp(0, 1).to(images.dtype)


def _scale(images: Tensor) -> float:
    return min(images.shape[-2:]) / PUBLISHED


# ---- noise


def _gaussian(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return images + sigma * torch.randn(images.shape[1:], generator=generator)


def _shot(images: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """So many photons at white: their numbers are Poisson's. Each picture draws as if it were alone."""
    state = generator.get_state()
    found = []
    for image in images:
        generator.set_state(state)
        found.append(torch.poisson(image.float() * photons, generator=generator) / photons)
    return torch.stack(found)


def _impulse(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the values becomes black or white."""
    hit, white = torch.rand(2, *images.shape[1:], generator=generator)
    return torch.where(hit < share, (white < 0.5).to(images), images)


# ---- blur


def _defocus(images: Tensor, strength: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A disk of that radius, its edge softened."""
    radius, softness = strength[0] * _scale(images), strength[1]
    reach = math.ceil(radius) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)  # a pixel at the edge counts by about its covered share
    return _filtered(images, ndimage.gaussian_filter(disk, softness))


def _motion(images: Tensor, strength: tuple[float, float], generator: torch.Generator) -> Tensor:
    angle = math.pi * (torch.rand((), generator=generator).item() - 0.5) / 2  # up to 45 degrees, as theirs
    return _filtered(images, _line(strength[0] * _scale(images), strength[1] * _scale(images), angle))


def _line(reach: float, sigma: float, angle: float) -> np.ndarray[Any, Any]:
    """A kernel along one half of a line, falling off as a Gaussian."""
    side = math.ceil(reach) + 1
    kernel = np.zeros((2 * side + 1, 2 * side + 1))
    for step in np.arange(0, reach + 0.25, 0.25):
        row, column = side + step * math.sin(angle), side + step * math.cos(angle)
        top, left = int(row), int(column)
        weight = math.exp(-((step / max(sigma, 0.5)) ** 2) / 2)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):  # split between the four pixels around it
            share = abs(1 - down - (row - top)) * abs(1 - right - (column - left))
            kernel[min(top + down, 2 * side), min(left + right, 2 * side)] += weight * share
    return kernel


def _filtered(images: Tensor, kernel: np.ndarray[Any, Any]) -> Tensor:
    """Convolved with a kernel of sum 1, borders repeated."""
    kernel = kernel / kernel.sum()
    found = ndimage.convolve(images.float().numpy(), kernel[None, None], mode="nearest")
    return torch.from_numpy(found)


def _zoom(images: Tensor, strength: tuple[float, float], generator: torch.Generator) -> Tensor:
    """The mean of the picture and of itself enlarged step by step."""
    factors = np.arange(1, strength[0], strength[1])[1:]
    return torch.stack([images.float(), *(_enlarged(images.float(), float(f)) for f in factors)]).mean(0)


def _enlarged(images: Tensor, factor: float) -> Tensor:
    maps = torch.tensor([[1 / factor, 0, 0], [0, 1 / factor, 0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


# ---- weather


def _fog(images: Tensor, strength: tuple[float, float], generator: torch.Generator) -> Tensor:
    amount, decay = strength
    brightest = images.flatten(1).amax(1).view(-1, 1, 1, 1)
    return (images + amount * _clouds(images.shape[-2:], decay, generator)) * brightest / (brightest + amount)


def _clouds(size: Sequence[int], decay: float, generator: torch.Generator) -> Tensor:
    """(H, W) from 0 to 1: noise of cells from half the picture down to a pixel, each octave weaker by ``decay``."""
    total, weight, cells = torch.zeros(*size), 1.0, 2
    while cells < 2 * max(size):
        coarse = torch.rand(1, 1, cells + 1, cells + 1, generator=generator)
        total += weight * F.interpolate(coarse, tuple(size), mode="bicubic", align_corners=True)[0, 0]
        weight, cells = weight / decay, cells * 2
    return (total - total.min()) / (total.max() - total.min())


def _snow(images: Tensor, strength: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Flakes, blurred along their fall and once more upside down, on a paler picture."""
    mean, spread, zoom, least, reach, sigma, keep = strength
    height, width = images.shape[-2:]
    small = [math.ceil(side / zoom) + 1 for side in (height, width)]
    drawn = mean + spread * torch.randn(1, 1, *small, generator=generator)
    flakes = F.interpolate(drawn, scale_factor=zoom, mode="bilinear", align_corners=False)[..., :height, :width]
    flakes = torch.where(flakes < least, 0.0, flakes).clamp(0, 1)
    angle = -math.pi * (0.25 + 0.5 * torch.rand((), generator=generator).item())  # steeply down
    flakes = _filtered(flakes, _line(reach * _scale(images), sigma * _scale(images), angle))
    grey = images.mean(1, keepdim=True) * 1.5 + 0.5
    return keep * images + (1 - keep) * torch.maximum(images, grey) + flakes + flakes.flip(2, 3)


def _brightness(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """V of HSV raised, cut at 1; hue and saturation stay."""
    value = images.amax(1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, images * raised / value.clamp(min=1e-6), raised.expand_as(images))


# ---- digital


def _contrast(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + share * (images - mean)


def _pixelated(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    small = [max(1, int(side * share)) for side in images.shape[-2:]]
    return F.interpolate(F.interpolate(images, small, mode="area"), images.shape[-2:], mode="nearest")


def _jpeg(images: Tensor, quality: int, generator: torch.Generator) -> Tensor:
    return Jpeg(quality)(images, generator)


#: name to the corruption, its strengths at the five severities, and the group that it belongs to
CORRUPTIONS: dict[str, tuple[Corruption, Sequence[Any], str]] = {
    "gaussian-noise": (_gaussian, (0.08, 0.12, 0.18, 0.26, 0.38), "noise"),
    "shot-noise": (_shot, (60, 25, 12, 5, 3), "noise"),
    "impulse-noise": (_impulse, (0.03, 0.06, 0.09, 0.17, 0.27), "noise"),
    "defocus-blur": (_defocus, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), "blur"),
    "motion-blur": (_motion, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), "blur"),
    "zoom-blur": (_zoom, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.33, 0.03)), "blur"),
    "fog": (_fog, ((1.5, 2), (2, 2), (2.5, 2), (3, 2), (4, 2)), "weather"),
    "snow": (
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.5, 0.3, 4, 0.75, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.75, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.75, 12, 12, 0.55),
        ),
        "weather",
    ),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "weather"),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), "digital"),
    "pixelate": (_pixelated, (0.75, 0.5, 0.4, 0.3, 0.25), "digital"),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7), "digital"),
}  # fmt: skip
GROUPS = tuple(dict.fromkeys(group for _, _, group in CORRUPTIONS.values()))
