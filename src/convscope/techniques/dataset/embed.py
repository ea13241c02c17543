"""A data set in the plane, by what a network makes of its pictures: PCA, t-SNE or UMAP of their codes.

t-SNE places the pictures so that the probabilities with which they are neighbours in the plane, q, are those that they
have in code space, p: it minimises KL(p || q) (van der Maaten & Hinton 2008, section 3). As a grid, every picture gets
a cell of its own, and of all ways to hand them out the one with the least sum of squared distances is taken: a linear
assignment problem, solved exactly.

How far to trust it is reported beside it: trustworthiness (Venna & Kaski 2001), the divergence that is left, and how
well the classes part, in the plane and in code space alike.

Departures: t-SNE sees the first 50 principal components of the codes, starts from the first two, and is computed by
openTSNE, which approximates the forces between pictures that are far apart: by interpolation from 3,000 pictures on
(Linderman et al. 2019), by a tree below (van der Maaten 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from convscope import progress
from convscope.errors import OptionError
from convscope.extras import require
from convscope.index import Index
from convscope.registry import Layer, Seed, technique
from convscope.results import Embedding
from convscope.techniques.dataset._pictures import rows_of, short, thumbnails
from convscope.techniques.dataset._plane import Points, affinities, assigned, lattice_for, principal, snapped
from convscope.techniques.dataset._quality import agreement, silhouette, trustworthiness

Method = Literal["tsne", "pca", "umap"]
Arrangement = Literal["scatter", "grid", "poster"]

COMPONENTS = 50  # of the PCA before t-SNE and UMAP
STEPS = 750  # of t-SNE: 250 of them with exaggerated attraction
INTERPOLATED = 3_000  # pictures from which interpolated forces are the faster ones
FEWEST = 5  # pictures
MOST = {"scatter": 10_000, "grid": 2_500, "poster": 10_000}
SIDES = {"scatter": 64, "grid": 64, "poster": 40}  # pixels of a thumbnail
LARGEST_GRID = 5_000  # pictures that are assigned; the time grows with the cube of their number
ROOM = 1.7  # cells of a poster for each picture


@technique(
    family="dataset",
    order=2,
    paper=(
        "van der Maaten & Hinton 2008, Visualizing Data using t-SNE, JMLR 9; Linderman et al. 2019, arXiv:1712.09005; "
        "McInnes et al. 2018, arXiv:1802.03426"
    ),
    see="Pictures that the network takes for alike stand together. Look for classes that it keeps apart, or mixes.",
    caution=(
        "Distances between islands, and their sizes, mean nothing in t-SNE and UMAP; another seed or perplexity gives "
        "another map. Trustworthiness says whether neighbours in the map are neighbours for the network."
    ),
    quick={"method": "pca", "size": 8},
    example={"arrangement": "grid"},
)
def embed(
    index: Index,
    *,
    layer: Layer = None,
    method: Annotated[Method, Field(description="what brings the codes into the plane")] = "tsne",
    arrangement: Annotated[
        Arrangement,
        Field(description="points; a full grid of thumbnails; or a poster of thumbnails near their points"),
    ] = "scatter",
    perplexity: Annotated[
        float, Field(gt=0, description="how many neighbours a picture has, for t-SNE and UMAP")
    ] = 30.0,
    most: Annotated[
        int | None,
        Field(
            ge=FEWEST, description="pictures, of more drawn by the seed; 2,500 in a grid and 10,000 else if left out"
        ),
    ] = None,
    nearest: Annotated[int, Field(ge=1, description="neighbours for trustworthiness and for naming a class")] = 10,
    size: Annotated[
        int | None,
        Field(ge=4, le=256, description="side of a thumbnail, in pixels; 40 on a poster and 64 else if left out"),
    ] = None,
    seed: Seed = 0,
) -> Embedding:
    """A map of a data set: pictures that the network takes for alike stand together.

    Args:
        index: what a scan wrote.
        layer: of whose codes; the index's first code layer if left out.
        method: ``tsne``, ``pca`` or ``umap`` (which the extra ``umap`` brings).
        arrangement: ``scatter``; ``grid``, every cell taken, assigned optimally; ``poster``, thumbnails at the free
            cells nearest to their points. ``save("x.html")`` makes a page that shows each picture under the pointer.
        perplexity: of t-SNE, at most a third of the pictures; for UMAP its number of neighbours.
        most: pictures at most.
        nearest: neighbours for the measures.
        size: side of the thumbnails in the picture and on the page.
        seed: of the pictures drawn and of the method.

    Returns:
        ``values`` (N, 2), the places in the plane. The summary holds ``trustworthiness`` in [0, 1]; for t-SNE
        ``kl_divergence`` in nats and for PCA ``variance``, the share of the two components; and, by the labels or else
        the predicted classes, ``silhouette`` in [-1, 1] and ``neighbour_accuracy`` in [0, 1], in the map and of
        the codes, with ``chance``, the share of the largest class.

    Raises:
        OptionError: fewer than 5 pictures, a layer without codes, more pictures than a grid can be assigned for.
        MissingExtra: openTSNE, scikit-learn or umap-learn is not installed.
    """
    name = layer or index.code_layers[0]
    codes = index.codes(name)
    chosen = _drawn(len(codes), most or MOST[arrangement], seed)
    if len(chosen) < FEWEST:
        raise OptionError(f"{index.path} holds {len(chosen)} pictures, and a map takes at least {FEWEST}; scan more")
    if arrangement == "grid" and len(chosen) > LARGEST_GRID:
        raise OptionError(f"a grid of more than {LARGEST_GRID:,} takes hours; lower most, or arrange a poster")
    codes, ids = codes[chosen], index.ids[chosen].tolist()
    points, found = METHODS[method](codes, perplexity, seed)
    known = _known(index, ids)
    places, lattice = _arranged(points, arrangement)
    summary = {
        "layer": name,
        "method": method,
        "pictures": len(ids),
        **found,
        **_measured(codes, points, known, nearest),
    }
    return Embedding(
        values=torch.from_numpy(np.ascontiguousarray(points)), layer=name, per_picture=False, summaries=[summary],
        groups=torch.from_numpy(known.groups), group_names=known.kinds, names=known.names, fields=known.fields,
        thumbnails=thumbnails(index, ids, size or SIDES[arrangement]), arrangement=arrangement, lattice=lattice,
        places=None if places is None else torch.from_numpy(places), notes=_notes(index, ids, known),
    )  # fmt: skip


def _drawn(total: int, most: int, seed: int) -> NDArray[np.int64]:
    """All pictures, or as many as there may be, in the order of the source."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


