"""Where copies differ from the clean picture: boxes in each map, cut out of it and pasted into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from convscope.perturb.graph import Ref

Places: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Span:
    """Along one axis of a map, for each variation: as many rows, starting where it needs them."""

    starts: Places
    size: int
    length: int  # of the map

    @classmethod
    def hull(cls, first: Places, last: Places, length: int) -> Span:
        first = first.clip(0, length - 1)
        last = np.maximum(last.clip(0, length - 1), first)
        size = int((last - first).max()) + 1
        return cls(np.minimum(first, length - size), size, length)

    @property
    def last(self) -> Places:
        return self.starts + self.size - 1

    def part(self, part: slice) -> Span:
        return Span(self.starts[part], self.size, self.length)

    def same(self, other: Span) -> bool:
        return self is other or (self.size == other.size and np.array_equal(self.starts, other.starts))

    def shifted(self, by: int) -> Span:
        return Span(self.starts + by, self.size, self.length) if by else self

    def whole(self) -> Span:
        return Span(np.zeros_like(self.starts), self.length, self.length)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a node's output differs from the clean one.

    ``dims`` are the tensor's row and column dims, or None where pictures, rows and columns are one dim, the first.
    """

    rows: Span
    columns: Span
    dims: tuple[int, int] | None = (2, 3)

    @property
    def share(self) -> float:
        return self.rows.size * self.columns.size / (self.rows.length * self.columns.length)

    def part(self, part: slice) -> Place:
        return Place(self.rows.part(part), self.columns.part(part), self.dims)

    def same(self, other: Place) -> bool:
        return self is other or (self.rows.same(other.rows) and self.columns.same(other.columns))

    def shape(self, clean: Sequence[int], count: int) -> tuple[int, ...]:
        """Of the box, in a tensor that has the shape ``clean`` for one picture."""
        shape = list(clean)
        if self.dims is None:
            return (count * self.rows.size * self.columns.size, *shape[1:])
        shape[0], shape[self.dims[0]], shape[self.dims[1]] = count, self.rows.size, self.columns.size
        return tuple(shape)


# Values are handled as (K, rows, columns, the rest): the memory order of channels-last, so mostly without a copy.


def front(values: Tensor, place: Place) -> Tensor:
    """(K, rows, columns, the rest) of boxes as an operator gives them."""
    if place.dims is None:
        return values.view(-1, place.rows.size, place.columns.size, *values.shape[1:])
    return values.movedim(place.dims, (1, 2))


def back(values: Tensor, dims: tuple[int, int] | None) -> Tensor:
    """The way back, to rows and columns in those dims."""
    return values.flatten(0, 2) if dims is None else values.movedim((1, 2), dims)


@dataclass(frozen=True)
class Need:
    """A clean activation in the form in which boxes are cut from it: padded, (rows, columns, the rest)."""

    ref: Ref
    dims: tuple[int, int] | None
    size: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom
    fill: float = 0.0


def prepared(clean: Tensor, need: Need) -> Tensor:
    """A clean activation in that form."""
    values = clean.view(*need.size, *clean.shape[1:]) if need.dims is None else clean.movedim(need.dims, (1, 2))[0]
    if any(need.pads):
        beyond = [0, 0] * (values.ndim - 2)
        values = F.pad(values, [*beyond, *need.pads], value=need.fill)
    return values.contiguous()


def numbered(span: Span) -> Places:
    """(K, size): the numbers of the rows."""
    return span.starts[:, None] + np.arange(span.size)


def cut(clean: Tensor, rows: Span, columns: Span) -> Tensor:
    """(K, rows, columns, the rest) of a prepared clean activation."""
    width = clean.shape[1]
    if rows.size * columns.size == clean.shape[0] * width:
        return clean.expand(len(rows.starts), *clean.shape).clone()
    down, across = torch.from_numpy(numbered(rows)) * width, torch.from_numpy(numbered(columns))
    index = (down[:, :, None] + across[:, None, :]).flatten().to(clean.device)
    found = clean.flatten(0, 1).index_select(0, index)
    return found.view(len(rows.starts), rows.size, columns.size, *clean.shape[2:])


def overlap(offset: int, size: int, room: int) -> tuple[slice, slice]:
    """Which part of a box lies in a patch that starts ``offset`` before it, and where in the patch."""
    first, last = max(0, -offset), max(0, -offset, min(size, room - offset))
    return slice(first, last), slice(first + offset, last + offset)


def paste(patch: Tensor, box: Tensor, down: Places, across: Places) -> None:
    """Each box into its patch, ``down`` rows and ``across`` columns from the patch's corner; in place."""
    code = down * (1 << 20) + across
    for one in np.unique(code):
        where = np.flatnonzero(code == one)
        (a, y), (b, x) = (
            overlap(int(offset[where[0]]), box.shape[dim], patch.shape[dim]) for dim, offset in ((1, down), (2, across))
        )
        if len(where) == len(code):
            patch[:, y, x] = box[:, a, b]
        elif where[-1] - where[0] == len(where) - 1:
            run = slice(int(where[0]), int(where[-1]) + 1)
            patch[run, y, x] = box[run, a, b]
        else:
            index = torch.from_numpy(where).to(box.device)
            patch[index, y, x] = box[index, a, b]


def paste_other(patch: Tensor, box: Tensor, down: Places, across: Places, other: Places) -> None:
    """Into each patch what reaches into it of box number ``other``, as :func:`paste` does with its own."""
    inside = [(offset < patch.shape[dim]) & (offset > -box.shape[dim]) for dim, offset in ((1, down), (2, across))]
    some = np.flatnonzero(inside[0] & inside[1])
    code = down[some] * (1 << 20) + across[some]
    for one in np.unique(code):
        where = some[code == one]
        (a, y), (b, x) = (
            overlap(int(offset[where[0]]), box.shape[dim], patch.shape[dim]) for dim, offset in ((1, down), (2, across))
        )
        into, out_of = (torch.from_numpy(index).to(box.device) for index in (where, other[where]))
        patch[into, y, x] = box[out_of, a, b]
