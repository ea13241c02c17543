"""Pictures as pixels: from tensors, at other sizes, on paper."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]

SMALL = 48  # below this side the squares of a photograph are shown as they are


def to_pixels(image: npt.NDArray[Any]) -> Pixels:
    """(3, H, W) in [0, 1] to (H, W, 3)."""
    return np.rint(np.moveaxis(np.nan_to_num(image), 0, -1).clip(0, 1) * 255).astype(np.uint8)


def enlarged(shape: tuple[int, int], target: int) -> tuple[int, int]:
    """The size (height, width) at which a picture is drawn: a whole multiple where it is small, about ``target``."""
    longest = max(shape)
    if longest > 1.5 * target:
        return max(1, round(shape[0] * target / longest)), max(1, round(shape[1] * target / longest))
    factor = max(1, round(target / longest))
    return shape[0] * factor, shape[1] * factor


def resized(pixels: Pixels, size: tuple[int, int], *, smooth: bool) -> Pixels:
    """Pixels (H, W, 3 or 4) at ``size`` (height, width); squares of one colour unless ``smooth``."""
    if pixels.shape[:2] == size:
        return pixels
    larger = size[0] >= pixels.shape[0] and size[1] >= pixels.shape[1]
    if larger and not smooth:
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, pixels.shape[:2], strict=True))
        return np.ascontiguousarray(pixels[rows[:, None], columns])
    kernel = Image.Resampling.LANCZOS if smooth else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], kernel))


def photograph(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A photograph at that size: smooth, unless it is so small that its pixels are the point."""
    return resized(pixels, size, smooth=not tiny(pixels))


def tiny(pixels: Pixels) -> bool:
    """Whether a photograph is so small that its pixels are the point."""
    return max(pixels.shape[:2]) < SMALL


def on_paper(pixels: Pixels, paper: str) -> Pixels:
    """(H, W, 4) laid on paper of that colour, ``#rrggbb``: (H, W, 3)."""
    alpha = pixels[..., 3:].astype(np.float64) / 255
    under = np.array([int(paper[i : i + 2], 16) for i in (1, 3, 5)])
    return np.rint(pixels[..., :3] * alpha + under * (1 - alpha)).astype(np.uint8)
