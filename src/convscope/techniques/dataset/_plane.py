"""Places for pictures in the plane: their principal components, the cells of a grid, and free places near by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from convscope.extras import require

Points = NDArray[np.float64]
Cells = NDArray[np.int64]
EXACT = 1_000  # points below which openTSNE compares all with all to find neighbours
COLD = 2e-3  # the temperature at which prices are good enough; far below it they run out of digits


def principal(codes: NDArray[np.float32], count: int) -> tuple[Points, float]:
    """(N, count) principal components of (N, C) codes, the strongest first, and the share of all variance in them.

    Each axis points so that its largest loading is positive. Components that are not there are zero.
    """
    centred = codes.astype(np.float64) - codes.mean(0, dtype=np.float64)
    sizes, axes = np.linalg.eigh(centred.T @ centred)
    sizes, axes = sizes[::-1][:count].clip(min=0), axes[:, ::-1][:, :count]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    points = centred @ axes
    total = float((centred**2).sum())
    missing = np.zeros((len(points), count - points.shape[1]))
    return np.concatenate([points, missing], 1), float(sizes.sum()) / total if total else 1.0


def affinities(points: Points, perplexity: float, seed: int, workers: int, extra: str) -> Any:
    """Those of openTSNE, bit for bit, with the neighbours that it would choose to find.

    Left to itself it first imports pynndescent, if umap-learn has brought that, to see whether it is there, and that
    compiles for up to a quarter of a minute. Raises :class:`MissingExtra` without openTSNE.
    """
    neighbours = require("openTSNE.nearest_neighbors", extra)
    kind = neighbours.Sklearn if len(points) < EXACT else neighbours.Annoy
    count = min(len(points) - 1, int(3 * perplexity))
    found = kind(points, count, n_jobs=workers, random_state=seed)
    made = require("openTSNE.affinity", extra)
    return made.MultiscaleMixture(perplexities=perplexity, knn_index=found, n_jobs=workers, random_state=seed)


def lattice_for(count: int, shape: float = 1.0) -> tuple[int, int]:
    """Rows and columns, near ``shape`` columns to a row, that leave as few of the cells empty as they can."""
    middle = math.sqrt(count / shape)
    candidates = range(max(1, math.floor(middle * 0.8)), max(1, math.ceil(middle * 1.25)) + 1)

    def cost(rows: int) -> float:
        columns = math.ceil(count / rows)
        return (rows * columns - count) / count + 0.3 * abs(math.log(columns / rows / shape))

    rows = min(candidates, key=cost)
    return rows, math.ceil(count / rows)


def unit_square(points: Points) -> Points:
    """(N, 2) points as (down, across) in [0, 1], each direction stretched to fill it."""
    low, high = points.min(0), points.max(0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    scaled[:, high <= low] = 0.5
    return np.stack([1 - scaled[:, 1], scaled[:, 0]], 1)


def assigned(points: Points, lattice: tuple[int, int]) -> Cells:
    """(N, 2) rows and columns of ``lattice``: a cell for every point, of all ways the one with the least cost.

    The cost is the sum of squared distances from the points, in the unit square, to the middles of their cells. What is
    taken off all costs of a cell changes no choice, since every cell is taken; with good prices the search is short.
    """
    places = unit_square(points)
    rows, columns = ((np.arange(n) + 0.5) / n for n in lattice)
    cells = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    costs = np.zeros((len(cells), len(cells)))  # points that may lie anywhere, at no cost, take what stays empty
    costs[: len(points)] = cdist(places, cells, "sqeuclidean")
    _, chosen = linear_sum_assignment(costs - _prices(places, rows, columns))
    return np.stack(np.divmod(chosen[: len(points)], lattice[1]), 1)


def _prices(places: Points, rows: Points, columns: Points) -> Points:
    """(cells,) prices at which the points spread evenly over the cells, but for an entropy.

    By the iteration of Sinkhorn (Cuturi 2013, arXiv:1306.0895) at a temperature that falls from 1 to ``COLD``. A weight
    exp(-distance² / temperature) is a product of one for the row and one for the column, so no matrix of all is made.
    """
    squares = [(places[:, i : i + 1] - each) ** 2 for i, each in enumerate((rows, columns))]
    theirs: Points = np.zeros((len(rows), len(columns)))
    heat = 1.0
    while True:
        row, column = (np.exp(-each / heat) for each in squares)
        for _ in range(8):
            spread = _product(row, np.exp((theirs - theirs.max()) / heat).T) * column
            ours = -_logarithm(spread.sum(1), heat, theirs.max())
            weights = row * np.exp((ours - ours.max()) / heat)[:, None]
            theirs = -_logarithm(_product(weights.T, column.T), heat, ours.max())
        if heat <= COLD:
            return theirs.ravel()
        heat = max(heat / 2, COLD)


def _product(first: Points, second: Points) -> Points:
    """first @ second.T by one thread: of products this small, several would wait for each other on a busy machine."""
    found: Points = np.einsum("ik,jk->ij", np.ascontiguousarray(first), np.ascontiguousarray(second))
    return found


def _logarithm(sums: Points, heat: float, highest: float) -> Points:
    return heat * np.log(sums + 1e-300) + highest


def snapped(points: Points, lattice: tuple[int, int]) -> Cells:
    """(N, 2) rows and columns of ``lattice``, which has room for all: for each point the nearest cell that is free.

    Those in the middle of the cloud choose first, so that it grows outwards where it is dense.
    """
    wanted = unit_square(points) * (np.array(lattice) - 1)
    middle = np.median(wanted, 0)
    order = np.argsort(((wanted - middle) ** 2).sum(1), kind="stable")
    free = np.ones(lattice, bool)
    cells = np.empty((len(points), 2), np.int64)
    for point in order:
        cells[point] = _free(free, wanted[point])
        free[tuple(cells[point])] = False
    return cells


def _free(free: NDArray[np.bool_], place: Points) -> Cells:
    """The free cell nearest to a place: looked for in wider and wider squares around it."""
    row, column = np.rint(place).astype(int)
    reach = 0
    while True:
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = free[top : row + reach + 1, left : column + reach + 1]
        found = np.argwhere(window) + np.array((top, left))
        if len(found):
            distances = ((found - place) ** 2).sum(1)
            best = int(distances.argmin())
            if math.sqrt(distances[best]) <= reach + 0.5 or reach > max(free.shape):
                return found[best]
        reach = max(reach + 1, round(1.4 * reach))
