"""What a tensor depends on, as intervals of rows and columns, and the few things that operators do to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Taps = NDArray[np.int64]

Item = TypeVar("Item")

EXACT, NOMINAL = 0, 1
NOWHERE = -np.inf  # both ends of an empty interval, stored as (-first, last): hulls are maxima
ABSENT = np.iinfo(np.int64).min  # a tap that does not exist, not even in padding
LIMIT = 2**18  # places that intervals are written out for; hulls that need more are taken wider


Step = tuple[tuple[int, float, float], ...]
"""The regular dims that a dim was merged from, nearly always one, outermost first: its length, and how many rows and
columns of the picture lie between two indices, 0 if it does not carry the axis, NaN if it does so irregularly."""


@dataclass(frozen=True, eq=False)
class Reach:
    """What each index of a tensor depends on: an interval of rows and an interval of columns.

    ``bounds`` holds one array for rows and one for columns, (2, 2, *dims): exact or nominal, -first or last, and then
    the tensor's dims, of size 1 wherever they make no difference.
    """

    steps: tuple[Step, ...]
    bounds: tuple[Array, Array]
    inexact: frozenset[str] = frozenset()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(part[0] for part in step) for step in self.steps)

    @cached_property
    def jump(self) -> Array:
        """(2, dims): rows and columns of the picture from one index to the next."""
        return np.array([_jumps(step) for step in self.steps]).reshape(-1, 2).T

    @cached_property
    def depends(self) -> bool:
        return all(bool((bounds[EXACT] > NOWHERE).any()) for bounds in self.bounds)


def _jumps(step: Step) -> tuple[float, float]:
    if len(step) == 1:
        return step[0][1:]
    rows, columns = (math.nan if any(part[axis] for part in step) else 0.0 for axis in (1, 2))
    return rows, columns


def scaled(step: Step, size: int, factor: float = 1) -> Step:
    """A dim of another size, whose indices lie ``factor`` times as far apart."""
    rows, columns = _jumps(step)
    return ((size, rows * factor, columns * factor),)


def still(shape: Iterable[int]) -> tuple[Step, ...]:
    """Dims that carry neither rows nor columns."""
    return tuple(((size, 0.0, 0.0),) for size in shape)


def nothing(shape: Sequence[int]) -> Reach:
    """The reach of a constant."""
    empty = np.full((2, 2, *[1] * len(shape)), NOWHERE)
    return Reach(still(shape), (empty, empty))


def picture(shape: Sequence[int]) -> Reach:
    """The reach of the picture itself, (..., H, W)."""
    steps = (*still(shape[:-2]), ((shape[-2], 1.0, 0.0),), ((shape[-1], 0.0, 1.0),))
    return Reach(steps, (_ramp(shape, -2), _ramp(shape, -1)))


def _ramp(shape: Sequence[int], dim: int) -> Array:
    places = np.arange(shape[dim], dtype=float)
    dims = [1] * len(shape)
    dims[dim] = shape[dim]
    return np.stack([[-places, places]] * 2).reshape(2, 2, *dims)


def everything(shape: Sequence[int], size: tuple[int, int], inexact: frozenset[str]) -> Reach:
    """The reach of something that may depend on every pixel."""
    ones = [1] * len(shape)
    rows, columns = (np.array([[0, n - 1], [np.inf, np.inf]], dtype=float).reshape(2, 2, *ones) for n in size)
    return Reach(still(shape), (rows, columns), inexact)


# ----------------------------------------------------------------------------- the few things that operators do to it


def merge(reaches: Iterable[Reach], shape: Sequence[int]) -> Reach:
    """Hull of tensors broadcast against each other: what any pointwise operator does."""
    seeing = [broadcast(reach, shape) for reach in dict.fromkeys(reaches) if reach.depends] or [nothing(shape)]
    first, *rest = map(strictly, seeing) if len(seeing) > 1 else seeing
    rows, columns, steps, inexact = *first.bounds, first.steps, first.inexact
    for reach in rest:
        rows, columns = _either(rows, reach.bounds[0]), _either(columns, reach.bounds[1])
        steps, inexact = _agreed(steps, reach.steps), inexact | reach.inexact
    return Reach(steps, (rows, columns), inexact) if rest else first


def _either(a: Array, b: Array) -> Array:
    if math.prod(np.broadcast_shapes(a.shape, b.shape)) > 4 * LIMIT:  # queries times keys: the keys that follow are one
        b = b.max(axis=tuple(k for k in range(a.ndim) if a.shape[k] == 1), keepdims=True)
    return np.maximum(a, b)


def broadcast(reach: Reach, shape: Sequence[int]) -> Reach:
    """The reach of a tensor that was expanded to ``shape``."""
    if reach.shape == tuple(shape):
        return reach
    ahead = len(shape) - len(reach.shape)
    rows, columns = (b.reshape(2, 2, *[1] * ahead, *b.shape[2:]) for b in reach.bounds)
    old = [*still([1] * ahead), *reach.steps]
    kept = [size == n for size, n in zip([0] * ahead + list(reach.shape), shape, strict=True)]
    steps = tuple(step if same else new for step, same, new in zip(old, kept, still(shape), strict=True))
    return Reach(steps, (rows, columns), reach.inexact)


def _agreed(a: Iterable[Step], b: Iterable[Step]) -> tuple[Step, ...]:
    """Steps of tensors that meet: those of the first, unless only the second has any or has regular ones."""
    return tuple(map(_agree, a, b))


def _agree(a: Step, b: Step) -> Step:
    if len(a) > 1 or len(b) > 1:
        return a if any(_jumps(a)) else b
    rows, columns = (p if p and not math.isnan(p) else q or p for p, q in zip(a[0][1:], b[0][1:], strict=True))
    return ((a[0][0], rows, columns),)


def strictly(reach: Reach) -> Reach:
    """An index without rows has no columns either; said only before hulls, since it ties rows and columns together."""
    holes = [bounds[EXACT, 1] == NOWHERE for bounds in reach.bounds]
    if not (holes[0].any() or holes[1].any()):
        return reach
    hole = holes[0] | holes[1]
    if hole.size > LIMIT:
        return reach
    rows, columns = (np.broadcast_to(b, np.broadcast_shapes(b.shape, hole.shape)).copy() for b in reach.bounds)
    rows[EXACT, :, hole] = columns[EXACT, :, hole] = NOWHERE
    return replace(reach, bounds=(rows, columns))


def collapse(reach: Reach, dims: Iterable[int], *, keep: bool = True) -> Reach:
    """Hull over ``dims``; nominally the whole picture once no dim is left that carries the axis."""
    gone = sorted({dim % len(reach.shape) for dim in dims}) if reach.shape else []
    steps = tuple(((1, 0.0, 0.0),) if dim in gone else step for dim, step in enumerate(reach.steps))
    if keep and not reach.jump[:, gone].any() and all(b.shape[dim + 2] == 1 for b in reach.bounds for dim in gone):
        return replace(reach, steps=steps)
    rest = [dim for dim, size in enumerate(reach.shape) if dim not in gone and size > 1]
    rows, columns = (
        hull_of(bounds, gone, whole=bool(jump[gone].any() and not jump[rest].any()))
        for bounds, jump in zip(reach.bounds, reach.jump, strict=True)
    )
    hull = Reach(steps, (rows, columns), reach.inexact)
    return hull if keep else drop(hull, gone)


def hull_of(bounds: Array, dims: Sequence[int], *, whole: bool) -> Array:
    """The least intervals that hold those along ``dims``; ``whole`` makes the nominal ones endless."""
    hull = bounds.max(axis=tuple(dim + 2 for dim in dims), keepdims=True)
    if whole:
        hull[NOMINAL] = np.where(hull[NOMINAL] > NOWHERE, np.inf, NOWHERE)
    return hull


def drop(reach: Reach, dims: Sequence[int]) -> Reach:
    """The same without ``dims`` of size 1."""
    rows, columns = (bounds.squeeze(tuple(dim + 2 for dim in dims)) for bounds in reach.bounds)
    return Reach(tuple(step for dim, step in enumerate(reach.steps) if dim not in dims), (rows, columns), reach.inexact)


def mixed(reach: Reach, dims: Iterable[int]) -> Reach:
    """Every index along ``dims`` comes to depend on all of them (softmax, normalisation)."""
    return replace(collapse(reach, dims), steps=reach.steps)


def resized(reach: Reach, dim: int, size: int) -> Reach:
    """Another length for a dim that makes no difference."""
    return reach if reach.shape[dim] == size else replace(reach, steps=sized(reach.steps, dim, ((size, 0.0, 0.0),)))


def take(reach: Reach, dim: int, taps: Taps, *, drawn: Taps | None = None, factor: float = 1) -> Reach:
    """Index ``i`` of the new ``dim`` sees the old indices ``taps[i]``; those outside are padding.

    ``drawn`` gives the nominal taps where they differ (mirrored padding), ``factor`` the stride.
    """
    dim %= len(reach.shape)
    if drawn is None and factor == 1 and np.array_equal(taps[:, 0], np.arange(reach.shape[dim])) and taps.shape[1] == 1:
        return reach
    varies = [b.shape[dim + 2] > 1 or jump[dim] != 0 for b, jump in zip(reach.bounds, reach.jump, strict=True)]
    lost = not any(varies) and not ((taps >= 0) & (taps < reach.shape[dim])).any(1).all()
    rows, columns = (
        _gathered(b, dim, reach.shape[dim], jump[dim], taps, drawn)
        if here or lost  # of a dim that carries nothing, an index in padding sees nothing
        else b
        for b, jump, here in zip(reach.bounds, reach.jump, varies, strict=True)
    )
    steps = sized(reach.steps, dim, scaled(reach.steps[dim], len(taps), factor))
    return Reach(steps, (rows, columns), reach.inexact)


def _gathered(bounds: Array, dim: int, size: int, jump: float, taps: Taps, drawn: Taps | None) -> Array:
    if drawn is not None:
        exact, nominal = (_gathered(bounds, dim, size, jump, t, None) for t in (taps, drawn))
        return np.stack([exact[EXACT], nominal[NOMINAL]])
    regular = bool(jump) and not math.isnan(jump)
    places = taps % size if regular else taps.clip(0, size - 1)
    found = np.take(bounds, places if bounds.shape[dim + 2] > 1 else np.zeros_like(taps), dim + 2)
    inside = (taps >= 0) & (taps < size)
    if not inside.all():
        trailing = (1,) * (bounds.ndim - dim - 3)
        beyond = np.where(inside | (taps == ABSENT), 0, taps // size * (size * jump if regular else 0))
        found[NOMINAL] += np.stack([-beyond, beyond]).reshape(2, *(1,) * dim, *taps.shape, *trailing)
        found[EXACT] = np.where(inside.reshape(*taps.shape, *trailing), found[EXACT], NOWHERE)
        found[NOMINAL] = np.where((taps != ABSENT).reshape(*taps.shape, *trailing), found[NOMINAL], NOWHERE)
    return found.max(dim + 3)


def cut(reach: Reach, dim: int, where: slice | int) -> Reach:
    """``tensor[..., where, ...]``."""
    index = where if isinstance(where, slice) else slice(where, where + 1)
    size = len(range(*index.indices(reach.shape[dim])))
    key = (*[slice(None)] * (dim + 2), index)
    rows, columns = (b[key] if b.shape[dim + 2] > 1 else b for b in reach.bounds)
    step = reach.steps[dim] if size == reach.shape[dim] else scaled(reach.steps[dim], size, index.step or 1)
    part = Reach(sized(reach.steps, dim, step), (rows, columns), reach.inexact)
    return part if isinstance(where, slice) else drop(part, [dim])


def put(reach: Reach, part: Reach, dim: int, where: slice | int) -> Reach:
    """``tensor[..., where, ...] = part``: the inverse of :func:`cut`."""
    if not isinstance(where, slice):
        part = reshape(part, (*part.shape[:dim], 1, *part.shape[dim:]))
        where = slice(where, where + 1)
    rows, columns = (
        _pasted(old, new, dim + 2, reach.shape[dim], where)
        for old, new in zip(strictly(reach).bounds, strictly(part).bounds, strict=True)
    )
    steps = sized(part.steps, dim, scaled(part.steps[dim], reach.shape[dim], 1 / (where.step or 1)))
    return Reach(_agreed(reach.steps, steps), (rows, columns), reach.inexact | part.inexact)


def _pasted(old: Array, new: Array, axis: int, size: int, where: slice) -> Array:
    shape = np.broadcast_shapes(sized(old.shape, axis, 1), sized(new.shape, axis, 1))
    pasted = np.broadcast_to(old, sized(shape, axis, size)).copy()
    pasted[(slice(None),) * axis + (where,)] = new
    return compressed(pasted, range(2, pasted.ndim))


def sized(shape: Sequence[Item], axis: int, size: Item) -> tuple[Item, ...]:
    """The shape with another size of one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def compressed(bounds: Array, axes: Iterable[int]) -> Array:
    """With size 1 along the axes that make no difference."""
    for axis in axes:
        first = bounds.take([0], axis)
        if bounds.shape[axis] > 1 and (bounds == first).all():
            bounds = first
    return bounds


