"""Pictures that are gone over in tiles, so that what is summed over them is as of the whole.

A tile is seen with a margin as wide as the receptive fields of the layers, of which nothing is counted. Tiles begin
where the strides of all layers meet. Whether a network allows it is read off its receptive fields, and tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.network import Network, laid_out
from convscope.receptive_field import ReceptiveField

Size = tuple[int, int]
LARGEST = 1024  # longer side, in pixels, up to which a picture is optimised as a whole unless it is said otherwise
TILE = 512


def size_of(images: Tensor) -> Size:
    """(H, W) of (..., H, W)."""
    return images.shape[-2], images.shape[-1]


@dataclass(frozen=True)
class Span:
    """One side of a tile: pixels ``low`` to ``high`` are seen, ``start`` to ``end`` counted; None is the border."""

    low: int
    high: int
    start: int
    end: int | None

    def counted(self, stride: int) -> slice:
        """Which positions of the tile's map count."""
        return slice((self.start - self.low) // stride, None if self.end is None else (self.end - self.low) // stride)

    def place(self, stride: int) -> slice:
        """Where they stand in the map of the whole picture."""
        return slice(self.start // stride, None if self.end is None else self.end // stride)


@dataclass(frozen=True)
class Tile:
    """A piece of a picture, and which of its positions count."""

    rows: Span
    columns: Span
    strides: Mapping[str, Size]

    def of(self, images: Tensor) -> Tensor:
        """Its pixels, margin included; a view."""
        return images[..., self.rows.low : self.rows.high, self.columns.low : self.columns.high]

    def counted(self, name: str, maps: Tensor) -> Tensor:
        """What of its maps (N, C, h, w) counts."""
        down, right = self.strides[name]
        return maps[..., self.rows.counted(down), self.columns.counted(right)]

    def place(self, name: str) -> tuple[slice, slice]:
        down, right = self.strides[name]
        return self.rows.place(down), self.columns.place(right)


@dataclass(frozen=True)
class Cover:
    """How pictures are gone over: as a whole, or in tiles of about ``side`` pixels, not counting margins.

    Tiles begin where the strides of all layers meet, so that each position of each map is computed in one tile as in
    the whole picture, from all the pixels that it sees.
    """

    layers: Sequence[str]
    side: int | None = None
    grid: _Grid | None = None

    @classmethod
    def tiled(cls, network: Network, layers: Sequence[str], side: int) -> Cover:
        """In tiles.

        Raises OptionError for networks of which the above is not so: something global, whose receptive field is the
        picture; positions that matter; operators that could not be followed.
        """
        grid = _Grid.of(network, layers)
        grid.check(network, layers)
        return cls(layers, side, grid)

    def parts(self, size: Size) -> list[Tile]:
        """The tiles of a picture; a single one where it is no larger than a tile."""
        if self.grid is None or self.side is None or max(size) <= self.side:
            spans = [Span(0, length, 0, None) for length in size]
            return [Tile(spans[0], spans[1], dict.fromkeys(self.layers, (1, 1)))]
        return self.grid.tiles(size, self.side)


@dataclass(frozen=True)
class _Grid:
    """Strides of layers, where they all meet (``step``), and how far beyond that a position sees (``margin``)."""

    strides: Mapping[str, Size]
    step: int
    margin: int

    @classmethod
    def of(cls, network: Network, layers: Sequence[str]) -> _Grid:
        fields = {name: _local(network, name) for name in layers}
        order = [info.name for info in network.layers()]
        deepest = max(order.index(name) for name in layers)
        met = [
            network.receptive_fields[name].stride for name in order[: deepest + 1] if name in network.receptive_fields
        ]
        every = [int(s) for stride in met for s in stride if s >= 1 and s == int(s)]
        step = math.lcm(*every)
        reach = 0.0
        for field in fields.values():
            for size, stride, offset in zip(field.size, field.stride, field.offset, strict=True):
                half = (size - 1) / 2
                reach = max(reach, half - offset, half + offset - stride + 1)
        strides = {name: (int(field.stride[0]), int(field.stride[1])) for name, field in fields.items()}
        return cls(strides, step, math.ceil(reach / step) * step)

    def tiles(self, size: Size, side: int) -> list[Tile]:
        spans = [self._spans(length, max(1, side // self.step) * self.step) for length in size]
        return [Tile(rows, columns, self.strides) for rows in spans[0] for columns in spans[1]]

    def _spans(self, length: int, core: int) -> list[Span]:
        """The last one takes what is left, up to half a tile more, so that none is a sliver."""
        starts = list(range(0, max(1, length - core // 2), core))
        ends: list[int | None] = [*starts[1:], None]
        return [
            Span(max(0, start - self.margin), length if end is None else min(length, end + self.margin), start, end)
            for start, end in zip(starts, ends, strict=True)
        ]

    def check(self, network: Network, layers: Sequence[str]) -> None:
        """Whether tiles of a picture of noise say what the whole says: a proof by trial, on as little as will do."""
        side = 2 * self.margin + 2 * self.step
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(network.device)
        with torch.no_grad():
            expected = layer_maps(network, noise, layers)
            for tile in self.tiles((side, side), self.margin + self.step):
                found = layer_maps(network, tile.of(noise), layers)
                for name in layers:
                    rows, columns = tile.place(name)
                    here, there = tile.counted(name, found[name]), expected[name][..., rows, columns]
                    loose = 0.05 if network.precision == "bfloat16" else 1e-3
                    if here.shape != there.shape or (here - there).abs().max() > loose * expected[name].abs().max():
                        raise OptionError(_untiled(network, name, "depends on where in the picture it looks"))


def _local(network: Network, name: str) -> ReceptiveField:
    """The receptive field of a layer that looks at a part of the picture only."""
    network.layer(name)
    field = network.receptive_fields.get(name)
    if field is None or field.inexact:
        raise OptionError(_untiled(network, name, "cannot be followed back to the pixels"))
    if field.whole:
        raise OptionError(_untiled(network, name, "sees the whole picture at once"))
    if any(stride < 1 or stride != int(stride) for stride in field.stride):
        raise OptionError(_untiled(network, name, "does not stand at every so many pixels"))
    return field


def _untiled(network: Network, name: str, why: str) -> str:
    return (
        f"{network.name} cannot be gone over in tiles: layer {name!r} {why}; choose layers before it, or a smaller "
        "picture without tiles"
    )


def layer_maps(network: Network, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Layer to maps (N, C, h, w), differentiable where the pictures are."""
    seen = observe(network, laid_out(images), layers)
    return {name: network.maps(name, seen[name]) for name in layers}


def maps_of(network: Network, images: Tensor, layers: Sequence[str], cover: Cover) -> dict[str, Tensor]:
    """Layer to maps (N, C, h, w) of the whole picture in at least float32, without a graph."""
    rows: dict[str, list[tuple[tuple[slice, slice], Tensor]]] = {name: [] for name in layers}
    with torch.no_grad():
        for tile in cover.parts(size_of(images)):
            for name, found in layer_maps(network, tile.of(images), layers).items():
                wide = found.to(torch.promote_types(found.dtype, torch.float32))
                rows[name].append((tile.place(name), tile.counted(name, wide)))
    return {name: _assembled(pieces) for name, pieces in rows.items()}


def _assembled(pieces: Sequence[tuple[tuple[slice, slice], Tensor]]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0][1]
    (rows, columns), last = pieces[-1]  # which reaches to both ends
    sizes = ((rows.start or 0) + last.shape[-2], (columns.start or 0) + last.shape[-1])
    found = last.new_empty(*last.shape[:2], *sizes)
    for (rows, columns), piece in pieces:
        found[..., rows, columns] = piece
    return found


def grids_of(network: Network, images: Tensor, layers: Sequence[str], cover: Cover) -> dict[str, Size]:
    """Layer to the rows and columns of its map of the whole picture."""
    found = {}
    tile = cover.parts(size_of(images))[-1]  # which reaches to both ends
    with torch.no_grad():
        for name, maps in layer_maps(network, tile.of(images), layers).items():
            here, places = tile.counted(name, maps), tile.place(name)
            found[name] = ((places[0].start or 0) + here.shape[-2], (places[1].start or 0) + here.shape[-1])
    return found


def covering(network: Network, layers: Sequence[str], size: Size, side: int | None) -> tuple[Cover, list[str]]:
    """How a picture is gone over, and what to say of it: in tiles where they are asked for, or where it is large.

    A large picture on a network that has no tiles is optimised as a whole.
    """
    if side is not None:
        return Cover.tiled(network, layers, side), []
    if max(size) <= LARGEST:
        return Cover(layers), []
    try:
        return Cover.tiled(network, layers, TILE), []
    except OptionError as error:
        return Cover(layers), [str(error)]
