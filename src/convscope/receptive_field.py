"""Receptive fields: which pixels of the picture a unit of any layer can see.

One real forward pass is followed operator by operator, so that any Python code may stand between the picture and the
layer: functional calls, branches, concatenation, residuals, upsampling, crops, shifts, windows, token grids::

    with Tracer(images) as tracer, torch.no_grad():
        activation = module.layer4(module.stem(images))
    field = tracer.field(activation)
    field.size            # (427, 427) rows and columns for a ResNet-50, whatever the size of the picture
    field.box(3, 4)       # (top, left, bottom, right) of the pixels that the unit in row 3, column 4 really sees

For every tensor the tracer keeps the interval of rows and the interval of columns that each index depends on, in two
versions. The *exact* one ends where the picture ends: padding shows nothing. The *nominal* one goes on beyond the
border, each padded tap one jump further than its neighbour, as if the plane were tiled with the picture; it gives the
textbook size (Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill).

Exact means the smallest box around the pixels that reach the unit through the operators, whatever the weights are: a
weight of zero counts. An operator without a rule is taken to see the whole picture and is named in ``inexact``, and so
is a place where the network reads a tensor as a Python number and the trace ends. What leaves torch altogether (through
numpy, say) and comes back is a constant to the tracer. Hulls that would need more than LIMIT intervals to be written
out, as the map of every query against every key, are taken a little wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property, partial, reduce
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from convscope.errors import OptionError

__all__ = ["Layout", "ReceptiveField", "Tracer"]

Layout = Literal["NCHW", "NHWC", "tokens"]
Array = NDArray[np.float64]
Taps = NDArray[np.int64]

Item = TypeVar("Item")

EXACT, NOMINAL = 0, 1
NOWHERE = -np.inf  # both ends of an empty interval, stored as (-first, last): hulls are maxima
ABSENT = np.iinfo(np.int64).min  # a tap that does not exist, not even in padding
LIMIT = 2**18  # places that intervals are written out for; hulls that need more are taken wider


@dataclass(frozen=True)
class ReceptiveField:
    """What one unit of a layer sees of the picture; a unit is a place in the grid, all channels together.

    Pixels are counted from the centre of the first one: pixel ``i`` covers ``i - 1/2`` to ``i + 1/2``.
    """

    size: tuple[int, int]
    """Rows and columns of the nominal field of a typical unit; it may exceed the picture."""
    stride: tuple[float, float]
    """Rows and columns of the picture from one unit to the next; negative after a flip."""
    offset: tuple[float, float]
    """Where the nominal fields begin: that of unit (r, c) is centred on ``offset + stride * (r, c)``, where 0 is the
    centre of the first pixel. It is the middle of the picture if the field is global."""
    whole: bool
    """The layer has no grid, or something global lies before it (pooling, flattening, attention, gating)."""
    units: tuple[int, int]
    """Rows and columns of the layer's grid, (1, 1) where it has none."""
    inexact: frozenset[str]
    """Operators on the way that the trace could not follow and took for the whole picture."""
    _spans: tuple[NDArray[np.int32], NDArray[np.int32]] = dataclass_field(repr=False, compare=False)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Pixels that the unit sees: (top, left, bottom, right), half open, inside the picture, exact.

        (0, 0, 0, 0) for a unit that lies in padding and sees nothing. Raises :class:`OptionError` outside the grid.
        """
        if not (0 <= row < self.units[0] and 0 <= column < self.units[1]):
            raise OptionError(f"there is no unit ({row}, {column}) in a grid of {self.units[0]} x {self.units[1]}")
        (top, bottom), (left, right) = (np.broadcast_to(s, (2, *self.units))[:, row, column] for s in self._spans)
        if bottom < top or right < left:
            return 0, 0, 0, 0
        return int(top), int(left), int(bottom) + 1, int(right) + 1


# ------------------------------------------------------------------------------------------- what a tensor depends on


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


def _scaled(step: Step, size: int, factor: float = 1) -> Step:
    rows, columns = _jumps(step)
    return ((size, rows * factor, columns * factor),)


def _still(shape: Iterable[int]) -> tuple[Step, ...]:
    return tuple(((size, 0.0, 0.0),) for size in shape)


def nothing(shape: Sequence[int]) -> Reach:
    """The reach of a constant."""
    empty = np.full((2, 2, *[1] * len(shape)), NOWHERE)
    return Reach(_still(shape), (empty, empty))


def picture(shape: Sequence[int]) -> Reach:
    """The reach of the picture itself, (..., H, W)."""
    steps = (*_still(shape[:-2]), ((shape[-2], 1.0, 0.0),), ((shape[-1], 0.0, 1.0),))
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
    return Reach(_still(shape), (rows, columns), inexact)


# ----------------------------------------------------------------------------- the few things that operators do to it


def merge(reaches: Iterable[Reach], shape: Sequence[int]) -> Reach:
    """Hull of tensors broadcast against each other: what any pointwise operator does."""
    seeing = [_broadcast(reach, shape) for reach in dict.fromkeys(reaches) if reach.depends] or [nothing(shape)]
    first, *rest = map(_strict, seeing) if len(seeing) > 1 else seeing
    rows, columns, steps, inexact = *first.bounds, first.steps, first.inexact
    for reach in rest:
        rows, columns = _either(rows, reach.bounds[0]), _either(columns, reach.bounds[1])
        steps, inexact = _agreed(steps, reach.steps), inexact | reach.inexact
    return Reach(steps, (rows, columns), inexact) if rest else first


def _either(a: Array, b: Array) -> Array:
    if math.prod(np.broadcast_shapes(a.shape, b.shape)) > 4 * LIMIT:  # queries times keys: the keys that follow are one
        b = b.max(axis=tuple(k for k in range(a.ndim) if a.shape[k] == 1), keepdims=True)
    return np.maximum(a, b)


def _broadcast(reach: Reach, shape: Sequence[int]) -> Reach:
    if reach.shape == tuple(shape):
        return reach
    ahead = len(shape) - len(reach.shape)
    rows, columns = (b.reshape(2, 2, *[1] * ahead, *b.shape[2:]) for b in reach.bounds)
    old = [*_still([1] * ahead), *reach.steps]
    kept = [size == n for size, n in zip([0] * ahead + list(reach.shape), shape, strict=True)]
    steps = tuple(step if same else new for step, same, new in zip(old, kept, _still(shape), strict=True))
    return Reach(steps, (rows, columns), reach.inexact)


def _agreed(a: Iterable[Step], b: Iterable[Step]) -> tuple[Step, ...]:
    """Steps of tensors that meet: those of the first, unless only the second has any or has regular ones."""
    return tuple(map(_agree, a, b))


def _agree(a: Step, b: Step) -> Step:
    if len(a) > 1 or len(b) > 1:
        return a if any(_jumps(a)) else b
    rows, columns = (p if p and not math.isnan(p) else q or p for p, q in zip(a[0][1:], b[0][1:], strict=True))
    return ((a[0][0], rows, columns),)


def _strict(reach: Reach) -> Reach:
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
        _hull(bounds, gone, whole=bool(jump[gone].any() and not jump[rest].any()))
        for bounds, jump in zip(reach.bounds, reach.jump, strict=True)
    )
    hull = Reach(steps, (rows, columns), reach.inexact)
    return hull if keep else drop(hull, gone)


def _hull(bounds: Array, dims: Sequence[int], *, whole: bool) -> Array:
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
    return reach if reach.shape[dim] == size else replace(reach, steps=_sized(reach.steps, dim, ((size, 0.0, 0.0),)))


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
    steps = _sized(reach.steps, dim, _scaled(reach.steps[dim], len(taps), factor))
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
    step = reach.steps[dim] if size == reach.shape[dim] else _scaled(reach.steps[dim], size, index.step or 1)
    part = Reach(_sized(reach.steps, dim, step), (rows, columns), reach.inexact)
    return part if isinstance(where, slice) else drop(part, [dim])


def put(reach: Reach, part: Reach, dim: int, where: slice | int) -> Reach:
    """``tensor[..., where, ...] = part``: the inverse of :func:`cut`."""
    if not isinstance(where, slice):
        part = reshape(part, (*part.shape[:dim], 1, *part.shape[dim:]))
        where = slice(where, where + 1)
    rows, columns = (
        _pasted(old, new, dim + 2, reach.shape[dim], where)
        for old, new in zip(_strict(reach).bounds, _strict(part).bounds, strict=True)
    )
    steps = _sized(part.steps, dim, _scaled(part.steps[dim], reach.shape[dim], 1 / (where.step or 1)))
    return Reach(_agreed(reach.steps, steps), (rows, columns), reach.inexact | part.inexact)


def _pasted(old: Array, new: Array, axis: int, size: int, where: slice) -> Array:
    shape = np.broadcast_shapes(_sized(old.shape, axis, 1), _sized(new.shape, axis, 1))
    pasted = np.broadcast_to(old, _sized(shape, axis, size)).copy()
    pasted[(slice(None),) * axis + (where,)] = new
    return _compressed(pasted, range(2, pasted.ndim))


def _sized(shape: Sequence[Item], axis: int, size: Item) -> tuple[Item, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _compressed(bounds: Array, axes: Iterable[int]) -> Array:
    for axis in axes:
        first = bounds.take([0], axis)
        if bounds.shape[axis] > 1 and (bounds == first).all():
            bounds = first
    return bounds


def concatenate(reaches: Sequence[Reach], dim: int) -> Reach:
    """``torch.cat``; pieces that are constants show nothing."""
    dim %= len(reaches[0].shape)
    pieces = [_strict(reach) if reach.depends else reach for reach in reaches]
    seeing = [reach for reach in pieces if reach.depends]
    carried = [any(reach.jump[axis, dim] != 0 for reach in seeing) for axis in (0, 1)]
    rows, columns = (
        _joined(pieces, dim, axis, mark=len(seeing) < len(pieces) and carry >= any(carried), carried=any(carried))
        for axis, carry in enumerate(carried)
    )
    steps = reduce(_agreed, (reach.steps for reach in seeing))
    steps = _sized(steps, dim, _scaled(steps[dim], sum(reach.shape[dim] for reach in pieces)))
    return Reach(steps, (rows, columns), frozenset().union(*(reach.inexact for reach in seeing)))


def _joined(pieces: Sequence[Reach], dim: int, axis: int, *, mark: bool, carried: bool) -> Array:
    """Intervals behind one another, once for all if they are the same; ``mark`` where the constants are."""
    arrays = [reach.bounds[axis] for reach in pieces if mark or reach.depends]
    if arrays[0].shape[dim + 2] == 1 and all(np.array_equal(arrays[0], other) for other in arrays):
        return arrays[0]
    others = np.broadcast_shapes(*(_sized(array.shape, dim + 2, 1) for array in arrays))
    if not carried and math.prod(others) * sum(reach.shape[dim] for reach in pieces) > 4 * LIMIT:
        return reduce(np.maximum, (array.max(dim + 2, keepdims=True) for array in arrays))  # one for all channels
    full = [np.broadcast_to(r.bounds[axis], _sized(others, dim + 2, r.shape[dim])) for r in pieces]
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
        reach = _strict(reach)  # what was a row of padding may come to lie anywhere
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
    return _compressed(np.broadcast_to(bounds, before).reshape(after), split)


def _split(parts: Sequence[tuple[int, float, float]], sizes: Sequence[int]) -> list[Step]:
    """Deal the regular dims in ``parts`` out to dims of ``sizes``, innermost first; one may go to several."""
    stack, steps = list(parts), list(_still(sizes))
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


def _measured(bounds: Array, dim: int) -> float:
    """The step of the nominal centres along ``dim``, 0 if they stand still, NaN if it is not always the same."""
    if bounds.shape[dim + 2] == 1:
        return 0
    with np.errstate(invalid="ignore"):
        steps = np.diff(bounds[NOMINAL, 1] - bounds[NOMINAL, 0], axis=dim) / 2
    step = float(steps.flat[0])
    return step if step and np.allclose(steps, step) else math.nan


# -------------------------------------------------------------------------------------------------- one operator call


class Unfollowed(Exception):
    """The rule of an operator does not cover this call."""


COMPOSITE = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.CompositeExplicitAutograd)


class Operator:
    """What there is to know of an operator apart from a call of it."""

    def __init__(self, func: Any) -> None:
        self.name: str = func._schema.name
        self.defaults: dict[str, Any] = {argument.name: argument.default_value for argument in func._schema.arguments}
        self.pointwise = torch.Tag.pointwise in func.tags
        self.view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        rule = RULES.get(self.name) or RULES.get(self.name.removesuffix("_"))
        self.rule: Rule = rule or (_pointwise if self.pointwise else _unknown)
        self.parts = next(
            (partial(func._op_dk, key) for key in COMPOSITE if func.has_kernel_for_dispatch_key(key)), None
        )


class Call:
    """One call of an operator: its arguments by name, the reach of its tensors, the shapes of what it returned."""

    def __init__(
        self, tracer: Tracer, operator: Operator, args: tuple, kwargs: dict[str, Any], results: list[Tensor]
    ) -> None:
        self.tracer = tracer
        self.operator = operator
        self.name = operator.name.removesuffix("_")
        self.arguments = operator.defaults.copy()
        self.arguments.update(zip(operator.defaults, args, strict=False), **kwargs)
        self.inputs = [value for name, value in self.arguments.items() if name != "out"]
        self.shapes = [tuple(result.shape) for result in results]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    @property
    def first(self) -> Reach:
        """Reach of the first argument."""
        return self.reach(self.inputs[0])

    def reach(self, tensor: Tensor | str | None) -> Reach:
        """Reach of a tensor, or of the argument of that name; a constant's sees nothing."""
        tensor = self[tensor] if isinstance(tensor, str) else tensor
        return nothing(()) if tensor is None else self.tracer._reach(tensor) or nothing(tensor.shape)

    def depends(self, tensor: Tensor | None) -> bool:
        return tensor is not None and self.tracer._reach(tensor) is not None

    def dims(self) -> list[int]:
        """The argument ``dim`` as a list; nothing given means every dim."""
        dim = self.get("dim")
        ndim = len(self.first.shape)
        dims = list(range(ndim)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else list(dim)
        return [d % ndim for d in dims] if ndim else []

    def spatial(self, name: str, count: int) -> list[int]:
        """An argument given once, or once for each of ``count`` spatial dims."""
        value = self[name]
        values = [value] if isinstance(value, int) else list(value)
        return values * count if len(values) == 1 else values

    def outputs(self) -> list[Reach]:
        """Reach of everything that the operator returned."""
        if not any(self.depends(tensor) for tensor in _tensors(self.inputs)):
            return [nothing(shape) for shape in self.shapes]
        try:
            answer = self.operator.rule(self)
        except Unfollowed:
            answer = _unknown(self)
        return answer if isinstance(answer, list) else [self._fitted(answer, shape) for shape in self.shapes]

    def _fitted(self, answer: Reach, shape: tuple[int, ...]) -> Reach:
        """By-products of another shape (statistics) are taken to depend on all that the result depends on."""
        if answer.shape == shape or not math.prod(shape):
            return answer if answer.shape == shape else nothing(shape)
        return _broadcast(collapse(answer, range(len(answer.shape)), keep=False), shape)

    def whole(self) -> list[Reach]:
        """Everything, and the operator noted as one that was not followed."""
        noted = frozenset({self.operator.name}).union(*(self.reach(t).inexact for t in _tensors(self.inputs)))
        return [everything(shape, self.tracer.size, noted) for shape in self.shapes]


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Tensor))


