"""From the reach of a tensor to the receptive field of its units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convscope.errors import OptionError
from convscope.receptive_field.reach import (
    EXACT,
    NOMINAL,
    Array,
    Reach,
    collapse,
    cut,
    hull_of,
    permute,
    reshape,
    still,
)

Layout = Literal["NCHW", "NHWC", "tokens"]


@dataclass(frozen=True)
class ReceptiveField:
    """What one unit of a layer sees of the picture; a unit is a place in the grid, all channels together.

    Pixels are counted from the centre of the first one: pixel ``i`` covers ``i - 1/2`` to ``i + 1/2``.
    """

    size: tuple[int, int]
    """Rows and columns of the nominal field of a typical unit; it may exceed the picture."""
    stride: tuple[float, float]
    """Rows and columns of the picture from one unit to the next; negative after a flip."""
    offset: tuple[float, float]
    """Where the nominal fields begin: that of unit (r, c) is centred on ``offset + stride * (r, c)``, where 0 is the
    centre of the first pixel. It is the middle of the picture if the field is global."""
    whole: bool
    """The layer has no grid, or something global lies before it (pooling, flattening, attention, gating)."""
    units: tuple[int, int]
    """Rows and columns of the layer's grid, (1, 1) where it has none."""
    inexact: frozenset[str]
    """Operators on the way that the trace could not follow and took for the whole picture."""
    _spans: tuple[NDArray[np.int32], NDArray[np.int32]] = dataclass_field(repr=False, compare=False)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Pixels that the unit sees: (top, left, bottom, right), half open, inside the picture, exact.

        (0, 0, 0, 0) for a unit that lies in padding and sees nothing. Raises :class:`OptionError` outside the grid.
        """
        if not (0 <= row < self.units[0] and 0 <= column < self.units[1]):
            raise OptionError(f"there is no unit ({row}, {column}) in a grid of {self.units[0]} x {self.units[1]}")
        (top, bottom), (left, right) = (np.broadcast_to(s, (2, *self.units))[:, row, column] for s in self._spans)
        if bottom < top or right < left:
            return 0, 0, 0, 0
        return int(top), int(left), int(bottom) + 1, int(right) + 1


def layout_of(reach: Reach, size: tuple[int, int], *, given: bool) -> Layout | None:
    """Where a tensor of three or four dims has its rows and columns."""
    ndim = len(reach.shape)
    rows, columns = ([dim for dim in range(ndim) if jump[dim] != 0] for jump in reach.jump)
    if (rows, columns) == ([ndim - 3], [ndim - 2]) and ndim in (3, 4):
        return "NHWC"
    if ndim == 4 or (ndim == 3 and (rows, columns) == ([1], [2])):
        return "NCHW"
    return "tokens" if ndim == 3 and (given or _guess(reach.shape[_token_dim(reach)], None, size)) else None


def _token_dim(reach: Reach) -> int:
    return 2 if reach.jump[:, 2].any() and not reach.jump[:, 1].any() else 1


def plane_of(
    reach: Reach, layout: Layout, grid: tuple[int, int] | None, prefix: int | None, size: tuple[int, int]
) -> Reach:
    """The hull over everything but rows and columns, (R, C)."""
    ndim = len(reach.shape)
    if ndim not in ((3,) if layout == "tokens" else (3, 4)):
        raise OptionError(f"a tensor of the shape {reach.shape} is not {layout}; leave the layout out to have it found")
    if layout == "tokens":
        reach = _laid_out(reach, grid, prefix, size)
        layout, ndim = "NHWC", 4
    row = ndim - 3 if layout == "NHWC" else ndim - 2
    return collapse(reach, {*range(ndim)} - {row, row + 1}, keep=False)


def _laid_out(reach: Reach, grid: tuple[int, int] | None, prefix: int | None, size: tuple[int, int]) -> Reach:
    """Tokens as (N, R, C, channels)."""
    reach = permute(reach, [0, 2, 1]) if _token_dim(reach) == 2 else reach
    batch, tokens, channels = reach.shape
    if grid is None:
        guess = _guess(tokens, prefix, size)
        if guess is None:
            raise OptionError(f"{tokens} tokens form no grid in the shape of the picture; give grid=(rows, columns)")
        grid, prefix = guess[:2], guess[2]
    rows, columns = grid
    prefix = tokens - rows * columns if prefix is None else prefix
    if prefix < 0 or rows * columns + prefix != tokens:
        raise OptionError(f"{tokens} tokens are not {prefix} and a grid of {rows} x {columns}; correct grid or prefix")
    return reshape(cut(reach, 1, slice(prefix, None)), (batch, rows, columns, channels))


def _guess(tokens: int, prefix: int | None, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """Rows, columns and prefix: the shortest prefix that leaves a grid in the shape of the picture."""
    for ahead in range(min(9, tokens)) if prefix is None else [prefix]:
        left = tokens - ahead
        shapes = [(rows, left // rows) for rows in range(1, left + 1) if left % rows == 0]
        best = min(shapes, key=lambda shape: _mismatch(shape, size), default=(1, 1))
        if _mismatch(best, size) < 0.2 or prefix is not None:
            return *best, ahead
    return None


def _mismatch(shape: tuple[int, int], size: tuple[int, int]) -> float:
    return abs(math.log(shape[0] * size[1] / (shape[1] * size[0])))


def without_grid(reach: Reach) -> Reach:
    """The hull over everything: one unit."""
    """A tensor without rows and columns is one unit, global by definition."""
    rows, columns = (hull_of(b, range(len(reach.shape)), whole=True).reshape(2, 2, 1, 1) for b in reach.bounds)
    return Reach(still((1, 1)), (rows, columns), reach.inexact)


def summarised(plane: Reach, size: tuple[int, int], leaks: frozenset[str]) -> ReceptiveField:
    """What is told of a plane of units, (R, C)."""
    rows, columns = _typical(plane, 0, size[0]), _typical(plane, 1, size[1])
    return ReceptiveField(
        size=(
            size[0] if math.isinf(rows[0]) else round(rows[0]),
            size[1] if math.isinf(columns[0]) else round(columns[0]),
        ),
        stride=(rows[1], columns[1]),
        offset=(rows[2], columns[2]),
        whole=math.isinf(rows[0]) and math.isinf(columns[0]),
        units=(plane.shape[0], plane.shape[1]),
        inexact=plane.inexact | leaks,
        _spans=(_span(plane.bounds[0]), _span(plane.bounds[1])),
    )


def _typical(plane: Reach, axis: int, size: int) -> tuple[float, float, float]:
    """Length, stride and offset of the nominal intervals: medians, since one that wraps around is not typical."""
    first, last = -plane.bounds[axis][NOMINAL, 0], plane.bounds[axis][NOMINAL, 1]
    stride = float(plane.jump[axis, axis])
    stride = stride if stride and math.isfinite(stride) else size / plane.shape[axis]
    seen = np.isfinite(last)
    if not seen.any():
        return math.inf, stride, (size - 1) / 2
    steps = stride * np.indices(last.shape)[axis][seen]
    lengths = np.sort(last[seen] - first[seen] + 1)
    starts = np.sort((first[seen] + last[seen]) / 2 - steps)
    return float(lengths[len(lengths) // 2]), stride, float(starts[len(starts) // 2])


def _span(bounds: Array) -> NDArray[np.int32]:
    """First and last pixel, (2, R, C) or of size 1 where it makes no difference; 0 and -1 for an empty interval."""
    ends = bounds[EXACT] * np.array([-1, 1]).reshape(2, 1, 1)
    span = np.where(np.isfinite(ends), ends, np.array([0, -1]).reshape(2, 1, 1)).astype(np.int32)
    span.setflags(write=False)
    return span