# ---- methods


def _pca(codes: NDArray[np.float32], perplexity: float, seed: int) -> tuple[Points, dict[str, float]]:
    points, share = principal(codes, 2)
    return points, {"variance": share}


def _tsne(codes: NDArray[np.float32], perplexity: float, seed: int) -> tuple[Points, dict[str, float]]:
    reduced, _ = principal(codes, min(COMPONENTS, codes.shape[1]))
    perplexity = min(perplexity, (len(codes) - 1) / 3)
    workers = torch.get_num_threads()
    near = affinities(reduced, perplexity, seed, workers, "index")
    with progress.counting("steps", STEPS) as counter:

        def told(*_: Any) -> None:
            counter.turn(50)
            counter.done()

        found = require("openTSNE", "index").TSNE(
            perplexity=perplexity, initialization="pca", random_state=seed, n_jobs=workers,
            negative_gradient_method="fft" if len(codes) >= INTERPOLATED else "bh",
            callbacks=told, callbacks_every_iters=50,
        ).fit(reduced, near)  # fmt: skip
    points = np.asarray(found, dtype=np.float64)
    return points, {"perplexity": perplexity, "kl_divergence": float(found.kl_divergence)}


def _umap(codes: NDArray[np.float32], perplexity: float, seed: int) -> tuple[Points, dict[str, float]]:
    reduced, _ = principal(codes, min(COMPONENTS, codes.shape[1]))
    near = max(2, min(round(perplexity), len(codes) - 1))
    made = require("umap", "umap").UMAP(n_neighbors=near, random_state=seed, n_jobs=1)
    return np.asarray(made.fit_transform(reduced), dtype=np.float64), {"neighbours": near}


METHODS = {"tsne": _tsne, "pca": _pca, "umap": _umap}


def _arranged(points: Points, arrangement: Arrangement) -> tuple[NDArray[np.int64] | None, tuple[int, int]]:
    if arrangement == "scatter":
        return None, (0, 0)
    if arrangement == "grid":
        lattice = lattice_for(len(points))
        return assigned(points, lattice), lattice
    extent = np.ptp(points, axis=0)
    shape = float(np.clip(extent[0] / extent[1] if extent[1] > 0 else 1.0, 0.5, 2.0))
    lattice = lattice_for(round(ROOM * len(points)), shape)
    return snapped(points, lattice), lattice


# ---- what is known of the pictures


@dataclass(frozen=True)
class Known:
    """Groups (N,) with their names, -1 where there is none; names and more of each picture."""

    groups: NDArray[np.int64]
    kinds: list[str]
    names: list[str]
    fields: dict[str, list[str]]
    labelled: bool


def _known(index: Index, ids: Sequence[int]) -> Known:
    rows = rows_of(index, ids, ["path", "label", "predicted", "probability"])
    taken = [index.network.label(row["predicted"]) for row in rows]
    labelled = any(row["label"] is not None for row in rows)
    words = [row["label"] for row in rows] if labelled else taken
    kinds = sorted({word for word in words if word is not None})
    place = {kind: n for n, kind in enumerate(kinds)}
    said = [f"{name} ({row['probability']:.0%})" for name, row in zip(taken, rows, strict=True)]
    return Known(
        np.array([-1 if word is None else place[word] for word in words]), kinds,
        [short(row["path"]) for row in rows], {"taken for": said}, labelled,
    )  # fmt: skip


def _measured(codes: NDArray[np.float32], points: Points, known: Known, count: int) -> dict[str, float]:
    measures = {"trustworthiness": trustworthiness(codes, points, count)}
    there = known.groups >= 0
    groups = known.groups[there]
    spaces: dict[str, NDArray[np.floating]] = {"": points[there], "_of_codes": codes[there]}
    for name, each in progress.over(spaces.items(), "measures"):
        measures[f"silhouette{name}"] = silhouette(each, groups)
        measures[f"neighbour_accuracy{name}"] = agreement(each, groups, count)
    measures["chance"] = float(np.bincount(groups).max() / len(groups)) if len(groups) else float("nan")
    return {name: value for name, value in measures.items() if np.isfinite(value)}


def _notes(index: Index, ids: Sequence[int], known: Known) -> list[str]:
    notes = [] if known.labelled else ["there are no labels: colours and measures go by the predicted classes"]
    drawn = f"{len(ids):,} of {len(index):,} pictures, drawn by chance"
    return [drawn, *notes] if len(ids) < len(index) else notes
