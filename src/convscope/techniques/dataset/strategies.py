"""What a network really looks at in the pictures of a class: its heat maps, sorted into groups that are alike.

SpRAy (Lapuschkin et al. 2019, arXiv:1902.10178, section "Spectral relevance analysis"): the maps are made small, a
graph joins each with its nearest, and the eigenvectors of the graph's Laplacian part it into groups; how many there are
is read off the largest gap between neighbouring eigenvalues (von Luxburg 2007, section 8.3). A wolf that is known by
the snow stands in a group of its own.

A group is looked at more closely in three ways, and all must speak against it before it is marked. First, how much of
its evidence lies outside the object: where boxes are given, outside of them; without, on a frame along the border, an
eighth of each side wide, since what is photographed stands mostly in the middle. It must be more than in the other
groups together, and at least half of what a map of no knowledge has there. Second, whether its maps are strongest at
one place, as those of a tag or a frame are. Third, an experiment: that place is blurred away in the group's pictures,
and for comparison places of the same size elsewhere. If the first loses the class more often, the network needs what is
there.

Departures: maps of any technique of convscope instead of LRP alone; their positive part, each scaled to the sum of 1;
and a comparison with chance for the gap, which the paper lacks: the same maps, each cell shuffled over the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope import progress, registry
from convscope.batching import batched
from convscope.errors import IndexUnusable, OptionError, nearest
from convscope.extras import require
from convscope.images import blurred
from convscope.index import Index
from convscope.intervals import interval, proportion
from convscope.network import Network
from convscope.registry import Seed, Target, technique
from convscope.results import Clusters, Heatmap
from convscope.techniques.dataset.attributes import box_of, read_boxes

FEWEST = 12  # pictures of a class
MOST_GROUPS = 8
NEIGHBOURS, SHARE = 10, 1 / 8  # joined with each map: so many at least, and this share of all
CHANCE = 3  # shuffles that the gap is compared with
FRAME = 1 / 8  # of a side
SPOT = 1 / 8  # of a picture's area that is blurred away
BESIDE, AT_ONE_PLACE = 0.5, 0.8  # of a suspicious group: see above
EXAMPLES = 6
TRIED = 48  # pictures of a group in the experiment, at most
SHAPES = 20  # cells of a side at most


@technique(
    family="dataset",
    order=7,
    paper="Lapuschkin et al. 2019, arXiv:1902.10178; von Luxburg 2007, section 8.3, for the gap",
    see=(
        "Groups whose evidence lies beside the object, always at the same place, and that lose the class when just "
        "that place is blurred: there the network has learned a short cut."
    ),
    caution=(
        "Groups may only part where the objects stand. A group is a question to the pictures, and its blurred place "
        "the answer."
    ),
    quick={"most": 12},
    example={"target": "disc"},
)
def strategies(
    index: Index,
    *,
    target: Annotated[
        Target, Field(description="class whose pictures are asked about; the one with the most if left out")
    ] = None,
    method: Annotated[str, Field(description="technique that makes the heat maps")] = "gradcam",
    groups: Annotated[int | None, Field(ge=1, le=32, description="how many; by the largest gap if left out")] = None,
    most: Annotated[int, Field(ge=FEWEST, description="pictures of the class, spread over all of it")] = 400,
    boxes: Annotated[
        str | Path | None,
        Field(description="CSV file of objects' boxes: path, top, left, height, width, in pixels of the stored files"),
    ] = None,
    seed: Seed = 0,
) -> Clusters:
    """Groups of pictures of one class in which the network looks at something else, and what it looks at there.

    Args:
        index: whose pictures can still be read.
        target: the class; the one with the most pictures for None. Its pictures are those labelled so, or those
            classified so in an index without labels; the maps explain its score.
        method: the name of a technique that makes heat maps, with its defaults.
        groups: how many; found by the largest gap of the eigenvalues for None.
        most: of how many pictures; of more, evenly spread ones are taken.
        boxes: a CSV file with a head line; a picture is found by the end of its path.
        seed: of the shuffles and of k-means.

    Returns:
        ``values`` (N, h, w): the maps that were sorted, positive and of sum 1. The summary holds ``eigenvalues``,
        ``gap`` and ``gap_by_chance``, and for each of the ``groups``: ``pictures``, ``ids``, ``accuracy`` (share
        classified as the class), ``outside`` (share of the evidence outside the object, or on the frame) with its
        interval, ``same_place`` (share of pictures whose strongest cell lies where the group's does), ``lost`` and
        ``lost_elsewhere`` (share of pictures that lose the class when the place, or one elsewhere, is blurred), and
        ``suspicious``.

    Raises:
        IndexUnusable: too few pictures of the class. OptionError: a method that makes no heat maps; boxes that cannot
        be read. MissingExtra: scikit-learn is not installed.
    """
    network, technique = index.network, _method(method)
    chosen = _chosen(index, target, most)
    maps, images, scores = _maps(network, index, chosen, technique)
    sorted_ = spectral(maps.flatten(1).numpy(), groups, seed)
    frame = _outside(index, chosen, (maps.shape[-2], maps.shape[-1]), boxes)
    found = [
        _group(network, chosen, maps, images, scores, frame, np.flatnonzero(sorted_.groups == group))
        for group in progress.over(range(sorted_.groups.max() + 1), "groups")
    ]
    _mark(found)
    return _result(index, chosen, technique.name, maps, images, sorted_, found, boxes is not None)


# ---- which pictures, and their maps


@dataclass(frozen=True)
class Chosen:
    """The pictures of a class: ids (N,), paths, and how they were chosen."""

    target: int
    label: str
    ids: np.ndarray
    paths: Sequence[str]
    sizes: Sequence[tuple[int, int]]  # of the stored files
    total: int
    labelled: bool


def _method(name: str) -> Any:
    known = registry.discover()
    if name not in known or known[name].family != "attribute":
        maps = [entry.name for entry in known.values() if entry.family == "attribute"]
        raise OptionError(f"{name!r} makes no heat maps{nearest(name, maps)}; some that do: {', '.join(maps[:8])}")
    return registry.load(name)


def _chosen(index: Index, target: Any, most: int) -> Chosen:
    rows = index.pictures(["id", "path", "label_index", "predicted", "height", "width"], "error is null").to_pydict()
    labels, predicted = np.array(rows["label_index"]), np.array(rows["predicted"])
    labelled = bool((labels >= 0).any())
    classes = labels if labelled else predicted
    network = index.network
    wanted = int(np.bincount(classes[classes >= 0]).argmax()) if target is None else network.target(target)
    places = np.flatnonzero(classes == wanted)
    if len(places) < FEWEST:
        what = "labelled" if labelled else "classified as"
        raise IndexUnusable(
            f"{index.path} has {len(places)} pictures {what} {network.label(wanted)!r}, and groups need {FEWEST}; "
            "choose another --target, or scan more pictures"
        )
    spread = places[np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)]
    sizes = [(rows["height"][i], rows["width"][i]) for i in spread]
    paths = [rows["path"][i] for i in spread]
    ids = np.array(rows["id"])[spread]
    return Chosen(wanted, network.label(wanted), ids, paths, sizes, len(places), labelled)


def _maps(network: Network, index: Index, chosen: Chosen, technique: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(N, h, w) maps of sum 1, the pictures (N, 3, H, W), and the scores (N, classes)."""
    size = 16
    parts = []
    for start in progress.over(range(0, len(chosen.ids), size), "pictures"):
        images = torch.stack([index.prepared(int(id)) for id in chosen.ids[start : start + size]])
        heat = technique.on(network, images, target=chosen.target)
        if not isinstance(heat, Heatmap):
            raise OptionError(f"{technique.name} makes no heat maps; choose another --method, such as gradcam")
        with torch.no_grad():
            parts.append((small(heat), images.half(), network(images).float().cpu()))
    maps, images, scores = (torch.cat(part) for part in zip(*parts, strict=True))
    return maps, images, scores


def small(heat: Heatmap) -> Tensor:
    """(N, h, w): the positive part of maps, in their own cells or in at most :data:`SHAPES` a side, of sum 1.

    A map without a positive part is the same everywhere.
    """
    cells = heat.values if heat.cells is None else heat.cells
    height, width = cells.shape[-2:]
    share = min(1.0, SHAPES / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    positive = F.adaptive_avg_pool2d(cells.float().clamp(min=0)[:, None], size)[:, 0]
    total = positive.sum((1, 2), keepdim=True)
    return torch.where(total > 0, positive / total.clamp(min=1e-30), 1.0 / math.prod(size))


# ---- the graph and its groups


@dataclass(frozen=True)
class Spectrum:
    """Groups (N,), the largest first, and the eigenvalues they were read off, beside those of chance."""

    groups: np.ndarray
    eigenvalues: np.ndarray
    chance: np.ndarray

    @property
    def gap(self) -> float:
        return float(np.diff(self.eigenvalues[: MOST_GROUPS + 1])[1:].max(initial=0.0))

    @property
    def gap_by_chance(self) -> float:
        return float(np.diff(self.chance[: MOST_GROUPS + 1])[1:].max(initial=0.0))


def spectral(rows: np.ndarray, groups: int | None, seed: int) -> Spectrum:
    """Rows (N, D) in groups, by the normalised Laplacian of their graph (Ng, Jordan & Weiss 2001)."""
    cluster = require("sklearn.cluster", "index")
    values, vectors = np.linalg.eigh(laplacian(rows))
    chance = _by_chance(rows, seed)
    count = groups or _count(values)
    points = vectors[:, :count]
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    found = cluster.KMeans(count, n_init=10, random_state=seed).fit_predict(points)
    sizes = np.bincount(found, minlength=count)
    order = np.argsort(-sizes, kind="stable")
    return Spectrum(np.argsort(order)[found], values[: MOST_GROUPS + 4], chance[: MOST_GROUPS + 4])


def _count(eigenvalues: np.ndarray) -> int:
    """How many groups the largest gap speaks for, from two on; a graph in pieces has a zero for each."""
    gaps = np.diff(eigenvalues[: MOST_GROUPS + 1])
    return int(gaps[1:].argmax()) + 2 if len(gaps) > 1 else 1


def laplacian(rows: np.ndarray) -> np.ndarray:
    """(N, N) I - D^-1/2 W D^-1/2 of the graph that joins each row with its nearest, whichever side names the other."""
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    np.fill_diagonal(distances, np.inf)
    count = min(len(rows) - 1, max(NEIGHBOURS, round(SHARE * len(rows))))
    near = np.zeros_like(distances)
    np.put_along_axis(near, np.argsort(distances, axis=1, kind="stable")[:, :count], 1.0, axis=1)
    weights = np.maximum(near, near.T)
    scale = 1 / np.sqrt(weights.sum(1))
    found: np.ndarray = np.eye(len(rows)) - scale[:, None] * weights * scale
    return found


def _by_chance(rows: np.ndarray, seed: int) -> np.ndarray:
    """Eigenvalues where every column is shuffled by itself: the same values, and nothing that holds them together."""
    generator = np.random.default_rng(seed)
    found = [np.linalg.eigvalsh(laplacian(generator.permuted(rows, axis=0))) for _ in range(CHANCE)]
    mean: np.ndarray = np.mean(found, 0)
    return mean


# ---- a group under the glass


def _outside(index: Index, chosen: Chosen, size: tuple[int, int], boxes: str | Path | None) -> Tensor:
    """(N, h, w) share of each cell that lies outside the object, or on the frame; NaN without a box."""
    if boxes is None:
        return _frame(size)[None].expand(len(chosen.ids), -1, -1)
    known, network = read_boxes(boxes), index.network
    found = [box_of(known, path) for path in chosen.paths]
    if not any(found):
        raise OptionError(f"{boxes} names none of the pictures of {chosen.label!r}, such as {chosen.paths[0]}")
    return torch.stack([_beside(network, s, box, size) for s, box in zip(chosen.sizes, found, strict=True)])


def _frame(size: tuple[int, int]) -> Tensor:
    fine = torch.ones(8 * size[0], 8 * size[1])
    top, left = (round(8 * side * FRAME) for side in size)
    fine[top:-top, left:-left] = 0
    return F.adaptive_avg_pool2d(fine[None], size)[0]


def _beside(network: Network, stored: tuple[int, int], box: Any, size: tuple[int, int]) -> Tensor:
    if box is None:
        return torch.full(size, torch.nan)
    top, left, height, width = (round(v) for v in box)
    mask = torch.ones(3, *stored)
    mask[:, max(top, 0) : top + height, max(left, 0) : left + width] = 0
    return F.adaptive_avg_pool2d(network.prepare(mask)[:1], size)[0]


def _group(
    network: Network, chosen: Chosen, maps: Tensor, images: Tensor, scores: Tensor, outside: Tensor, part: np.ndarray
) -> dict[str, Any]:
    """What is known of one group, but for what needs the others."""
    mean = maps[part].mean(0)
    shares = (maps[part] * outside[part]).sum((1, 2))
    peak = int(mean.argmax())
    near = torch.tensor([_close(peak, int(m.argmax()), mean.shape[1]) for m in maps[part]])
    hits = int((scores[part].argmax(1) == chosen.target).sum())
    spot = hot_spot(mean, (images.shape[-2], images.shape[-1]))
    tried = part[np.linspace(0, len(part) - 1, min(TRIED, len(part))).round().astype(int)]
    lost, elsewhere, asked = _experiment(network, chosen.target, images[tried].float(), scores[tried], spot)
    return {
        "pictures": len(part), "places": part, "mean": mean, "spot": spot, "outside": interval(shares.tolist()),
        "area": float(outside[part].nanmean()), "same_place": float(near.float().mean()),
        "hits": hits, "lost": lost, "elsewhere": elsewhere, "asked": asked, "suspicious": False,
    }  # fmt: skip


def _close(one: int, other: int, width: int) -> bool:
    return max(abs(one // width - other // width), abs(one % width - other % width)) <= 1


def hot_spot(mean: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) bool: the strongest :data:`SPOT` of a mean map (h, w) enlarged to the pictures, where it is above zero."""
    large = F.interpolate(mean[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    count = round(SPOT * large.numel())
    mask = torch.zeros(large.numel(), dtype=torch.bool)
    mask[large.flatten().argsort(descending=True, stable=True)[:count]] = True
    return mask.view(size) & (large > 0)


def _experiment(network: Network, target: int, images: Tensor, scores: Tensor, spot: Tensor) -> tuple[int, float, int]:
    """How many of the pictures of the class lose it when the spot is blurred, the mean of three places elsewhere, and
    how many there were."""
    right = images[scores.argmax(1) == target]
    if not len(right):
        return 0, 0.0, 0
    soft = blurred(right, max(images.shape[-2:]) / 8)
    others = [spot.flip(0), spot.flip(1), spot.flip(0, 1)]
    others = [other & ~spot for other in others if not bool((other == spot).all())] or [spot]
    counts = [_losses(network, target, torch.where(mask, soft, right)) for mask in [spot, *others]]
    return counts[0], sum(counts[1:]) / len(others), len(right)


def _losses(network: Network, target: int, images: Tensor) -> int:
    with torch.no_grad():
        passes = batched(lambda part: network(images[part]).argmax(1).cpu(), len(images), network.at_once(images))
        return int((torch.cat(list(passes)) != target).sum())


def _mark(found: list[dict[str, Any]]) -> None:
    """Flag the groups against which all three speak."""
    for group in found:
        others = [other for other in found if other is not group]
        rest = sum(other["pictures"] for other in others) or 1
        usual = sum(other["pictures"] * other["outside"].mean for other in others) / rest
        lost = proportion(group["lost"], group["asked"])
        group["suspicious"] = bool(
            group["outside"].low > max(BESIDE * group["area"], usual)
            and group["same_place"] >= AT_ONE_PLACE
            and lost.low > group["elsewhere"] / max(group["asked"], 1)
        )


# ---- the result


def _result(
    index: Index, chosen: Chosen, method: str, maps: Tensor, images: Tensor, sorted_: Spectrum,
    found: Sequence[Mapping[str, Any]], boxed: bool,
) -> Clusters:  # fmt: skip
    shown = [_typical(maps, group) for group in found]
    pictures = torch.zeros(len(found), EXAMPLES, *images.shape[1:])
    laid = torch.zeros(len(found), EXAMPLES, *images.shape[-2:])
    for place, part in enumerate(shown):
        pictures[place, : len(part)] = images[part].float()
        large = F.interpolate(maps[part][:, None], images.shape[-2:], mode="bilinear", align_corners=False)
        laid[place, : len(part)] = large[:, 0]
    return Clusters(
        values=maps, groups=torch.from_numpy(sorted_.groups), ids=torch.from_numpy(chosen.ids),
        eigenvalues=torch.from_numpy(sorted_.eigenvalues), chance=torch.from_numpy(sorted_.chance),
        means=torch.stack([group["mean"] for group in found]),
        mean_pictures=torch.stack([images[group["places"]].float().mean(0) for group in found]),
        spots=torch.stack([group["spot"] for group in found]), examples=pictures, example_maps=laid,
        shown=[len(part) for part in shown], marks=[bool(group["suspicious"]) for group in found],
        facts=[_facts(chosen, group, boxed) for group in found], per_picture=False,
        summaries=[_summary(chosen, method, sorted_, found, boxed)],
        notes=_notes(chosen, method, sorted_, found, boxed),
    )  # fmt: skip


def _typical(maps: Tensor, group: Mapping[str, Any]) -> Tensor:
    """The pictures of a group whose maps are nearest to its mean."""
    part = torch.from_numpy(group["places"])
    distances = (maps[part] - group["mean"]).flatten(1).norm(dim=1)
    return part[distances.argsort(stable=True)[:EXAMPLES]]


def _facts(chosen: Chosen, group: Mapping[str, Any], boxed: bool) -> list[str]:
    where = "outside the object" if boxed else "on the frame"
    asked = group["asked"]
    lines = [
        f"{group['pictures']} pictures, {group['hits'] / group['pictures']:.0%} classified as {chosen.label}",
        f"{group['outside'].mean:.0%} of the evidence {where}, which is {group['area']:.0%} of the area",
        f"strongest at the same place in {group['same_place']:.0%}",
    ]
    if asked:
        lines.append(
            f"that place blurred: {group['lost'] / asked:.0%} lose the class; elsewhere: "
            f"{group['elsewhere'] / asked:.0%}"
        )
    return [line.replace("%", " %") for line in lines]


def _summary(
    chosen: Chosen, method: str, sorted_: Spectrum, found: Sequence[Mapping[str, Any]], boxed: bool
) -> dict[str, Any]:
    groups = [
        {
            "pictures": group["pictures"], "ids": chosen.ids[group["places"]].tolist(),
            "accuracy": group["hits"] / group["pictures"],
            "outside": {"share": group["outside"].mean, "low": group["outside"].low, "high": group["outside"].high},
            "same_place": group["same_place"], "asked": group["asked"],
            "lost": group["lost"] / group["asked"] if group["asked"] else None,
            "lost_elsewhere": group["elsewhere"] / group["asked"] if group["asked"] else None,
            "suspicious": group["suspicious"],
        }
        for group in found
    ]  # fmt: skip
    return {
        "target": {"label": chosen.label, "index": chosen.target}, "method": method, "pictures": len(chosen.ids),
        "outside_of": "boxes" if boxed else "frame", "eigenvalues": sorted_.eigenvalues.tolist(),
        "gap": sorted_.gap, "gap_by_chance": sorted_.gap_by_chance, "groups": groups,
    }  # fmt: skip


def _notes(
    chosen: Chosen, method: str, sorted_: Spectrum, found: Sequence[Mapping[str, Any]], boxed: bool
) -> list[str]:
    how = "labelled" if chosen.labelled else "classified as"
    some = f"{len(chosen.ids)} of {chosen.total}" if len(chosen.ids) < chosen.total else str(chosen.total)
    notes = [f"{some} pictures {how} {chosen.label}, maps by {method}; groups by the gap {sorted_.gap:.2f} between "
             f"eigenvalues, where shuffled maps have {sorted_.gap_by_chance:.2f}"]  # fmt: skip
    if not boxed:
        notes.append("without boxes, what lies on a frame of an eighth of each side counts as outside the object")
    suspects = [place + 1 for place, group in enumerate(found) if group["suspicious"]]
    if suspects:
        named = ", ".join(map(str, suspects))
        notes.append(f"look at group {named}: the network needs what stands at that place, which is not the object")
    return notes