def concatenate(reaches: Sequence[Reach], dim: int) -> Reach:
    """``torch.cat``; pieces that are constants show nothing."""
    dim %= len(reaches[0].shape)
    pieces = [strictly(reach) if reach.depends else reach for reach in reaches]
    seeing = [reach for reach in pieces if reach.depends]
    carried = [any(reach.jump[axis, dim] != 0 for reach in seeing) for axis in (0, 1)]
    rows, columns = (
        _joined(pieces, dim, axis, mark=len(seeing) < len(pieces) and carry >= any(carried), carried=any(carried))
        for axis, carry in enumerate(carried)
    )
    steps = reduce(_agreed, (reach.steps for reach in seeing))
    steps = sized(steps, dim, scaled(steps[dim], sum(reach.shape[dim] for reach in pieces)))
    return Reach(steps, (rows, columns), frozenset().union(*(reach.inexact for reach in seeing)))


def _joined(pieces: Sequence[Reach], dim: int, axis: int, *, mark: bool, carried: bool) -> Array:
    """Intervals behind one another, once for all if they are the same; ``mark`` where the constants are."""
    arrays = [reach.bounds[axis] for reach in pieces if mark or reach.depends]
    if arrays[0].shape[dim + 2] == 1 and all(np.array_equal(arrays[0], other) for other in arrays):
        return arrays[0]
    others = np.broadcast_shapes(*(sized(array.shape, dim + 2, 1) for array in arrays))
    if not carried and math.prod(others) * sum(reach.shape[dim] for reach in pieces) > 4 * LIMIT:
        return reduce(np.maximum, (array.max(dim + 2, keepdims=True) for array in arrays))  # one for all channels
    full = [np.broadcast_to(r.bounds[axis], sized(others, dim + 2, r.shape[dim])) for r in pieces]
    return np.concatenate(full, dim + 2)