Rule = Callable[[Call], "Reach | list[Reach]"]
AnyRule = TypeVar("AnyRule", bound=Rule)
RULES: dict[str, Rule] = {}
"""A rule for each operator, by name; in-place forms use the rule of the plain one. It gives the reach of the result."""


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Enter a function in :data:`RULES` as the rule of these ATen operators."""

    def enter(function: AnyRule) -> AnyRule:
        RULES.update({f"aten::{name}": function for name in names})
        return function

    return enter


# -------------------------------------------------------------------------------------------------------------- rules


def _unknown(call: Call) -> list[Reach]:
    return call.whole()


@rule("hardswish", "prelu", "_prelu_kernel", "rrelu_with_noise", "native_dropout", "masked_fill", "where", "rsub")
@rule("_to_copy", "detach", "alias", "lift_fresh", "tril", "triu", "_conj", "complex", "expand", "bernoulli", "fill")
def _pointwise(call: Call) -> Reach:
    return merge(map(call.reach, _tensors(call.inputs)), call.shape)


@rule("zero", "normal", "uniform", "random", "exponential", "zeros_like", "ones_like", "empty_like", "full_like")
@rule("rand_like", "randn_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided")
def _constant(call: Call) -> list[Reach]:
    return [nothing(shape) for shape in call.shapes]


RULES["aten::fill_"] = lambda call: merge([call.reach(v) for v in _tensors([call["value"]])], call.shape)
RULES["aten::bernoulli_"] = _constant


@rule("copy", "copy_")
def _copy(call: Call) -> Reach:
    return merge([call.reach("src")], call.shape)


@rule("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze")
def _view(call: Call) -> Reach:
    if call.get("dtype") is not None:
        raise Unfollowed
    return reshape(call.first, call.shape)


@rule("as_strided")
def _as_strided(call: Call) -> Reach:
    if call.first.jump.any() or any(bounds[EXACT].size > 2 for bounds in call.first.bounds):
        raise Unfollowed
    return collapse(call.first, range(len(call.first.shape)), keep=False)  # all elements see the same


@rule("permute", "transpose", "t")
def _permute(call: Call) -> Reach:
    return permute(call.first, _order(call))


def _order(call: Call) -> list[int]:
    order = list(range(len(call.shape)))
    if call.name == "aten::permute":
        return [dim % len(order) for dim in call["dims"]]
    a, b = (call["dim0"], call["dim1"]) if call.name == "aten::transpose" else (0, -1)
    if order:
        order[a], order[b] = order[b], order[a]
    return order


@rule("slice", "select", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind")
def _cut(call: Call) -> list[Reach]:
    return [cut(call.first, *_region(call, index)) for index in range(len(call.shapes))]


def _region(call: Call, index: int) -> tuple[int, slice | int]:
    """The dim and the part of it that output ``index`` is a view of."""
    size = call.first.shape
    dim = call["dim"] % len(size)
    if call.name == "aten::slice":
        return dim, slice(call["start"], call["end"], call["step"])
    if call.name in ("aten::select", "aten::unbind"):
        return dim, call["index"] % size[dim] if call.name == "aten::select" else index
    start = sum(shape[dim] for shape in call.shapes[:index])
    return dim, slice(start, start + call.shapes[index][dim], 1)


def _uncut(call: Call, index: int, part: Reach) -> Reach:
    """What the tensor depends on after output ``index``, a view of it, was written to."""
    rule = call.operator.rule
    if rule is _cut:
        return put(call.first, part, *_region(call, index))
    if rule is _permute:
        return permute(part, np.argsort(_order(call)).tolist())
    if rule is _view or (rule is _pointwise and part.shape == call.first.shape):
        return reshape(part, call.first.shape)
    return everything(call.first.shape, call.tracer.size, part.inexact | call.first.inexact | {call.name})


@rule("cat", "stack")
def _cat(call: Call) -> Reach:
    reaches = [call.reach(tensor) for tensor in call["tensors"]]
    dim = call["dim"] % len(call.shape)
    if call.name == "aten::stack":
        reaches = [reshape(r, (*r.shape[:dim], 1, *r.shape[dim:])) for r in reaches]
    return concatenate([reach for reach in reaches if reach.shape != (0,)], dim)


@rule("repeat")
def _repeat(call: Call) -> Reach:
    ahead = len(call.shape) - len(call.first.shape)
    reach = reshape(call.first, (*[1] * ahead, *call.first.shape))
    for dim, count in enumerate(call["repeats"]):
        if count != 1:
            reach = take(reach, dim, np.tile(np.arange(reach.shape[dim]), count)[:, None])
    return reach


@rule("roll")
def _roll(call: Call) -> Reach:
    reach, dims = call.first, call["dims"]
    if not dims:
        reach, dims = reshape(reach, (math.prod(reach.shape),)), [0]
    for dim, shift in zip(dims, call["shifts"], strict=True):
        reach = take(reach, dim, np.roll(np.arange(reach.shape[dim]), shift)[:, None])
    return reshape(reach, call.shape)


@rule("flip")
def _flip(call: Call) -> Reach:
    reach = call.first
    for dim in call["dims"]:
        reach = take(reach, dim, np.arange(reach.shape[dim])[::-1, None], factor=-1)
    return reach


@rule("index_select")
def _index_select(call: Call) -> Reach:
    return take(call.first, call["dim"], _constants(call, call["index"]).reshape(-1, 1))


def _constants(call: Call, index: Tensor) -> Any:
    """The values of an index that does not depend on the picture."""
    if call.depends(index) or index.is_meta:
        raise Unfollowed
    return index.detach().cpu().numpy()


@rule("index")
def _index(call: Call) -> Reach:
    key: list[Any] = []
    for index in call["indices"]:
        values = None if index is None else _constants(call, index)
        key += [slice(None)] if values is None else values.nonzero() if values.dtype == bool else [values]
    dims = [dim for dim, part in enumerate(key) if not isinstance(part, slice)]
    rows, columns = (_indexed(bounds, call.first.shape, dims, tuple(key)) for bounds in call.first.bounds)
    return _remeasured(call, rows, columns)


def _indexed(bounds: Array, shape: Sequence[int], dims: Sequence[int], key: tuple) -> Array:
    full = [2, 2, *(shape[dim] if dim in dims else size for dim, size in enumerate(bounds.shape[2:]))]
    return np.moveaxis(np.moveaxis(np.broadcast_to(bounds, full), (0, 1), (-2, -1))[key], (-2, -1), (0, 1))


@rule("gather")
def _gather(call: Call) -> Reach:
    index, dim = _constants(call, call["index"]), call["dim"] % len(call.shape)
    reach = call.first
    for other, size in enumerate(index.shape):
        reach = reach if other == dim else cut(reach, other, slice(0, size))
    full = (np.broadcast_to(b, _sized(b.shape, dim + 2, reach.shape[dim])) for b in reach.bounds)
    rows, columns = (np.take_along_axis(b, index[None, None], dim + 2) for b in full)
    return _remeasured(call, _compressed(rows, range(2, rows.ndim)), _compressed(columns, range(2, columns.ndim)))


def _remeasured(call: Call, rows: Array, columns: Array) -> Reach:
    steps = tuple(((size, _measured(rows, dim), _measured(columns, dim)),) for dim, size in enumerate(call.shape))
    return Reach(steps, (rows, columns), call.first.inexact)


# convolutions, pools and everything else with windows


def _windows(out: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    return np.arange(out)[:, None] * stride - padding + np.arange(kernel) * dilation


def _transposed_windows(out: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """The inputs that reach each output of a transposed convolution; a gap between them shows nothing at all."""
    places = np.arange(out)[:, None] + padding - np.arange(kernel) * dilation
    return np.where(places % stride == 0, places // stride, ABSENT)


def _spans(first: Taps, stop: Taps) -> Taps:
    """Taps ``first[i] .. stop[i] - 1``, windows of different lengths."""
    taps = first[:, None] + np.arange((stop - first).max())
    return np.where(taps < stop[:, None], taps, ABSENT)


@rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(call: Call) -> Reach:
    transposed, count = call["transposed"], len(call.shape) - 2
    settings = [call.spatial(name, count) for name in ("stride", "padding", "dilation")]
    windows = _transposed_windows if transposed else _windows
    reach = _channels(call.reach("input"), call["groups"], call.shape[1])
    for k, (stride, padding, dilation) in enumerate(zip(*settings, strict=True)):
        taps = windows(call.shape[k + 2], call["weight"].shape[k + 2], stride, padding, dilation)
        reach = take(reach, k + 2, taps, factor=1 / stride if transposed else stride)
    dynamic = [call.reach(call[name]) for name in ("weight", "bias") if call.depends(call[name])]
    return merge([reach, *(collapse(r, range(len(r.shape)), keep=False) for r in dynamic)], call.shape)


def _channels(reach: Reach, groups: int, out: int) -> Reach:
    """Channels mix within each group."""
    if groups == 1 or all(bounds.shape[3] == 1 for bounds in reach.bounds):
        return resized(collapse(reach, [1]), 1, out)
    batch, channels, *rest = reach.shape
    split = collapse(reshape(reach, (batch, groups, channels // groups, *rest)), [2], keep=False)
    return take(split, 1, np.arange(out)[:, None] // (out // groups))


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "avg_pool2d", "avg_pool3d")
def _pool(call: Call) -> Reach:
    count = 3 if "3d" in call.name else 2
    kernels = call.spatial("kernel_size", count)
    strides = call.spatial("stride", count) or kernels
    paddings = call.spatial("padding", count)
    dilations = call.spatial("dilation", count) if call.get("dilation") else [1] * count
    reach = call.first
    for k, (kernel, stride, padding, dilation) in enumerate(zip(kernels, strides, paddings, dilations, strict=True)):
        taps = _windows(call.shape[k - count], kernel, stride, padding, dilation)
        reach = take(reach, k - count, taps, factor=stride)
    return reach


@rule(
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool3d"
)
def _adaptive_pool(call: Call) -> Reach:
    reach = call.first
    for dim in range(-3 if "3d" in call.name else -2, 0):
        size, out = reach.shape[dim], call.shape[dim]
        if out == 1:
            reach = collapse(reach, [dim])
            continue
        index = np.arange(out)
        reach = take(reach, dim, _spans(index * size // out, -(-(index + 1) * size // out)), factor=size / out)
    return reach


@rule("unfold")
def _unfold(call: Call) -> Reach:
    dim = call["dimension"] % len(call.first.shape)
    reach = _unrolled(call.first, dim, _windows(call.shape[dim], call["size"], call["step"], 0, 1), call["step"], 1)
    order = [d for d in range(len(reach.shape)) if d != dim + 1]
    return permute(reach, [*order, dim + 1])


def _unrolled(reach: Reach, dim: int, taps: Taps, stride: int, dilation: int) -> Reach:
    """Windows side by side: ``dim`` becomes two, (windows, taps)."""
    flat = take(reach, dim, taps.reshape(-1, 1))
    rolled = reshape(flat, (*reach.shape[:dim], *taps.shape, *reach.shape[dim + 1 :]))
    steps = [_scaled(reach.steps[dim], size, jump) for size, jump in zip(taps.shape, (stride, dilation), strict=True)]
    return replace(rolled, steps=(*reach.steps[:dim], *steps, *reach.steps[dim + 1 :]))


@rule("im2col")
def _im2col(call: Call) -> Reach:
    reach = call.first
    settings = zip(*(call.spatial(name, 2) for name in ("kernel_size", "stride", "padding", "dilation")), strict=True)
    for dim, (kernel, stride, padding, dilation) in zip((-3, -1), settings, strict=True):  # (..., C, oh, kh, ow, kw)
        place = len(reach.shape) + (dim + 1 if dim == -3 else dim)
        out = (reach.shape[place] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        reach = _unrolled(reach, place, _windows(out, kernel, stride, padding, dilation), stride, dilation)
    count = len(reach.shape)
    order = [*range(count - 4), count - 3, count - 1, count - 4, count - 2]
    return reshape(permute(reach, order), call.shape)


@rule("col2im")
def _col2im(call: Call) -> Reach:
    names = ("output_size", "kernel_size", "stride", "padding", "dilation")
    settings = list(zip(*(call.spatial(name, 2) for name in names), strict=True))
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings]
    lead = call.shape[:-2]
    reach = reshape(call.first, (*lead, settings[0][1], settings[1][1], *counts))
    for kernels, windows, (out, kernel, stride, padding, dilation) in zip((-4, -3), (-2, -1), settings, strict=True):
        taps = _transposed_windows(out, kernel, stride, padding, dilation)
        rows = [cut(reach, len(reach.shape) + kernels, index) for index in range(kernel)]
        laid = [take(row, windows, taps[:, index, None], factor=1 / stride) for index, row in enumerate(rows)]
        reach = merge(laid, laid[0].shape)
    return reach


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _pad(call: Call) -> Reach:
    reach = call.first
    pad = call.get("pad") or call["padding"]
    mode = {"reflection": "reflect", "replication": "edge"}.get(call.name.removeprefix("aten::").split("_")[0])
    for k in range(len(pad) // 2):
        before, after = pad[2 * k], pad[2 * k + 1]
        drawn = np.arange(-before, reach.shape[-1 - k] + after)
        taps = np.pad(np.arange(reach.shape[-1 - k]), (before, after), mode=mode) if mode else drawn  # type: ignore[call-overload]
        reach = take(reach, -1 - k, taps[:, None], drawn=drawn[:, None])
    return reach


@rule(
    *(f"upsample_{mode}{n}d" for mode in ("nearest", "linear", "bilinear", "trilinear", "bicubic") for n in (1, 2, 3))
)
@rule(*(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)), "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def _upsample(call: Call) -> Reach:
    reach, count = call.first, len(call.shape) - 2
    scales = [call.get(name) for name in (["scales"] if count == 1 else ["scales_d", "scales_h", "scales_w"][-count:])]
    kind = np.float64 if call.inputs[0].dtype == torch.float64 else np.float32  # torch rounds in the tensor's precision
    for dim, given in zip(range(-count, 0), scales, strict=True):
        size, out = reach.shape[dim], call.shape[dim]
        taps, drawn = _resampled(call.name, size, out, given, bool(call.get("align_corners")), kind)
        reach = take(reach, dim, taps, drawn=drawn, factor=size / out)
    return reach


def _resampled(name: str, size: int, out: int, given: float | None, corners: bool, kind: type) -> tuple[Taps, Taps]:
    """Taps of a resampling, inside the picture and nominally."""
    index: NDArray[Any] = np.arange(out, dtype=kind)
    scale = kind(1 / given if given else size / out)
    if "nearest" in name:
        index = index.astype(np.float32) + np.float32(0.5 if "exact" in name else 0)
        taps = np.minimum(np.floor(index * np.float32(scale)), size - 1).astype(np.int64)[:, None]
        return taps, taps
    if corners:
        scale = kind((size - 1) / max(out - 1, 1))
    if name.endswith("_aa"):
        return _antialiased(index, scale, size, 4 if "cubic" in name else 2, corners)
    source = index * scale if corners else (index + kind(0.5)) * scale - kind(0.5)
    if "cubic" in name:
        drawn = np.floor(source).astype(np.int64)[:, None] + np.arange(-1, 3)
        return drawn.clip(0, size - 1), drawn
    if size == out:
        taps = np.arange(out)[:, None]
        return taps, taps
    first, drawn = (np.floor(places).astype(np.int64)[:, None] + np.arange(2) for places in (source.clip(0), source))
    return first.clip(0, size - 1), drawn


def _antialiased(index: NDArray, scale: Any, size: int, taps: int, corners: bool) -> tuple[Taps, Taps]:
    support = taps / 2 * max(float(scale), 1)
    centre = scale * (index + 0.5)
    first, stop = (np.floor(centre + side * support + 0.5).astype(np.int64) for side in (-1, 1))
    return _spans(first.clip(0), stop.clip(None, size)), _spans(first, stop)


@rule("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(call: Call) -> Reach:
    *lead, channels, height, width = call.first.shape
    shuffle = call.name == "aten::pixel_shuffle"
    factor = call["upscale_factor"] if shuffle else call["downscale_factor"]
    n, r = len(lead), factor
    blocks = (channels // r**2, r, r, height, width) if shuffle else (channels, height // r, r, width // r, r)
    order = [0, 3, 1, 4, 2] if shuffle else [0, 2, 4, 1, 3]
    reach = permute(reshape(call.first, (*lead, *blocks)), [*range(n), *(n + k for k in order)])
    result = reshape(reach, call.shape)
    steps = [_scaled(call.first.steps[dim], call.shape[dim], 1 / r if shuffle else r) for dim in (-2, -1)]
    return replace(result, steps=(*result.steps[:-2], *steps))


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(call: Call) -> Reach:
    batch, channels, *rest = call.shape
    groups = call["groups"]
    split = reshape(call.first, (batch, groups, channels // groups, *rest))
    return reshape(permute(split, [0, 2, 1, *range(3, len(split.shape))]), call.shape)


# reductions and whatever else mixes along dims


@rule(
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "norm", "median", "mode"
)
@rule(
    "linalg_vector_norm",
    "logsumexp",
    "argmax",
    "argmin",
    "all",
    "any",
    "aminmax",
    "nansum",
    "count_nonzero",
    "nanmedian",
)
@rule("kthvalue")
def _reduce(call: Call) -> Reach:
    if call.operator.pointwise:  # torch.max(a, b)
        return _pointwise(call)
    return collapse(call.first, call.dims(), keep=bool(call.get("keepdim")))


@rule("_softmax", "_log_softmax", "_safe_softmax", "sort", "argsort", "topk")
def _mix(call: Call) -> Reach:
    dim = call.dims()[0]
    return resized(mixed(call.first, [dim]), dim, call.shape[dim])


@rule("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
def _cumulate(call: Call) -> Reach:
    reach, axis = _strict(call.first), call.dims()[0] + 2
    rows, columns = (np.maximum.accumulate(bounds, axis) for bounds in reach.bounds)
    return replace(reach, bounds=(rows, columns))


@rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> Reach:
    ndim = len(call.first.shape)
    return mixed(call.first, range(ndim - len(call["normalized_shape"]), ndim))


@rule("native_group_norm")
def _group_norm(call: Call) -> Reach:
    batch, channels, *rest = call.first.shape
    groups = reshape(call.first, (batch, call["group"], channels // call["group"], *rest))
    return reshape(mixed(groups, range(2, len(groups.shape))), call.first.shape)


@rule("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm")
@rule("_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training", "_batch_norm_no_update")
@rule("_batch_norm_with_update")
def _batch_norm(call: Call) -> Reach:
    statistics = call.get("training", call.name.endswith("with_update"))
    return mixed(call.first, {*range(len(call.first.shape))} - {1}) if statistics else call.first


@rule("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "dot", "addmv")
def _matmul(call: Call) -> Reach:
    *bias, left, right = (call.reach(tensor) for tensor in _tensors(call.inputs))
    left = collapse(left, [-1], keep=len(right.shape) > 1)
    right = collapse(right, [-2 if len(right.shape) > 1 else -1], keep=len(right.shape) > 1)
    if call.name == "aten::addbmm":
        left, right = collapse(left, [0], keep=False), collapse(right, [0], keep=False)
    return merge([left, right, *bias], call.shape)


@rule("glu")
def _glu(call: Call) -> Reach:
    dim = call["dim"] % len(call.shape)
    half = call.shape[dim]
    return merge([cut(call.first, dim, slice(0, half)), cut(call.first, dim, slice(half, None))], call.shape)


@rule(*(f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn", "fused")))
@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math_for_mps")
@rule("_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention")
def _attention(call: Call) -> Reach:
    if call.get("is_causal"):
        raise Unfollowed
    query, key, value = (call.reach(name) for name in ("query", "key", "value"))
    parts = [collapse(query, [-1]), collapse(key, [-2, -1]), collapse(value, [-2])]
    mask = call.get("attn_mask", call.get("attn_bias"))
    return merge([*parts, *([collapse(call.reach(mask), [-1])] if call.depends(mask) else [])], call.shape)


@rule("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
def _fused_attention(call: Call) -> Reach:
    names = ("src",) if call.get("src") is not None else ("query", "key", "value")
    return _broadcast(merge([collapse(call.reach(name), [1, 2]) for name in names], (call.shape[0], 1, 1)), call.shape)


# --------------------------------------------------------------------------------------------------------- the tracer


@dataclass(eq=False)
class _Record:
    """What is known of one tensor. A view is worked out when it is asked for, from the tensor that it looks at."""

    reach: Reach | None = None
    writes: int = 0  # how often the memory was written to; a view is stale when its base has a higher count
    call: Call | None = None
    index: int = 0


class Tracer(TorchDispatchMode):
    """Follows every operator between ``images`` (N, 3, H, W) and the tensors that are asked for afterwards.

    ``images`` is the very tensor that the network is called with inside the ``with`` block, or that its input is made
    from there. Tensors are known by identity, and forgotten when the network drops them. Views share what is known of
    their memory, in-place operators included. Pictures of a batch count as one. It may be asked inside and afterwards.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if images.ndim < 2:
            raise OptionError(f"a picture has rows and columns, but this tensor has the shape {tuple(images.shape)}")
        self.size = (int(images.shape[-2]), int(images.shape[-1]))
        self._records: Any = WeakIdKeyDictionary()
        self._records[images] = _Record(picture(images.shape))
        self._operators: dict[Any, Operator] = {}
        self._leaks: frozenset[str] = frozenset()

    def field(
        self,
        tensor: Tensor,
        *,
        layout: Layout | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int | None = None,
    ) -> ReceptiveField | None:
        """The receptive field of the units of ``tensor``, or None if it does not depend on the picture.

        Args:
            tensor: an activation that was computed inside the ``with`` block.
            layout: where rows and columns are: ``"NCHW"``, ``"NHWC"``, or ``"tokens"`` for (N, T, C) and (N, C, T). By
                default where the trace found them; a tensor that has none, or other dims, is one unit.
            grid: rows and columns of the tokens; by default a grid in the shape of the picture.
            prefix: tokens ahead of the grid (class token, registers); by default as few as leave such a grid.

        Raises:
            OptionError: the tensor does not have that layout, or its tokens do not fill a grid.
        """
        reach = self._reach(tensor)
        if reach is None:
            return None
        found = layout or _found(reach, self.size, given=grid is not None or prefix is not None)
        plane = _gridless(reach) if found is None else _plane(reach, found, grid, prefix, self.size)
        return _summary(plane, self.size, self._leaks)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        operator = self._operators.get(func) or self._operators.setdefault(func, Operator(func))
        if operator.rule is _unknown and operator.parts is not None:
            result = self._open(operator, args, kwargs)
        else:
            result = func(*args, **kwargs)
            self._follow(operator, args, kwargs, result)
        return result

    def _follow(self, operator: Operator, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
        inputs = _tensors((*args, *kwargs.values()))
        if not operator.view and not any(tensor in self._records for tensor in inputs):
            return
        results = list(_tensors([result]))
        call = Call(self, operator, args, kwargs, results)
        if not results:
            self._leak(call)
        elif operator.view:
            for index, tensor in enumerate(results):
                if tensor is not call.inputs[0]:
                    self._records[tensor] = _Record(writes=-1, call=call, index=index)
        else:
            for tensor, reach in zip(results, call.outputs(), strict=True):
                self._write(tensor, reach)

    def _open(self, operator: Operator, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Follow a composite operator part by part; one whose parts do not show is taken for the whole picture."""
        assert operator.parts is not None
        with self:
            result = operator.parts(*args, **kwargs)
        results = list(_tensors([result]))
        call = Call(self, operator, args, kwargs, results)
        if any(map(call.depends, _tensors(call.inputs))) and not any(map(call.depends, results)):
            for tensor, reach in zip(results, call.whole(), strict=True):
                self._write(tensor, reach)
        return result

    def _leak(self, call: Call) -> None:
        if any(call.depends(tensor) for tensor in _tensors(call.inputs)):
            self._leaks |= {call.name}

    def _reach(self, tensor: Tensor) -> Reach | None:
        record = self._records.get(tensor)
        if record is None or record.call is None:
            return record and record.reach
        base = self._base(record)
        if record.writes != base.writes:
            record.reach, record.writes = _seeing(record.call.outputs()[record.index]), base.writes
        return record.reach

    def _base(self, record: _Record) -> _Record:
        """The record of the tensor that a view, or a view of a view, looks at."""
        while record.call is not None:
            record = self._records.setdefault(record.call.inputs[0], _Record())
        return record

    def _write(self, tensor: Tensor, reach: Reach) -> None:
        record = self._records.setdefault(tensor, _Record())
        if record.call is not None and record.call.shapes[record.index] != reach.shape:  # transpose_() of a view
            record = self._records[tensor] = _Record()
        record.reach = _seeing(reach)
        if record.call is None:
            record.writes += 1
            return
        self._write(record.call.inputs[0], _uncut(record.call, record.index, reach))
        record.writes = self._base(record).writes


def _seeing(reach: Reach) -> Reach | None:
    return reach if reach.depends else None


# ---------------------------------------------------------------------------------------------- from reach to a field


def _found(reach: Reach, size: tuple[int, int], *, given: bool) -> Layout | None:
    """Where a tensor of three or four dims has its rows and columns."""
    ndim = len(reach.shape)
    rows, columns = ([dim for dim in range(ndim) if jump[dim] != 0] for jump in reach.jump)
    if (rows, columns) == ([ndim - 3], [ndim - 2]) and ndim in (3, 4):
        return "NHWC"
    if ndim == 4 or (ndim == 3 and (rows, columns) == ([1], [2])):
        return "NCHW"
    return "tokens" if ndim == 3 and (given or _guess(reach.shape[_token_dim(reach)], None, size)) else None


def _token_dim(reach: Reach) -> int:
    return 2 if reach.jump[:, 2].any() and not reach.jump[:, 1].any() else 1


def _plane(
    reach: Reach, layout: Layout, grid: tuple[int, int] | None, prefix: int | None, size: tuple[int, int]
) -> Reach:
    """The hull over everything but rows and columns, (R, C)."""
    ndim = len(reach.shape)
    if ndim not in ((3,) if layout == "tokens" else (3, 4)):
        raise OptionError(f"a tensor of the shape {reach.shape} is not {layout}; leave the layout out to have it found")
    if layout == "tokens":
        reach = _laid_out(reach, grid, prefix, size)
        layout, ndim = "NHWC", 4
    row = ndim - 3 if layout == "NHWC" else ndim - 2
    return collapse(reach, {*range(ndim)} - {row, row + 1}, keep=False)


def _laid_out(reach: Reach, grid: tuple[int, int] | None, prefix: int | None, size: tuple[int, int]) -> Reach:
    """Tokens as (N, R, C, channels)."""
    reach = permute(reach, [0, 2, 1]) if _token_dim(reach) == 2 else reach
    batch, tokens, channels = reach.shape
    if grid is None:
        guess = _guess(tokens, prefix, size)
        if guess is None:
            raise OptionError(f"{tokens} tokens form no grid in the shape of the picture; give grid=(rows, columns)")
        grid, prefix = guess[:2], guess[2]
    rows, columns = grid
    prefix = tokens - rows * columns if prefix is None else prefix
    if prefix < 0 or rows * columns + prefix != tokens:
        raise OptionError(f"{tokens} tokens are not {prefix} and a grid of {rows} x {columns}; correct grid or prefix")
    return reshape(cut(reach, 1, slice(prefix, None)), (batch, rows, columns, channels))


def _guess(tokens: int, prefix: int | None, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """Rows, columns and prefix: the shortest prefix that leaves a grid in the shape of the picture."""
    for ahead in range(min(9, tokens)) if prefix is None else [prefix]:
        left = tokens - ahead
        shapes = [(rows, left // rows) for rows in range(1, left + 1) if left % rows == 0]
        best = min(shapes, key=lambda shape: _mismatch(shape, size), default=(1, 1))
        if _mismatch(best, size) < 0.2 or prefix is not None:
            return *best, ahead
    return None


def _mismatch(shape: tuple[int, int], size: tuple[int, int]) -> float:
    return abs(math.log(shape[0] * size[1] / (shape[1] * size[0])))


def _gridless(reach: Reach) -> Reach:
    """A tensor without rows and columns is one unit, global by definition."""
    rows, columns = (_hull(b, range(len(reach.shape)), whole=True).reshape(2, 2, 1, 1) for b in reach.bounds)
    return Reach(_still((1, 1)), (rows, columns), reach.inexact)


def _summary(plane: Reach, size: tuple[int, int], leaks: frozenset[str]) -> ReceptiveField:
    rows, columns = _typical(plane, 0, size[0]), _typical(plane, 1, size[1])
    return ReceptiveField(
        size=(
            size[0] if math.isinf(rows[0]) else round(rows[0]),
            size[1] if math.isinf(columns[0]) else round(columns[0]),
        ),
        stride=(rows[1], columns[1]),
        offset=(rows[2], columns[2]),
        whole=math.isinf(rows[0]) and math.isinf(columns[0]),
        units=(plane.shape[0], plane.shape[1]),
        inexact=plane.inexact | leaks,
        _spans=(_span(plane.bounds[0]), _span(plane.bounds[1])),
    )


def _typical(plane: Reach, axis: int, size: int) -> tuple[float, float, float]:
    """Length, stride and offset of the nominal intervals: medians, since one that wraps around is not typical."""
    first, last = -plane.bounds[axis][NOMINAL, 0], plane.bounds[axis][NOMINAL, 1]
    stride = float(plane.jump[axis, axis])
    stride = stride if stride and math.isfinite(stride) else size / plane.shape[axis]
    seen = np.isfinite(last)
    if not seen.any():
        return math.inf, stride, (size - 1) / 2
    steps = stride * np.indices(last.shape)[axis][seen]
    lengths = np.sort(last[seen] - first[seen] + 1)
    starts = np.sort((first[seen] + last[seen]) / 2 - steps)
    return float(lengths[len(lengths) // 2]), stride, float(starts[len(starts) // 2])


def _span(bounds: Array) -> NDArray[np.int32]:
    """First and last pixel, (2, R, C) or of size 1 where it makes no difference; 0 and -1 for an empty interval."""
    ends = bounds[EXACT] * np.array([-1, 1]).reshape(2, 1, 1)
    span = np.where(np.isfinite(ends), ends, np.array([0, -1]).reshape(2, 1, 1)).astype(np.int32)
    span.setflags(write=False)
    return span
