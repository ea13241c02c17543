"""What each operator does inside a box: which box of its output depends on that of its input, and its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope import winograd
from convscope.perturb.graph import Node, PerPicture, Ref, aten, called, leaves, mapped
from convscope.perturb.places import Place, Places, Span, back, cut
from convscope.weights import channels_last, laid_out

if TYPE_CHECKING:
    from convscope.perturb.batch import Piece
    from convscope.perturb.plan import Plan


class NotLocal(Exception):
    """The operator needs whole maps."""


@dataclass(frozen=True, eq=False)
class Local:
    """A node computed inside a box: where, how, and how many elements a variation it takes in between."""

    place: Place
    run: Callable[[Piece], Any]
    scratch: int = 0


Rule: TypeAlias = "Callable[[Plan, int, Node], Local]"
RULES: dict[Any, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update({getattr(aten, name): rule for name in names if hasattr(aten, name)})
        return rule

    return register


def _behind(span: Span, kernel: int, stride: int, padding: int, dilation: int, length: int) -> Span:
    """Which rows of a sliding operator's output see the rows of its input."""
    reach = dilation * (kernel - 1)
    first = -((reach - span.starts - padding) // stride)  # rounded up
    return Span.hull(first, (span.last + padding) // stride, length)


def _seen(span: Span, kernel: int, stride: int, dilation: int, padded: int) -> Span:
    """Which rows of its padded input those rows of its output see."""
    return Span(span.starts * stride, (span.size - 1) * stride + dilation * (kernel - 1) + 1, padded)


def _two(value: Any, default: Any = None) -> tuple[int, int]:
    values = list(value if isinstance(value, (list, tuple)) else [value]) or list(default)
    if any(not isinstance(v, int) for v in values):
        raise NotLocal
    return values[0], values[-1]


@dataclass(frozen=True)
class _Slide:
    """A window that slides over (N, C, H, W): kernel, stride, padding, dilation, each (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


def _sliding(
    plan: Plan, number: int, node: Node, slide: _Slide, fill: float, run: Callable[[Piece, Tensor], Any]
) -> Local:
    """Cut what the box of the output sees out of the padded clean input, paste the change, run without padding."""
    ref = node.args[0]
    place, shape, clean = plan.maps(ref), node.shape(), plan.graph.nodes[ref.node].shape(ref.output)
    spans, seen, pads = [], [], []
    for axis, span in enumerate((place.rows, place.columns)):
        kernel, stride, padding, dilation = (
            v[axis] for v in (slide.kernel, slide.stride, slide.padding, slide.dilation)
        )
        out = _behind(span, kernel, stride, padding, dilation, shape[2 + axis])
        needed = (shape[2 + axis] - 1) * stride + dilation * (kernel - 1) + 1
        beyond = max(0, needed - padding - clean[2 + axis])
        spans.append(out)
        seen.append(_seen(out, kernel, stride, dilation, clean[2 + axis] + padding + beyond))
        pads.append((padding, beyond))
    need = plan.need(ref, (*pads[1], *pads[0]), fill)
    scratch = seen[0].size * seen[1].size * clean[1]
    found = Place(spans[0], spans[1])
    return Local(found, lambda piece: run(piece, piece.patch(need, seen[0], seen[1])), scratch)


@_rule("convolution")
def _convolution(plan: Plan, number: int, node: Node) -> Local:
    _, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if transposed or len(plan.graph.shape(weight)) != 4 or plan.graph.depends((weight, bias)):
        raise NotLocal
    size = plan.graph.shape(weight)
    slide = _Slide((size[2], size[3]), _two(stride), _two(padding), _two(dilation))

    plain = slide == _Slide((3, 3), (1, 1), slide.padding) and groups == 1

    def run(piece: Piece, patch: Tensor) -> Tensor:
        w, b = (piece.constant(v) for v in (weight, bias))
        if plain and _fewer_products(patch, size[0]):
            return winograd.convolved(patch, piece.shared.turned(number, w), b)
        w = laid_out(w) if channels_last(patch) else w
        return torch.convolution(patch, w, b, slide.stride, (0, 0), slide.dilation, False, (0, 0), groups)

    step = _sliding(plan, number, node, slide, 0.0, run)
    if plain and winograd.suits(size[0], size[1], step.place.rows.size, step.place.columns.size):
        return replace(step, scratch=6 * (step.scratch + math.prod(step.place.shape(node.shape(), 1))))
    return step


def _fewer_products(patch: Tensor, filters: int) -> bool:
    """Whether to convolve by ``winograd``: not on a GPU, whose library does so itself, nor in half precision."""
    wide = patch.device.type == "cpu" and patch.dtype in (torch.float32, torch.float64)
    return wide and winograd.suits(filters, patch.shape[1], patch.shape[2] - 2, patch.shape[3] - 2)


@_rule("max_pool2d_with_indices", "max_pool2d")
def _max_pool(plan: Plan, number: int, node: Node) -> Local:
    plan.only_first(number)
    kernel, stride, padding, dilation = _pool_options(node, ((), (0,), (1,)))
    slide = _Slide(kernel, stride, padding, dilation)

    def run(_piece: Piece, patch: Tensor) -> Tensor:
        return F.max_pool2d(patch, slide.kernel, slide.stride, 0, slide.dilation)

    return _sliding(plan, number, node, slide, -math.inf, run)


def _pool_options(node: Node, defaults: Sequence[Any]) -> list[tuple[int, int]]:
    given = [*node.args[1:], *([None] * len(defaults))]
    found = [_two(given[0])]
    for value, default in zip(given[1:], defaults, strict=False):
        found.append(_two(default if value is None else value, default or found[0]))
    return found


@_rule("avg_pool2d")
def _avg_pool(plan: Plan, number: int, node: Node) -> Local:
    kernel, stride, padding = _pool_options(node, ((), (0,)))[:3]
    shares = _divisors(plan, node, kernel, stride, padding)
    dims = plan.maps(node.args[0]).dims
    slide = _Slide(kernel, stride, padding)

    def run(piece: Piece, patch: Tensor) -> Tensor:
        sums = F.avg_pool2d(patch, kernel, stride, divisor_override=1)
        place = step.place.part(piece.part)
        factor = cut(shares.to(sums), place.rows, place.columns)
        return sums * back(factor, dims)

    step = _sliding(plan, number, node, slide, 0.0, run)
    return step


def _divisors(plan: Plan, node: Node, kernel: Any, stride: Any, padding: tuple[int, int]) -> Tensor:
    """(rows, columns, 1): what the sum in each window is multiplied by, which differs at the border."""
    height, width = plan.graph.shape(node.args[0])[2:]
    ones = torch.ones(1, 1, height, width, dtype=torch.float64)
    means = node.op(ones, *node.args[1:], **node.kwargs)
    rows, columns = means.shape[2:]
    more = [(n - 1) * s + k for n, s, k in zip((rows, columns), stride, kernel, strict=True)]
    beyond = [max(0, m - p - n) for m, p, n in zip(more, padding, (height, width), strict=True)]
    padded = F.pad(ones, (padding[1], beyond[1], padding[0], beyond[0]))
    counts = F.avg_pool2d(padded, kernel, stride, divisor_override=1)[:, :, :rows, :columns]
    return (means / counts)[0, 0, :, :, None]


@_rule("_adaptive_avg_pool2d")
def _adaptive(plan: Plan, number: int, node: Node) -> Local:
    """An average pool where the sizes divide each other."""
    place, shape = plan.maps(node.args[0]), node.shape()
    steps = [divmod(span.length, n) for span, n in zip((place.rows, place.columns), shape[2:], strict=True)]
    if any(rest for _, rest in steps):
        raise NotLocal
    kernel = (steps[0][0], steps[1][0])
    slide = _Slide(kernel, kernel, (0, 0))
    return _sliding(plan, number, node, slide, 0.0, lambda _piece, patch: F.avg_pool2d(patch, kernel))


@_rule("hardswish", "_to_copy", "detach", "alias", "_prelu_kernel", "clone")
def pointwise(plan: Plan, number: int, node: Node) -> Local:
    """Place by place; boxes that differ are grown to their hull first."""
    _constants_without_extent(plan, node)
    place = _united(plan, number, node)

    def run(piece: Piece) -> Any:
        return called(node, lambda ref: piece.grown(ref, place), piece.count)

    scratch = math.prod(place.shape(node.shape(), 1)) * len(plan.graph.refs(number))
    return Local(place, run, scratch)


def _constants_without_extent(plan: Plan, node: Node) -> None:
    """Tensors that do not depend on the picture may only hold numbers that are the same everywhere."""
    place = next(plan.places[leaf] for leaf in leaves((node.args, node.kwargs)) if leaf in plan.places)
    for leaf in leaves((node.args, node.kwargs)):
        if isinstance(leaf, Tensor) or (isinstance(leaf, Ref) and leaf not in plan.places):
            shape = plan.graph.shape(leaf)
            aligned = (1,) * (len(node.shape()) - len(shape)) + shape
            if any(aligned[dim] != 1 for dim in (0, *(place.dims or ()))):
                raise NotLocal


def _united(plan: Plan, number: int, node: Node) -> Place:
    """The hull of the boxes of all inputs."""
    known = [ref for ref in plan.graph.refs(number) if plan.graph.pictured(ref)]
    places = [plan.place(ref) for ref in known]
    shapes = [plan.graph.nodes[ref.node].shape(ref.output) for ref in known]
    first = places[0]
    if any(p.dims != first.dims or len(s) != len(shapes[0]) for p, s in zip(places, shapes, strict=True)):
        raise NotLocal
    if any((p.rows.length, p.columns.length) != (first.rows.length, first.columns.length) for p in places):
        raise NotLocal
    if len(node.shape()) != len(shapes[0]):
        raise NotLocal
    if all(place.same(first) for place in places):
        return first
    if first.dims is None:
        raise NotLocal
    for ref in known:
        plan.need(ref)
    rows, columns = (_hull([getattr(p, axis) for p in places]) for axis in ("rows", "columns"))
    return Place(rows, columns, first.dims)


def _hull(spans: Sequence[Span]) -> Span:
    first = np.minimum.reduce([span.starts for span in spans])
    return Span.hull(first, np.maximum.reduce([span.last for span in spans]), spans[0].length)


@_rule("cat")
def _cat(plan: Plan, number: int, node: Node) -> Local:
    pieces = node.args[0]
    dim = (node.args[1] if len(node.args) > 1 else 0) % len(node.shape())
    dims = plan.place(pieces[0]).dims
    if dims is None or dim in (0, *dims) or any(not isinstance(p, Ref) or p not in plan.places for p in pieces):
        raise NotLocal
    place = _united(plan, number, node)

    def run(piece: Piece) -> Tensor:
        return torch.cat([piece.grown(ref, place) for ref in pieces], dim)

    return Local(place, run, 2 * math.prod(place.shape(node.shape(), 1)))


def _same_place(plan: Plan, node: Node, *, but: Sequence[int], dims: tuple[int, int] | None = None) -> Local:
    """An operator that leaves rows and columns alone, unless it acts on one of the dims ``but``."""
    place = plan.place(node.args[0])
    count = len(plan.graph.shape(node.args[0]))
    if place.dims is None or any(dim % count in (0, *place.dims) for dim in but):
        raise NotLocal
    if plan.graph.depends((node.args[1:], node.kwargs)):
        raise NotLocal
    found = Place(place.rows, place.columns, dims or place.dims)
    return Local(found, lambda piece: called(node, piece.local_or_constant, piece.count))


@_rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(plan: Plan, number: int, node: Node) -> Local:
    plan.only_first(number)
    trained = node.op.overloadpacket is not aten._native_batch_norm_legit_no_training and node.args[5]
    if trained or plan.place(node.args[0]).dims is None:
        raise NotLocal
    return _same_place(plan, node, but=[1])


@_rule("native_layer_norm")
def _layer_norm(plan: Plan, number: int, node: Node) -> Local:
    plan.only_first(number)
    count = len(node.shape())
    return _same_place(plan, node, but=range(count - len(node.args[1]), count))


@_rule("_softmax", "_log_softmax")
def _softmax(plan: Plan, number: int, node: Node) -> Local:
    return _same_place(plan, node, but=[node.args[1]])


@_rule("split", "split_with_sizes", "unbind")
def _split(plan: Plan, number: int, node: Node) -> Local:
    alone = node.op.overloadpacket is aten.unbind
    dim = node.args[-1] if len(node.args) > (1 if alone else 2) else 0
    dims = _without(plan, node, [dim]) if alone else None
    return _same_place(plan, node, but=[dim], dims=dims)


@_rule("mean", "sum", "amax", "amin")
def _reduction(plan: Plan, number: int, node: Node) -> Local:
    over = node.args[1] if len(node.args) > 1 else None
    if not over:
        raise NotLocal
    over = over if isinstance(over, (list, tuple)) else [over]
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return _same_place(plan, node, but=over, dims=None if keep else _without(plan, node, over))


@_rule("select")
def _select(plan: Plan, number: int, node: Node) -> Local:
    return _same_place(plan, node, but=[node.args[1]], dims=_without(plan, node, [node.args[1]]))


def _without(plan: Plan, node: Node, gone: Sequence[int]) -> tuple[int, int] | None:
    """The row and column dims after some dims have gone."""
    dims, count = plan.place(node.args[0]).dims, len(plan.graph.shape(node.args[0]))
    if dims is None:
        return None
    gone = [dim % count for dim in gone]
    return (dims[0] - sum(g < dims[0] for g in gone), dims[1] - sum(g < dims[1] for g in gone))


@_rule("permute", "transpose")
def _permute(plan: Plan, number: int, node: Node) -> Local:
    count = len(node.shape())
    order = list(range(count))
    if node.op.overloadpacket is aten.permute:
        order = [dim % count for dim in node.args[1]]
    else:
        a, b = (dim % count for dim in node.args[1:3])
        order[a], order[b] = b, a
    dims = plan.place(node.args[0]).dims
    if dims is None or order[0] != 0:
        raise NotLocal
    return _same_place(plan, node, but=[], dims=(order.index(dims[0]), order.index(dims[1])))


@_rule("unsqueeze")
def _unsqueeze(plan: Plan, number: int, node: Node) -> Local:
    dim = node.args[1] % len(node.shape())
    dims = plan.place(node.args[0]).dims
    if dims is None or dim == 0:
        raise NotLocal
    return _same_place(plan, node, but=[], dims=(dims[0] + (dim <= dims[0]), dims[1] + (dim <= dims[1])))


@_rule("view", "_unsafe_view", "reshape")
def _view(plan: Plan, number: int, node: Node) -> Local:
    """Splitting and joining channels, as in a channel shuffle; joining pictures, rows and columns before a product."""
    place, before, after = plan.place(node.args[0]), plan.graph.shape(node.args[0]), node.shape()
    size = (place.rows.length, place.columns.length)
    if place.dims is None:
        dims = (1, 2) if after == (1, *size, before[1]) else _nowhere()
    elif place.dims == (1, 2) and after == (size[0] * size[1], *before[3:]) and len(before) == 4:
        dims = None
    else:
        dims = _kept(before, place.dims, after)
    found = Place(place.rows, place.columns, dims)
    return Local(found, lambda piece: piece.local[node.args[0]].reshape(found.shape(after, piece.count)))


def _nowhere() -> tuple[int, int]:
    raise NotLocal


def _kept(before: Sequence[int], dims: tuple[int, int], after: Sequence[int]) -> tuple[int, int]:
    """Where rows and columns are after a reshape that only concerns other dims."""
    if not after or after[0] != 1:
        raise NotLocal
    found = []
    for dim in dims:
        ahead = math.prod(before[:dim])
        fits = [d for d in range(1, len(after)) if after[d] == before[dim] and math.prod(after[:d]) == ahead]
        if not fits:
            raise NotLocal
        found.append(fits[-1] if dim == dims[1] else fits[0])
    if found[0] >= found[1]:
        raise NotLocal
    return found[0], found[1]


@_rule("mm", "addmm")
def _product(plan: Plan, number: int, node: Node) -> Local:
    """A linear layer over channels that come last."""
    *bias, values, weight = node.args
    place = plan.place(values)
    if place.dims is not None or plan.graph.depends((bias, weight)):
        raise NotLocal
    if any(len(plan.graph.shape(b)) != 1 for b in bias):
        raise NotLocal
    return Local(place, lambda piece: called(node, piece.local_or_constant, piece.count))


@_rule("constant_pad_nd")
def _constant_pad(plan: Plan, number: int, node: Node) -> Local:
    """The box moves; nothing is computed."""
    place, pads, shape = plan.place(node.args[0]), node.args[1], node.shape()
    if place.dims is None or any(not isinstance(p, int) or p < 0 for p in pads):
        raise NotLocal
    before = {len(shape) - 1 - axis: pads[2 * axis] for axis in range(len(pads) // 2)}
    if any(any(pads[2 * a : 2 * a + 2]) and len(shape) - 1 - a not in place.dims for a in range(len(pads) // 2)):
        raise NotLocal
    rows, columns = (
        Span(span.starts + before.get(dim, 0), span.size, shape[dim])
        for span, dim in zip((place.rows, place.columns), place.dims, strict=True)
    )
    return Local(Place(rows, columns, place.dims), lambda piece: piece.local[node.args[0]])


@_rule("slice")
def _slice(plan: Plan, number: int, node: Node) -> Local:
    place = plan.place(node.args[0])
    dim = (node.args[1] if len(node.args) > 1 else 0) % len(node.shape())
    if node.shape() == plan.graph.shape(node.args[0]) and not any(isinstance(a, PerPicture) for a in node.args):
        return Local(place, lambda piece: piece.local[node.args[0]])
    if place.dims is not None and dim in place.dims:
        return _moved(plan, number, node)
    return _same_place(plan, node, but=[dim])


@_rule("reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "index_select", "flip", "roll")
def _moved(plan: Plan, number: int, node: Node) -> Local:
    """Every place of the output is a copy of one of the input: mirrored padding, enlarging, cropping."""
    ref = node.args[0]
    place = plan.maps(ref)
    sources = _sources(plan, node, place)
    if len(node.shape()) != 4:
        raise NotLocal
    spans = [_copies(span, source) for span, source in zip((place.rows, place.columns), sources, strict=True)]
    need = plan.need(ref)
    found = Place(spans[0], spans[1])

    def run(piece: Piece) -> Tensor:
        return piece.copied(need, place, found, sources)

    return Local(found, run, 2 * math.prod(found.shape(node.shape(), 1)))


def _sources(plan: Plan, node: Node, place: Place) -> list[Places]:
    """For each row and each column of the output, the one of the input that it copies: run it on the row numbers."""
    height, width = place.rows.length, place.columns.length
    given = (node.args[1:], node.kwargs)
    if plan.graph.depends(given) or any(isinstance(leaf, PerPicture) for leaf in leaves(given)):
        raise NotLocal
    args, kwargs = mapped(given, lambda leaf: _on_cpu(plan.graph.constant(leaf, 1)))
    axes = node.args[1] if node.op.overloadpacket is aten.index_select else None
    if axes is not None and axes % 4 not in (2, 3):
        raise NotLocal
    rows = torch.arange(height, dtype=torch.float64).view(1, 1, -1, 1).expand(1, 1, height, width)
    columns = torch.arange(width, dtype=torch.float64).expand(1, 1, height, width)
    found = [node.op(coordinates.clone(), *args, **kwargs) for coordinates in (rows, columns)]
    if any(values.ndim != 4 or values.shape[:2] != (1, 1) for values in found):
        raise NotLocal
    return [found[0][0, 0, :, 0].long().numpy(), found[1][0, 0, 0].long().numpy()]


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _copies(span: Span, source: Places) -> Span:
    """The rows of the output that copy any row of the span."""
    found = {}
    for start in np.unique(span.starts):
        where = np.flatnonzero((source >= start) & (source < start + span.size))
        found[int(start)] = (where[0], where[-1]) if len(where) else (0, 0)
    first, last = np.array([found[int(start)] for start in span.starts]).T
    return Span.hull(first, last, len(source))
