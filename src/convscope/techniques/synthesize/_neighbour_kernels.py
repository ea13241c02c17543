"""The inner loops of neighbour synthesis, compiled by numba, which comes with ``convscope[texture]``.

Everything is exact and in a fixed order: no fast mathematics, no threads in here, so that the same numbers go in and
the same pixels come out on any machine. Calls release the interpreter's lock, so several may run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]
F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 128  # candidates that are summed side by side; the compiler makes vectors of them
GROUP = 4  # terms that are added to a block at once
NEAR = 8  # taps whose pixels propose where to begin; the first eight are the eight neighbours
INFINITE = np.float32(np.inf)


def compiled(function: F) -> F:
    """Compiled at the first call and kept on disk for later processes, where there is a folder for that."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except (RuntimeError, OSError):
        return cast(F, numba.njit(nogil=True)(function))


class Source(NamedTuple):
    """The sample in one line of memory.

    Attributes:
        values: (C * stride,) float32; channel c of pixel (y, x) stands at ``c * stride + y * width + x``.
        barred: (blocks * BLOCK,) 0 where a window may begin with its top left corner, else infinite.
        width, stride: of a row and of a channel.
    """

    values: Floats
    barred: Floats
    width: int
    stride: int


class Canvas(NamedTuple):
    """The picture that grows.

    Attributes:
        values: (H, W, C) float32, zero where nothing is yet.
        known: (H, W) where something is.
        source: (H, W) int64 index of the sample's pixel, row times width plus column, or -1.
    """

    values: Floats
    known: Flags
    source: Whole


class Window(NamedTuple):
    """``taps`` (T, 2) int64 (down, right) from the centre, the heaviest first, and (T,) ``weights`` of a channel."""

    taps: Whole
    weights: Floats
    half: int


@compiled
def _terms(
    y: int, x: int, canvas: Canvas, window: Window, source: Source, places: Whole, wanted: Floats, weights: Floats
) -> tuple[int, Any]:
    """The known neighbours of a pixel as terms of its sum, padded with nothing to whole groups, and their weight.

    A term is weight * (values[candidate + place] - wanted)².
    """
    height, width, channels = canvas.values.shape
    count, total = 0, np.float32(0)
    for tap in range(len(window.weights)):
        down, right = window.taps[tap]
        if 0 <= y + down < height and 0 <= x + right < width and canvas.known[y + down, x + right]:
            for channel in range(channels):
                places[count] = channel * source.stride + (down + window.half) * source.width + right + window.half
                wanted[count] = canvas.values[y + down, x + right, channel]
                weights[count] = window.weights[tap]
                total += window.weights[tap]
                count += 1
    while count % GROUP:
        places[count], wanted[count], weights[count] = 0, 0, 0
        count += 1
    return count, total


@compiled
def _error(candidate: int, count: int, values: Floats, places: Whole, wanted: Floats, weights: Floats) -> Any:
    """The sum of one candidate, added up in the order in which blocks are."""
    error = np.float32(0)
    for term in range(count):
        difference = values[places[term] + candidate] - wanted[term]
        error += weights[term] * (difference * difference)
    return error


@compiled
def _proposed(
    y: int, x: int, count: int, canvas: Canvas, window: Window, source: Source,
    places: Whole, wanted: Floats, weights: Floats,
) -> Any:  # fmt: skip
    """The best sum among candidates that continue what the neighbours were copied from: a bound to begin with."""
    height, width = canvas.known.shape
    best, last = INFINITE, -1
    for tap in range(NEAR):
        down, right = window.taps[tap]
        if 0 <= y + down < height and 0 <= x + right < width and canvas.source[y + down, x + right] >= 0:
            corner = canvas.source[y + down, x + right] - (down + window.half) * source.width - right - window.half
            if corner != last and 0 <= corner < len(source.barred) and source.barred[corner] == 0:
                last = corner  # neighbours were often copied together, and then all propose the same
                best = min(best, _error(corner, count, source.values, places, wanted, weights))
    return best