def permute(reach: Reach, order: Sequence[int]) -> Reach:
    """``tensor.permute(order)``."""
    order = [dim % len(reach.shape) for dim in order]
    rows, columns = (bounds.transpose(0, 1, *(dim + 2 for dim in order)) for bounds in reach.bounds)
    return Reach(tuple(reach.steps[dim] for dim in order), (rows, columns), reach.inexact)


def reshape(reach: Reach, shape: Sequence[int]) -> Reach:
    """``tensor.reshape(shape)``: nothing is lost, dims that are merged or split are written out where they matter."""
    if reach.shape == tuple(shape):
        return reach
    if 0 in shape:
        return nothing(shape)
    groups = list(_groups(reach.shape, shape))
    torn = [dim for old, new in groups if len(old) != 1 or len(new) != 1 for dim in old]
    if any(bounds.shape[dim + 2] > 1 for bounds in reach.bounds for dim in torn):
        reach = strictly(reach)  # what was a row of padding may come to lie anywhere
    rows, columns = (_reshaped(bounds, reach.shape, shape, groups) for bounds in reach.bounds)
    steps: list[Step] = []
    for old, new in groups:
        steps += _split([part for dim in old for part in reach.steps[dim]], [shape[dim] for dim in new])
    return Reach(tuple(steps), (rows, columns), reach.inexact)


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The smallest runs of dims that hold the same number of elements before and after."""
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        m = n = 1
        while i == a or j == b or m != n:
            if (i == a or m < n) and i < len(old):
                m, i = m * old[i], i + 1
            elif j < len(new):
                n, j = n * new[j], j + 1
            else:
                break
        if i >= len(old) or j >= len(new):  # the ones that are left over
            i, j = len(old), len(new)
        yield list(range(a, i)), list(range(b, j))


def _reshaped(
    bounds: Array, old: Sequence[int], new: Sequence[int], groups: list[tuple[list[int], list[int]]]
) -> Array:
    before, after, split = list(bounds.shape), [2, 2], []
    for source, target in groups:
        if all(bounds.shape[dim + 2] == 1 for dim in source):
            after += [1] * len(target)
            continue
        for dim in source:
            before[dim + 2] = old[dim]
        after += [new[dim] for dim in target]
        split += [dim + 2 for dim in target] if len(target) > 1 else []
    return compressed(np.broadcast_to(bounds, before).reshape(after), split)


def _split(parts: Sequence[tuple[int, float, float]], sizes: Sequence[int]) -> list[Step]:
    """Deal the regular dims in ``parts`` out to dims of ``sizes``, innermost first; one may go to several."""
    stack, steps = list(parts), list(still(sizes))
    for dim in reversed(range(len(sizes))):
        taken: list[tuple[int, float, float]] = []
        length, size = 1, sizes[dim]
        while stack and (length < size or (size == 1 == stack[-1][0] and not taken)):
            count, rows, columns = stack.pop()
            inner = min(count, size // length)
            if size % length or count % inner:
                return _torn(parts, sizes)
            if count > inner:
                stack.append((count // inner, rows * inner, columns * inner))
            taken.insert(0, (inner, rows, columns))
            length *= inner
        steps[dim] = _joint(taken if dim else stack + taken)
    return steps


def _torn(parts: Sequence[tuple[int, float, float]], sizes: Sequence[int]) -> list[Step]:
    rows, columns = (math.nan if any(part[axis] for part in parts) else 0.0 for axis in (1, 2))
    return [((size, rows, columns),) for size in sizes]


def _joint(parts: Iterable[tuple[int, float, float]]) -> Step:
    """One dim made of several: as few parts as continue each other regularly."""
    joint: list[tuple[int, float, float]] = []
    for count, rows, columns in parts:
        if count == 1 and not (rows or columns):
            continue
        if joint and joint[-1][1:] == (rows * count, columns * count):
            count *= joint.pop()[0]
        joint.append((count, rows, columns))
    return tuple(joint) or ((1, 0.0, 0.0),)


def measured(bounds: Array, dim: int) -> float:
    """The step of the nominal centres along ``dim``, 0 if they stand still, NaN if it is not always the same."""
    if bounds.shape[dim + 2] == 1:
        return 0
    with np.errstate(invalid="ignore"):
        steps = np.diff(bounds[NOMINAL, 1] - bounds[NOMINAL, 0], axis=dim) / 2
    step = float(steps.flat[0])
    return step if step and np.allclose(steps, step) else math.nan
