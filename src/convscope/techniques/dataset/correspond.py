"""Do codes find the same part in two pictures? (Long, Zhang & Darrell 2014, arXiv:1411.1091)

Points of a picture are looked for in other pictures of its class: where does the layer compute the most similar thing?
If its features stand for parts, the eye of one cat is found on the eye of another. Each find is followed back; where
that leads elsewhere, the find is doubtful. And the picture is put together from pieces of the other pictures, each the
one whose features are nearest (section 3): what comes out shows what the features care about.

How exact it is, is measured where the truth is known (as in their section 4): the pictures are bent by chance, and
points of the bent one looked for in the straight one, by the layer, by SIFT descriptors on the same places (Lowe 2004),
and anywhere.

Departures: features less their mean over the picture, compared by cosine, and moved between cells by a parabola; no
smoothing over neighbouring points; SIFT is upright, at the best of three sizes, which favours it; pieces are two
strides wide and blended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.errors import IndexUnusable, OptionError
from convscope.index import Index
from convscope.intervals import proportion
from convscope.network import Network
from convscope.registry import Layer, Seed, Target, technique
from convscope.results import Matches
from convscope.techniques.dataset._places import Grid, at, describe, errors_of, find, grid_of

FINE = 12  # cells of the shorter side that a layer should have at least
TOLERANCES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)  # of the longer side
POINTS = 60  # of each picture in the check


@technique(
    family="dataset",
    order=9,
    paper="Long, Zhang & Darrell 2014, arXiv:1411.1091; Lowe 2004 for SIFT",
    see=(
        "Dots of one colour on the same part in every picture. A hollow dot did not find its way back. The curve says "
        "how often points of bent pictures are found, against SIFT."
    ),
    caution=(
        "Bent pictures are an easy test: light and pose stay the same. Between different things of a class nothing "
        "is known but what the eye sees."
    ),
    quick={"others": 2, "pool": 3, "count": 2, "check": 1},
    example={},
)
def correspond(
    index: Index,
    images: Tensor,
    *,
    target: Annotated[Target, Field(description="class of the others; the predicted one if left out")] = None,
    points: Annotated[
        Sequence[str] | None,
        Field(description="ROW,COLUMN in pixels of the prepared picture; again for more; chosen if left out"),
    ] = None,
    count: Annotated[int, Field(ge=1, le=12, description="how many points are chosen")] = 5,
    layer: Layer = None,
    others: Annotated[int, Field(ge=1, le=12, description="pictures in which they are looked for")] = 4,
    pool: Annotated[int, Field(ge=1, description="pictures whose pieces a picture is put together from")] = 24,
    check: Annotated[int, Field(ge=0, le=64, description="pictures that are bent to see how exact it is")] = 4,
    seed: Seed = 0,
) -> Matches:
    """Where points of a picture are found again in others of its class, and how exact that is on bent pictures.

    Args:
        index: whose pictures can still be read, two or more.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], of the network's size.
        target: the class of the others; the predicted one for None. They are its pictures in the index with the most
            similar codes, the picture itself left out, and where these run out the nearest of any class.
        points: "ROW,COLUMN" each, or None for those most unlike the rest of the picture.
        layer: with spatial extent; the deepest one of 12 cells or more a side for None.
        check: as many of the given pictures and their others; 0 for no check.
        seed: of the bending.

    Returns:
        ``values`` (N, others, points, 4): row and column in pixels, cosine, and how far off the way back leads, in
        pixels. ``found`` holds for ``network``, ``SIFT`` and ``anywhere`` the share of points of bent pictures found
        within each of ``tolerances`` (of the longer side), with its interval (Wilson).

    Raises:
        IndexUnusable: too few pictures; UnknownLayer; OptionError: points that lie outside, or a layer without extent.
    """
    network = index.network
    name = _layer(network, layer)
    matched = [_one(index, network, name, image[None], target, points, count, others, pool) for image in images]
    bent = torch.cat([images.cpu(), *(each.others for each in matched)])[:check]
    errors = errors_of(network, name, bent, POINTS, seed) if check else {}
    found = {way: _shares(away) for way, away in errors.items() if len(away)}
    return Matches(
        values=torch.stack([each.places for each in matched]), points=torch.stack([each.points for each in matched]),
        images=images, others=torch.stack([each.others for each in matched]),
        rebuilt=torch.stack([each.rebuilt for each in matched]), tolerances=TOLERANCES, found=found, layer=name,
        titles=[each.label for each in matched], summaries=[_summary(each, found) for each in matched],
        notes=_notes(found, len(bent)),
    )  # fmt: skip


def _layer(network: Network, given: str | None) -> str:
    if given is not None:
        if not network.layer(given).spatial:
            raise OptionError(f"layer {given!r} has no spatial extent, so nothing has a place there; name another")
        return given
    fine = [n for n in network.convolution_layers if min(network.layer(n).grid or (0,)) >= FINE]
    finest = max(network.convolution_layers, key=lambda n: min(network.layer(n).grid or (0,)))
    return fine[-1] if fine else finest


# ---- one picture


@dataclass(frozen=True)
class Matched:
    """One picture with its points (P, 2), others (M, 3, H, W) by ``ids`` and ``paths``, places (M, P, 4), and the
    picture put together from pieces (3, H, W)."""

    label: str
    points: Tensor
    ids: list[int]
    paths: list[str]
    others: Tensor
    places: Tensor
    rebuilt: Tensor


def _one(
    index: Index, network: Network, layer: str, image: Tensor, target: Any, points: Sequence[str] | None, count: int,
    others: int, pool: int,
) -> Matched:  # fmt: skip
    with torch.no_grad():
        wanted = int(network.targets(target, network(image))[0])
    ids, paths = _alike(index, image, wanted, max(others, pool))
    pictures = torch.stack([index.prepared(id) for id in progress.over(ids, "pictures")])
    size = (image.shape[-2], image.shape[-1])
    if pictures.shape[-2:] != image.shape[-2:]:
        given, made = "x".join(map(str, size)), "x".join(map(str, pictures.shape[-2:]))
        raise OptionError(f"the picture has {given} pixels and those of the index {made}; network.prepare(image) fits")
    maps = describe(network, layer, torch.cat([image.cpu(), pictures]))
    grid = grid_of(network, layer, (maps.shape[2], maps.shape[3]), size)
    asked = _given(points, size) if points else chosen(maps[0], grid, count)
    some = min(others, len(ids))
    places = torch.stack([_there_and_back(maps[0], other, grid, asked) for other in maps[1 : some + 1]])
    rebuilt = put_together(maps[0], maps[1:], pictures, grid)
    return Matched(network.label(wanted), asked, ids[:some], paths[:some], pictures[:some], places, rebuilt)


def _alike(index: Index, image: Tensor, wanted: int, count: int) -> tuple[list[int], list[str]]:
    """Pictures of a class with the most similar codes, without the picture itself; then the nearest of any class."""
    rows = index.pictures(["path", "label_index", "predicted"], "error is null").to_pydict()
    labels, predicted = np.array(rows["label_index"]), np.array(rows["predicted"])
    classes = np.where(labels >= 0, labels, predicted)
    codes = index.codes()
    distances = np.linalg.norm(codes - index.encode(image)[0], axis=1)
    itself = distances < 1e-3 * max(float(np.median(distances)), 1e-12)
    places = [i for i in np.lexsort((distances, classes != wanted)) if not itself[i]][:count]
    if not places:
        raise IndexUnusable(f"{index.path} has no picture but this one; scan more")
    return [int(index.ids[i]) for i in places], [rows["path"][i] for i in places]


def _given(points: Sequence[str], size: tuple[int, int]) -> Tensor:
    found = []
    for text in points:
        try:
            row, column = (float(part) for part in str(text).split(","))
        except ValueError:
            raise OptionError(f"{text!r} is no point; give ROW,COLUMN in pixels, such as 40,64") from None
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            raise OptionError(f"point {text} lies outside the picture of {size[0]}x{size[1]} pixels")
        found.append([row, column])
    return torch.tensor(found)


def chosen(maps: Tensor, grid: Grid, count: int) -> Tensor:
    """(P, 2) pixels: cells of maps (C, h, w) most unlike all others, in turn, each away from those before it."""
    height, width = maps.shape[-2:]
    flat = maps.flatten(1).T
    unlike = -(flat @ flat.mean(0))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns], -1).flatten(0, 1).float()
    border = torch.tensor([height, width]).float()
    edge = torch.minimum(places, border - 1 - places).min(1).values < (1 if min(height, width) > 4 else 0)
    unlike[edge] = -torch.inf
    apart = min(height, width) / 5
    found: list[Tensor] = []
    for _ in range(count):
        best = places[unlike.argmax()]
        found.append(best)
        unlike = torch.where((places - best).norm(dim=1) < apart, unlike - 10, unlike)
    return grid.pixels(torch.stack(found))


def _there_and_back(own: Tensor, other: Tensor, grid: Grid, points: Tensor) -> Tensor:
    """(P, 4) where points are found in another picture: row, column, cosine, and pixels off on the way back."""
    there, likeness = find(at(own, grid.places(points)), other)
    back, _ = find(at(other, there), own)
    away = (grid.pixels(back) - points).norm(dim=1)
    return torch.cat([grid.pixels(there), likeness[:, None], away[:, None]], 1)


def put_together(own: Tensor, maps: Tensor, pictures: Tensor, grid: Grid) -> Tensor:
    """(3, H, W) from pieces of pictures (M, 3, H, W): for each cell of ``own`` (C, h, w) the piece whose features in
    ``maps`` (M, C, h, w) are nearest, two strides wide, blended by a raised cosine."""
    height, width = pictures.shape[-2:]
    wide = [max(2, 2 * round(step)) for step in grid.stride]
    pool = maps.movedim(1, -1).flatten(0, 2)
    nearest = (own.flatten(1).T @ pool.T).argmax(1)
    padded = torch.nn.functional.pad(pictures, (wide[1], wide[1], wide[0], wide[0]), mode="replicate")
    window = torch.hann_window(wide[0] + 2)[1:-1, None] * torch.hann_window(wide[1] + 2)[None, 1:-1]
    corners = (grid.centres() + 0.5 + torch.tensor(wide) / 2).round().long()  # of the padded picture
    canvas, weight = torch.zeros(3, *padded.shape[-2:]), torch.zeros(padded.shape[-2:])
    for cell, source in enumerate(nearest.tolist()):
        picture, place = divmod(source, len(corners))
        (top, left), (y, x) = corners[place].tolist(), corners[cell].tolist()
        piece = padded[picture, :, top : top + wide[0], left : left + wide[1]]
        canvas[:, y : y + wide[0], x : x + wide[1]] += piece * window
        weight[y : y + wide[0], x : x + wide[1]] += window
    made = canvas / weight.clamp(min=1e-6)
    inside = made[:, wide[0] : wide[0] + height, wide[1] : wide[1] + width]
    return inside.clamp(0, 1)


# ---- how exact it is


def _shares(errors: Tensor) -> Tensor:
    """(3, T): share of errors within each tolerance, and the ends of its interval."""
    found = [proportion(int((errors <= tolerance).sum()), len(errors)) for tolerance in TOLERANCES]
    return torch.tensor([[each.mean for each in found], [each.low for each in found], [each.high for each in found]])


def _notes(found: dict[str, Tensor], pictures: int) -> list[str]:
    if "network" not in found:
        return []
    place = TOLERANCES.index(0.1)

    def said(way: str) -> str:
        share, low, high = (100 * float(v) for v in found[way][:, place])
        return f"{share:.0f} % ({low:.0f} to {high:.0f})"

    return [
        f"of points of {pictures} bent pictures {said('network')} are found within a tenth of the longer side; by SIFT "
        f"{said('SIFT')}; pointing anywhere {100 * float(found['anywhere'][0, place]):.0f} %"
    ]


def _summary(each: Matched, found: dict[str, Tensor]) -> dict[str, Any]:
    matches = [
        {
            "id": id, "path": path,
            "points": [
                {"row": row, "column": column, "likeness": likeness, "way_back": away}
                for row, column, likeness, away in places
            ],
        }
        for id, path, places in zip(each.ids, each.paths, each.places.tolist(), strict=True)
    ]  # fmt: skip
    check = {way: dict(zip(map(str, TOLERANCES), shares[0].tolist(), strict=True)) for way, shares in found.items()}
    return {"class": each.label, "points": each.points.tolist(), "matches": matches, "check": check}