@compiled
def _add_group(
    part: Floats, begin: int, term: int, bound: Any, values: Floats, places: Whole, wanted: Floats, weights: Floats
) -> Any:
    """Add the next terms to a block's sums; how many of them are still within the bound."""
    a = values[places[term] + begin : places[term] + begin + BLOCK]
    b = values[places[term + 1] + begin : places[term + 1] + begin + BLOCK]
    c = values[places[term + 2] + begin : places[term + 2] + begin + BLOCK]
    d = values[places[term + 3] + begin : places[term + 3] + begin + BLOCK]
    wa, wb, wc, wd = wanted[term], wanted[term + 1], wanted[term + 2], wanted[term + 3]
    ka, kb, kc, kd = weights[term], weights[term + 1], weights[term + 2], weights[term + 3]
    within = np.int32(0)
    for i in range(BLOCK):
        da, db, dc, dd = a[i] - wa, b[i] - wb, c[i] - wc, d[i] - wd
        error = part[i] + ka * (da * da)
        error = error + kb * (db * db)
        error = error + kc * (dc * dc)
        error = error + kd * (dd * dd)
        part[i] = error
        within += np.int32(error <= bound)
    return within


@compiled
def _search(
    count: int, best: Any, tolerance: Any, source: Source, errors: Floats,
    places: Whole, wanted: Floats, weights: Floats,
) -> Any:  # fmt: skip
    """Sums of all candidates into ``errors``; the smallest one.

    A block is left as soon as all its partial sums exceed ``tolerance`` times the smallest sum so far: terms are not
    negative, so they would exceed it in the end as well, and what counts as a match is the same as without leaving.
    """
    bound = best * tolerance
    for begin in range(0, len(errors), BLOCK):
        part = errors[begin : begin + BLOCK]
        for i in range(BLOCK):
            part[i] = source.barred[begin + i]
        within = BLOCK
        for term in range(0, count, GROUP):
            within = _add_group(part, begin, term, bound, source.values, places, wanted, weights)
            if within == 0:
                break
        if within:
            for i in range(BLOCK):
                best = min(best, part[i])
            bound = best * tolerance
    return best


@compiled
def _pick(errors: Floats, bound: Any, chance: float) -> int:
    """One of the candidates within the bound, in the order of the sample's rows, by a number in [0, 1)."""
    matches = 0
    for error in errors:
        matches += error <= bound
    left = int(chance * matches)
    for candidate in range(len(errors)):
        if errors[candidate] <= bound:
            if left == 0:
                return candidate
            left -= 1
    return -1


@compiled
def fill(
    order: Whole, canvas: Canvas, window: Window, source: Source, chances: NDArray[np.float64], epsilon: float,
    max_error: float,
) -> int:  # fmt: skip
    """Fill the pixels ``order`` (flat indices) one after the other; how many of them found a match."""
    width, channels = canvas.values.shape[1:]
    most = len(window.weights) * channels + GROUP
    places, wanted, weights = np.empty(most, np.int64), np.empty(most, np.float32), np.empty(most, np.float32)
    errors = np.empty(len(source.barred), np.float32)
    tolerance, limit, filled = np.float32(1 + epsilon), np.float32(max_error), 0
    for pixel in order:
        y, x = pixel // width, pixel % width
        count, total = _terms(y, x, canvas, window, source, places, wanted, weights)
        if count == 0:
            continue
        best = _proposed(y, x, count, canvas, window, source, places, wanted, weights)
        best = _search(count, best, tolerance, source, errors, places, wanted, weights)
        if best < limit * total:
            corner = _pick(errors, best * tolerance, chances[pixel])
            found = corner + window.half * source.width + window.half
            for channel in range(channels):
                canvas.values[y, x, channel] = source.values[channel * source.stride + found]
            canvas.source[y, x] = found
            canvas.known[y, x] = True
            filled += 1
    return filled


