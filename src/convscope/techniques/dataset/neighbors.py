"""The pictures of a data set that a network takes for most alike, beside those that are nearest in pixels.

Two pictures are alike for a network when the euclidean distance of their codes, what the layer before the classifier
puts out, is small; that need not be so for their pixels (Krizhevsky, Sutskever & Hinton 2012, section 6.1, figure 4).

Departures: the row of nearest pictures in pixel space is ours, for comparison. It compares the pictures as the network
gets them, scaled to 32 pixels: first all thumbnails, then the best of them read again from the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.errors import IndexUnusable
from convscope.images import resize
from convscope.index import Index
from convscope.registry import Layer, technique
from convscope.results import Panel, Rows
from convscope.techniques.dataset._pictures import SIDE, in_parts, in_pixels, rows_of, short, tile

AGAIN = 4  # times as many as are wanted are compared again, as they are in the source
SAME = 1 / 255  # of a pixel's value: what the same file may differ by when it is read twice
NEAR = 1e-2  # of a code's length: how near the code of the same picture is, also in half precision
ASKED = 100  # codes of the index that recall is measured with, beside the pictures themselves
TILE = 128  # pixels
Ranked: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]  # ids and distances, nearest first


@technique(
    family="dataset",
    order=1,
    paper="Krizhevsky, Sutskever & Hinton 2012, ImageNet Classification with Deep CNNs, section 6.1, figure 4",
    see=(
        "In code space pictures of one kind, whatever their pose, colour and light; in pixel space pictures with the "
        "same bright and dark places."
    ),
    caution=(
        "Near in code space is near for this layer of this network only. The nearest of a data set are shown, however "
        "far they are: compare the distances."
    ),
    quick={"count": 3},
)
def neighbors(
    index: Index,
    images: Tensor,
    *,
    layer: Layer = None,
    count: Annotated[int, Field(ge=1, description="neighbours of each picture")] = 6,
    approximate: Annotated[
        bool, Field(description="ask the vector index instead of comparing with every code, and say how many it finds")
    ] = False,
    itself: Annotated[bool, Field(description="list the picture itself too, where the index holds it")] = False,
    pixels: Annotated[bool, Field(description="compare in pixel space as well")] = True,
) -> Rows:
    """The pictures of a data set that the network takes for most alike, beside those that are nearest in pixels.

    Args:
        index: what a scan wrote.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], prepared for the index's network.
        layer: of whose codes; the index's first code layer if left out.
        count: neighbours.
        approximate: by LanceDB's vector index, where the index is large enough to have one. ``recall`` is then the
            share of the true neighbours that it finds, over the pictures and 100 codes of the index.
        itself: by default a picture that the index holds is told of, and is not its own neighbour.
        pixels: search in pixel space too.

    Returns:
        ``values`` (N, count), euclidean distances in code space, nearest first, NaN where the index holds fewer. Each
        summary holds ``neighbors`` and ``pixel_neighbors``, nearest first, each with ``path``, ``label`` and
        ``distance`` (in pixel space of all values of 32 x 32 pixels in [0, 1]), and ``itself``, the paths at which the
        index holds this very picture.

    Raises:
        OptionError: the index has no codes of that layer.
        IndexUnusable: the network is not the one that was scanned with.
    """
    name = layer or index.code_layers[0]
    codes = index.encode(images, name)
    twins = [_twins(index, image, code, name) for image, code in zip(images, codes, strict=True)]
    hidden = [[] if itself else each for each in twins]
    near = [_in_codes(index, code, name, count, not approximate, out) for code, out in zip(codes, hidden, strict=True)]
    far = _in_pixels(index, images, count, hidden) if pixels else []
    recall = {"recall": _recall(index, codes, name, count)} if approximate else {}
    return _result(index, images, name, [near, far] if pixels else [near], twins, count, recall)


@dataclass(frozen=True)
class Found:
    """Pictures and how far they are, nearest first."""

    ids: list[int]
    distances: list[float]


# ---- code space


def _in_codes(
    index: Index, code: NDArray[np.float32], layer: str, count: int, exact: bool, hidden: Sequence[int]
) -> Found:
    ids, distances = index.nearest(code[None], min(count + len(hidden), len(index)), layer=layer, exact=exact)
    return _kept(ids[0], distances[0], hidden, count)


def _kept(ids: NDArray[np.int64], distances: NDArray[np.floating], hidden: Sequence[int], count: int) -> Found:
    pairs = [(int(i), float(d)) for i, d in zip(ids, distances, strict=True) if int(i) not in hidden][:count]
    return Found([i for i, _ in pairs], [d for _, d in pairs])


def _twins(index: Index, image: Tensor, code: NDArray[np.float32], layer: str) -> list[int]:
    """Ids of this very picture: with nearly the same code and, where it can be read again, the same pixels."""
    ids, distances = index.nearest(code[None], min(AGAIN, len(index)), layer=layer)
    close = [int(i) for i, d in zip(ids[0], distances[0], strict=True) if d <= NEAR * np.linalg.norm(code) + 1e-6]
    return [i for i in close if _same(index, image, i)]


def _same(index: Index, image: Tensor, id: int) -> bool:
    try:
        there = index.prepared(id)
    except IndexUnusable:  # the source is gone: a code as near as this is the best that is known
        return True
    return there.shape == image.shape and float((there - image.float().cpu()).abs().max()) <= SAME


def _recall(index: Index, codes: NDArray[np.float32], layer: str, count: int) -> float:
    """Share of the true nearest that the vector index finds."""
    some = np.linspace(0, len(index) - 1, min(ASKED, len(index))).astype(int)
    asked = np.concatenate([codes, index.codes(layer)[some]])
    exact, _ = index.nearest(asked, count, layer=layer)
    found, _ = index.nearest(asked, count, layer=layer, exact=False)
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]))


# ---- pixel space


def _in_pixels(index: Index, images: Tensor, count: int, hidden: Sequence[Sequence[int]]) -> list[Found]:
    """The nearest by thumbnails, the best of them compared again as the network gets them."""
    small = resize(images.float().cpu(), (SIDE, SIDE)).flatten(1).numpy()
    most = AGAIN * count + max(map(len, hidden))
    best: list[Ranked] = [(np.empty(0, np.int64), np.empty(0)) for _ in small]
    for rows in in_parts(index, ["thumbnail"]):
        ids = np.array([row["id"] for row in rows])
        tiles = np.stack([in_pixels(index, row["thumbnail"]) for row in rows])
        for place, wanted in enumerate(small):
            best[place] = _merged(best[place], ids, np.linalg.norm(tiles - wanted, axis=1), most)
    pairs = zip(small, best, hidden, strict=True)
    return [_again(index, wanted, ids, away, out, count) for wanted, (ids, away), out in pairs]


def _merged(before: Ranked, ids: NDArray[np.int64], distances: NDArray[Any], most: int) -> Ranked:
    """The nearest of what was found before and of these."""
    both, away = np.concatenate([before[0], ids]), np.concatenate([before[1], distances])
    order = np.argsort(away, kind="stable")[:most]
    return both[order], away[order]


def _again(
    index: Index, wanted: NDArray[np.float32], ids: NDArray[np.int64], away: NDArray[np.float64],
    hidden: Sequence[int], count: int,
) -> Found:  # fmt: skip
    try:
        exact = [
            resize(index.prepared(int(i)), (SIDE, SIDE)).flatten().numpy() for i in progress.over(ids, "candidates")
        ]
        away = np.linalg.norm(np.stack(exact) - wanted, axis=1)
    except IndexUnusable:  # the thumbnails must do
        pass
    order = np.argsort(away, kind="stable")
    return _kept(ids[order], away[order], hidden, count)


# ---- the result


def _result(
    index: Index, images: Tensor, layer: str, spaces: Sequence[Sequence[Found]], twins: Sequence[Sequence[int]],
    count: int, recall: dict[str, float],
) -> Rows:  # fmt: skip
    ids = sorted({i for space in spaces for found in space for i in found.ids} | {i for each in twins for i in each})
    known = dict(zip(ids, rows_of(index, ids, ["path", "label"]), strict=True))
    names = [f"Nearest in code space, layer {layer}", "Nearest in pixel space"]
    panels = [_panel(index, name, space, known) for name, space in zip(names, spaces, strict=False)]
    values = torch.full((len(images), count), torch.nan)
    for row, found in zip(values, spaces[0], strict=True):
        row[: len(found.distances)] = torch.tensor(found.distances)
    summaries = []
    for place, each in enumerate(twins):
        listed = [_listed(space[place], known) for space in spaces]
        said = dict(zip(("neighbors", "pixel_neighbors"), listed, strict=False))
        summaries.append({"layer": layer, **said, "itself": [known[i]["path"] for i in each], **recall})
    return Rows(
        values=values, layer=layer, summaries=summaries, panels=panels, titles=[""] * len(images), images=images,
        subtitles=[_told(each, known) for each in twins] if any(twins) else (),
        stacked=True, notes=_notes(recall, images, twins, known),
    )  # fmt: skip


def _panel(index: Index, name: str, space: Sequence[Found], known: dict[int, dict[str, Any]]) -> Panel:
    tiles = [_tiles(index, found.ids) for found in space]
    captions = [
        [f"{known[i]['label'] or short(known[i]['path'])}\n{d:.3g}" for i, d in zip(f.ids, f.distances, strict=True)]
        for f in space
    ]  # fmt: skip
    return Panel(name, tiles, captions=captions)


def _tiles(index: Index, ids: Sequence[int]) -> Tensor:
    return torch.stack([tile(index, i, TILE) for i in ids]) if ids else torch.zeros(0, 3, TILE, TILE)


def _listed(found: Found, known: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"path": known[i]["path"], "label": known[i]["label"], "distance": d}
        for i, d in zip(found.ids, found.distances, strict=True)
    ]  # fmt: skip


def _told(twins: Sequence[int], known: dict[int, dict[str, Any]]) -> str:
    return f"itself in the index: {', '.join(short(known[i]['path']) for i in twins)}" if twins else ""


def _notes(
    recall: dict[str, float], images: Tensor, twins: Sequence[Sequence[int]], known: dict[int, dict[str, Any]]
) -> list[str]:
    notes = [f"picture {place + 1} is {_told(each, known)}" for place, each in enumerate(twins) if each]
    found = [f"the vector index finds {recall['recall']:.1%} of the true neighbours"] if recall else []
    return notes + found
