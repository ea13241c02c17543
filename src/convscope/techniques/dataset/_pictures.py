"""Pictures of an index as tiles: thumbnails of one size, and what is known of each."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from convscope import progress
from convscope.errors import IndexUnusable
from convscope.images import fit, read_image
from convscope.index import Index

CHUNK = 1000  # pictures that are asked for at once
SIDE = 32  # pixels of a side where pictures are compared as they are


def rows_of(index: Index, ids: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each of the ids, in their order, with these columns."""
    found: dict[int, dict[str, Any]] = {}
    wanted = sorted({int(i) for i in ids})
    for part in progress.over([wanted[n : n + CHUNK] for n in range(0, len(wanted), CHUNK)], "rows"):
        listed = ", ".join(map(str, part))
        for row in index.pictures(["id", *columns], f"id in ({listed})").to_pylist():
            found[row["id"]] = row
    return [found[int(i)] for i in ids]


def thumbnails(index: Index, ids: Sequence[int], side: int) -> Tensor:
    """(N, 3, side, side) uint8: the middle of each thumbnail."""
    tiles = np.empty((len(ids), side, side, 3), np.uint8)
    for start in progress.over(range(0, len(ids), CHUNK), "thumbnails"):
        rows = rows_of(index, ids[start : start + CHUNK], ["thumbnail"])
        for place, row in enumerate(rows, start):
            tiles[place] = np.asarray(square(row["thumbnail"], side))
    return torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous()


def square(encoded: bytes, side: int) -> Image.Image:
    """The middle of a picture, at that size."""
    return ImageOps.fit(Image.open(io.BytesIO(encoded)).convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def in_pixels(index: Index, thumbnail: bytes) -> NDArray[np.float32]:
    """(3 * SIDE * SIDE,) in [0, 1] of a picture, cropped as the network gets it."""
    return fit(read_image(thumbnail), (SIDE, SIDE), crop=index.network.crop).flatten().numpy()


def tile(index: Index, id: int, side: int) -> Tensor:
    """(3, side, side) in [0, 1]: the middle of a picture, read again; of its thumbnail where it is no longer there."""
    try:
        return fit(index.image(id), (side, side))
    except IndexUnusable:
        return fit(index.thumbnail(id), (side, side))


def in_parts(index: Index, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """All readable pictures, some at a time, so that memory does not grow with their number."""
    ids: NDArray[np.int64] = index.ids
    for start in progress.over(range(0, len(ids), CHUNK), "pictures"):
        part = ids[start : start + CHUNK]
        where = f"error is null and id >= {part[0]} and id <= {part[-1]}"
        yield index.pictures(["id", *columns], where).to_pylist()


def short(path: str) -> str:
    """The last folder and the name, which in most data sets are the class and the picture."""
    return "/".join(PurePath(path).parts[-2:])
