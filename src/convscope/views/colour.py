"""How a number becomes a colour, and what must be said about it.

Unsigned numbers run from dark to bright. Signed ones run from cold over a neutral grey, which is exactly zero, to
warm, on a scale that is the same in both directions. A few extreme values do not darken all others: the scale may end
below them, and then their real value is written beside it. A map without any difference has no scale at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

from convscope.views.pixels import Pixels
from convscope.views.style import number

Array = npt.NDArray[Any]

NEUTRAL = (0xEB, 0xEB, 0xEB)
"""Zero in a signed map."""

FLAT = (0xD4, 0xD5, 0xD8)
"""A map that is constant, signed or not: it has no scale, so it gets none of a scale's colours."""

_COLD = ("#0d2f5f", "#24609f", "#5f9bcb", "#acd0e6")  # from the end to zero
_WARM = ("#f5c4a4", "#e4815c", "#c03c2c", "#7a0c1e")  # from zero to the end
ROBUST = 99.5  # percent of the values that the scale holds
_NEAR = 0.75  # a scale that would end this near the extreme ends at the extreme


@dataclass(frozen=True)
class Scale:
    """From ``low`` to ``high`` the colours change; ``minimum`` and ``maximum`` are of the numbers themselves."""

    low: float
    high: float
    minimum: float
    maximum: float
    signed: bool

    @property
    def constant(self) -> bool:
        """Whether all numbers are the same."""
        return self.minimum == self.maximum

    @property
    def clipped(self) -> tuple[bool, bool]:
        """Whether numbers lie below and above the scale."""
        return self.minimum < self.low, self.maximum > self.high

    def positions(self, values: Array) -> Array:
        """0 at the lower end of the scale, 1 at its upper end, and never beyond."""
        if self.constant:
            return np.zeros(np.shape(values))
        values = np.asarray(values, dtype=np.float64)
        if self.signed:  # dividing first keeps zero at exactly one half
            return np.clip(values / self.high, -1, 1) / 2 + 0.5
        return np.clip((values - self.low) / (self.high - self.low), 0, 1)

    def strengths(self, values: Array) -> Array:
        """How far a number stands out, from 0 to 1: the distance from zero where signed, the position where not."""
        positions = self.positions(values)
        return np.abs(2 * positions - 1) if self.signed and not self.constant else positions

    def colours(self, values: Array) -> Pixels:
        """Numbers of any shape (...) to colours (..., 3)."""
        if self.constant:
            return np.broadcast_to(np.array(FLAT, np.uint8), (*np.shape(values), 3)).copy()
        table = colour_map(self.signed)
        positions = np.nan_to_num(self.positions(values), nan=0.5 if self.signed else 0.0)
        coloured: Pixels = table[np.rint(positions * (len(table) - 1)).astype(np.intp)]
        return coloured

    def gradient(self, steps: int) -> Pixels:
        """(steps, 3) colours from the lower end to the upper one."""
        table = colour_map(self.signed)
        return table[np.rint(np.linspace(0, len(table) - 1, steps)).astype(np.intp)]

    def ticks(self) -> list[tuple[float, str]]:
        """Where numbers are written on the colour bar, and which: both ends, and zero."""
        if self.constant:
            return []
        middle = [(0.5, "0")] if self.signed else []
        return [(0.0, number(self.low)), *middle, (1.0, number(self.high))]

    @property
    def beyond(self) -> str:
        """What lies beyond the scale, in words; nothing when nothing does."""
        below, above = self.clipped
        said = [f"min {number(self.minimum)}"] if below else []
        return ", ".join([*said, f"max {number(self.maximum)}"] if above else said)

    @property
    def remark(self) -> str:
        """What the colours alone would hide: a constant map, a map of one sign."""
        if self.constant:
            return f"constant, {number(self.minimum)} everywhere"
        if self.signed and self.maximum <= 0:
            return "nothing above zero"
        return ""


def scale_of(values: Array, *, signed: bool, robust: float | None = ROBUST) -> Scale:
    """The scale for these numbers; ``robust`` percent of them lie within it, None holds them all.

    Signed: symmetric around zero. Unsigned: from zero, or from the smallest number where there are negative ones.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return Scale(0.0, 0.0, 0.0, 0.0, signed)
    minimum, maximum = float(finite.min()), float(finite.max())
    if signed:
        high = upper_end(np.abs(finite), robust)
        return Scale(-high, high, minimum, maximum, True)
    low = min(0.0, minimum)
    return Scale(low, low + upper_end(finite - low, robust), minimum, maximum, False)


def upper_end(sizes: Array, robust: float | None = ROBUST) -> float:
    """The end of a scale that begins at zero: the largest, unless few values lie far above the others."""
    largest = float(sizes.max())
    upper = float(np.percentile(sizes, robust)) if robust is not None else largest
    return upper if 0 < upper < _NEAR * largest else largest


def overlay(photograph: Pixels, values: Array, scale: Scale) -> Pixels:
    """The map laid on the photograph in grey: the farther a number stands out, the more of its colour shows.

    photograph: (H, W, 3); values: (H, W). Under bright colours the photograph is dimmed, under a map of two signs,
    whose ends are dark, it is faded.
    """
    grey = photograph @ np.array([0.299, 0.587, 0.114])
    grey = 110 + 0.55 * grey if scale.signed or scale.constant else 0.62 * grey
    share = 0.92 * scale.strengths(values)[..., None] ** (0.65 if scale.signed else 0.8)
    mixed = grey[..., None] * (1 - share) + scale.colours(values) * share
    return np.rint(np.nan_to_num(mixed)).astype(np.uint8)


def symmetric_colour(tiles: Array, bound: Array | float) -> Pixels:
    """(..., 3, h, w) signed colour to (..., h, w, 3): zero is mid-grey, ``bound`` and more is full."""
    bound = np.asarray(bound, dtype=np.float64)
    scaled = np.divide(tiles, bound, out=np.zeros(np.shape(tiles)), where=bound > 0)
    return np.moveaxis(np.rint(127.5 + 127.5 * np.clip(scaled, -1, 1)).astype(np.uint8), -3, -1)


# ---- the tables of colours


@lru_cache(maxsize=2)
def colour_map(signed: bool) -> Pixels:
    """(256, 3) from dark to bright, or (257, 3) from cold to warm with the neutral grey in the very middle."""
    if not signed:
        table = matplotlib.colormaps["inferno"](np.arange(256))[:, :3]
        return np.rint(table * 255).astype(np.uint8)
    neutral = "#" + "".join(f"{c:02x}" for c in NEUTRAL)
    anchors = _to_oklab(np.array([_rgb(c) for c in (*_COLD, neutral, *_WARM)]))
    at = np.linspace(0, 1, len(anchors))
    smooth = np.stack([np.interp(np.linspace(0, 1, 257), at, channel) for channel in anchors.T], axis=1)
    table = np.rint(_from_oklab(smooth) * 255).clip(0, 255).astype(np.uint8)
    table[128] = NEUTRAL
    return table


def _rgb(colour: str) -> Sequence[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


# Ottosson 2020, "A perceptual color space for image processing": equal steps look equal.
_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                 [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def _to_oklab(rgb: Array) -> Array:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _LMS.T) @ _LAB.T


def _from_oklab(lab: Array) -> Array:
    linear = ((lab @ np.linalg.inv(_LAB).T) ** 3 @ np.linalg.inv(_LMS).T).clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