@compiled
def layers(known: Flags) -> Whole:
    """(H, W) steps from each pixel to the nearest known one, where a step goes to any of the eight neighbours."""
    height, width = known.shape
    far = height + width
    steps = np.empty((height, width), np.int64)
    for y in range(height):
        for x in range(width):
            steps[y, x] = 0 if known[y, x] else far
            for down, right in ((0, -1), (-1, -1), (-1, 0), (-1, 1)):
                if y + down >= 0 and 0 <= x + right < width:
                    steps[y, x] = min(steps[y, x], steps[y + down, x + right] + 1)
    for y in range(height - 1, -1, -1):
        for x in range(width - 1, -1, -1):
            for down, right in ((0, 1), (1, 1), (1, 0), (1, -1)):
                if y + down < height and 0 <= x + right < width:
                    steps[y, x] = min(steps[y, x], steps[y + down, x + right] + 1)
    return steps


@compiled
def earlier(steps: Whole, half: int) -> Whole:
    """(H, W) pixels of each one's window that are fewer steps away than it is: those known when its layer begins."""
    height, width = steps.shape
    counts = np.zeros((height, width), np.int64)
    for y in range(height):
        for x in range(width):
            for row in range(max(0, y - half), min(height, y + half + 1)):
                for column in range(max(0, x - half), min(width, x + half + 1)):
                    counts[y, x] += steps[row, column] < steps[y, x]
    return counts


@compiled
def most_confident(confidence: Whole, unknown: int, half: int) -> Whole:
    """Unknown pixels (flat), next always the one of highest confidence, which rises with each earlier one around it.

    The best of all stands at the root of a tree, of which each node holds the better of its two children.

    Args:
        confidence: (H, W) pixels known in the window, times H·W, plus a number below that for ties; -1 where known.
        unknown: how many are not -1.
    """
    height, width = confidence.shape
    size, leaves = height * width, 1
    while leaves < size:
        leaves *= 2
    tree = np.empty(2 * leaves, np.int64)
    for leaf in range(leaves):
        tree[leaves + leaf] = confidence[leaf // width, leaf % width] if leaf < size else -1
    _mend(tree, leaves, 2 * leaves)
    order = np.empty(unknown, np.int64)
    for done in range(unknown):
        node = 1
        while node < leaves:
            node = 2 * node if tree[2 * node] == tree[node] else 2 * node + 1
        tree[node] = -1
        order[done] = node - leaves
        y, x = order[done] // width, order[done] % width
        for row in range(max(0, y - half), min(height, y + half + 1)):
            first = leaves + row * width
            for leaf in range(first + max(0, x - half), first + min(width, x + half + 1)):
                tree[leaf] += size if tree[leaf] >= 0 else 0
            _mend(tree, first + max(0, x - half), first + min(width, x + half + 1))
    return order


@compiled
def _mend(tree: Whole, first: int, stop: int) -> None:
    """Put right the nodes above the leaves from ``first`` to before ``stop``."""
    low, high = first // 2, (stop - 1) // 2
    while low >= 1:
        for node in range(low, high + 1):
            tree[node] = max(tree[2 * node], tree[2 * node + 1])
        low, high = low // 2, high // 2


@compiled
def waves(order: Whole, shape: tuple[int, int], half: int) -> Whole:
    """For each pixel of the order, one more than the highest wave of the earlier ones in its window.

    Pixels of one wave do not see each other, and see all that they would see one after the other: they may be filled
    side by side, and the picture is the same.
    """
    height, width = shape
    wave = np.zeros((height, width), np.int64)
    found = np.empty(len(order), np.int64)
    for place in range(len(order)):
        y, x = order[place] // width, order[place] % width
        highest = 0
        for row in range(max(0, y - half), min(height, y + half + 1)):
            for column in range(max(0, x - half), min(width, x + half + 1)):
                highest = max(highest, wave[row, column])
        wave[y, x] = found[place] = highest + 1
    return found
