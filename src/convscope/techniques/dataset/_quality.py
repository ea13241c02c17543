"""How far a map in the plane can be trusted: whether its neighbours are neighbours, and whether classes part in it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from convscope import progress
from convscope.extras import require

CHUNK = 512  # pictures whose distances to all are held at once
Points = NDArray[np.floating]


def distances(points: Points, part: slice) -> NDArray[np.float32]:
    """(B, N) squared euclidean distances from some points to all; infinity to themselves."""
    some, squares = points[part], (points**2).sum(1)
    found = squares[part, None] + squares - 2 * some @ points.T
    found[np.arange(len(some)), np.arange(part.start, part.start + len(some))] = np.inf
    return found.clip(min=0)


def nearest(points: Points, count: int) -> NDArray[np.int64]:
    """(N, count) nearest others of each point, nearest first."""
    points = points.astype(np.float64) - points.mean(0)
    found = []
    for start in range(0, len(points), CHUNK):
        away = distances(points, slice(start, start + CHUNK))
        some = np.argpartition(away, count - 1, 1)[:, :count]
        found.append(np.take_along_axis(some, np.take_along_axis(away, some, 1).argsort(1, kind="stable"), 1))
    return np.concatenate(found)


def trustworthiness(codes: Points, points: Points, count: int) -> float:
    """Whether neighbours in the map are neighbours in code space (Venna & Kaski 2001): 1 if all are, 0.5 by chance.

    Those among the ``count`` nearest in the map that are not among the nearest codes cost as many ranks as they are
    beyond them. Distances are held for some pictures at a time, so that memory grows with their number only.
    """
    total = len(codes)
    if count >= total / 2:
        return math.nan
    there = nearest(points, count)
    codes = codes.astype(np.float64) - codes.mean(0)
    lost = 0
    for start in progress.over(range(0, total, CHUNK), "ranks"):
        away = distances(codes, slice(start, start + CHUNK))
        reached = np.take_along_axis(away, there[start : start + CHUNK], 1)
        away.sort(1)
        ranks = np.stack([np.searchsorted(row, values) for row, values in zip(away, reached, strict=True)]) + 1
        lost += int((ranks - count).clip(min=0).sum())
    return 1 - lost * 2 / (total * count * (2 * total - 3 * count - 1))


def agreement(points: Points, groups: NDArray[np.int64], count: int) -> float:
    """Share of pictures whose class is the most frequent among their ``count`` nearest others; of equals the nearer."""
    if len(points) <= count:
        return math.nan
    seen = groups[nearest(points, count)]
    votes = (seen[:, :, None] == seen[:, None, :]).sum(2)
    return float((seen[np.arange(len(seen)), votes.argmax(1)] == groups).mean())


def silhouette(points: Points, groups: NDArray[np.int64]) -> float:
    """Mean over pictures of how much nearer their own class is than the next (Rousseeuw 1987), in [-1, 1]."""
    kinds = len(np.unique(groups))
    if not 1 < kinds < len(points):
        return math.nan
    return float(require("sklearn.metrics", "index").silhouette_score(points, groups))
