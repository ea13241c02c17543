"""Forward passes over many altered copies of one picture, computing again only what the alteration changed.

Every copy differs from the picture inside one box. A convolution, a pool or a sum carries the change only a little
further, so its output is that of the clean picture except inside a box that grows from operator to operator. Only
that box is computed, for many copies at once, out of the clean activations around it, until it covers the map or
something global (pooling over the whole map, flattening, attention) needs whole maps: there the box is pasted into
the clean map, and the rest runs as usual. Nothing is approximated: the scores are those of full passes but for
rounding, and two of them are checked against full passes when a network first meets pictures of a size. A copy may
also differ in several boxes: each of them is followed by itself, with what the others changed pasted in around it::

    variations = Variations(network)
    outcome = variations.of(image, boxes=[(0, 0, 16, 16), (8, 8, 16, 16)], content=torch.zeros(3, 1, 1))
    outcome.logits      # (2, classes)
    outcome.engine      # "incremental", or "full" and outcome.reason
    outcome.saved       # share of the multiply-adds that were not needed

The network is followed operator by operator through two passes of blank pictures under ``functionalize``, so any
Python code may stand between picture and scores, and the module is not touched. What differs between a batch of two
and one of three tells which numbers mean the batch. Convolutions and matrix products are skipped in these passes:
only shapes count. A network whose course depends on what it computes cannot be followed so, nor can one that runs
outside torch; both get full passes. The idea is Krypton's (Nakandala, Kumar and Papakonstantinou, SIGMOD 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from convscope import winograd
from convscope.batching import batched, is_out_of_memory
from convscope.errors import OptionError
from convscope.hooks import evaluation_mode
from convscope.network import Network

__all__ = ["Box", "Engine", "Outcome", "Variations", "perturbed"]

Engine = Literal["incremental", "full"]
Box: TypeAlias = tuple[int, int, int, int]
"""Top, left, height, width, in pixels."""
Places: TypeAlias = NDArray[np.int64]
Read: TypeAlias = Callable[[Tensor], Tensor]

aten = torch.ops.aten
MOST_AT_ONCE = 80  # windows a batch: more gains nothing on a CPU, and the memory is better spent on caches
FEWEST_PLANNED = 20  # windows that are worth a plan of their own
MOST_BANDS = 6  # at unlike distances from the border; each pair of bands is planned by itself
BUDGET = 512 * 2**20  # bytes that a batch may take, weights and clean activations not counted
WHOLE = 0.9  # a box over this share of a map costs as much as the map
FULL_PICTURE = 768  # bytes a pixel of an unknown network takes in a full pass: three maps of 64 channels in float32


# ------------------------------------------------------------------------------------------ following the network


class _Unfollowed(Exception):
    """Why the network cannot be followed, as a part of a sentence."""


@dataclass(frozen=True)
class _Ref:
    """An output of a node."""

    node: int
    output: int = 0


@dataclass(frozen=True)
class _PerPicture:
    """A number that grows with the batch."""

    slope: int
    offset: int

    def of(self, count: int) -> int:
        return self.slope * count + self.offset


@dataclass
class _Node:
    """One operator call; ``args`` hold :class:`_Ref`, :class:`_PerPicture`, tensors and plain values."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Any]  # of each: shape (for one picture), bytes an element, dims that grow with the batch
    pictured: bool  # whether it depends on the picture
    value: Any = None  # of what does not

    def shape(self, output: int = 0) -> tuple[int, ...]:
        return self.outputs[output][0]


_HEAVY = {aten.convolution, aten.addmm, aten.mm, aten.bmm, aten.baddbmm}
_READS = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.unique_dim, aten._unique2}


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, (list, tuple)):
        return type(tree)([_mapped(part, change) for part in tree])
    if isinstance(tree, dict):
        return {name: _mapped(part, change) for name, part in tree.items()}
    return change(tree)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _leaves(part)
    elif isinstance(tree, dict):
        yield from _leaves(list(tree.values()))
    else:
        yield tree


def _outputs(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class _CircularPads(TorchFunctionMode):
    """Circular padding writes into slices of an empty tensor, which hides where they come from: say it plainly."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
        if function is not F.pad or mode != "circular":
            return function(*args, **kwargs)
        values, pads = (*args, *(kwargs[name] for name in ("input", "pad") if name in kwargs))[:2]
        for axis in range(len(pads) // 2):
            size = values.shape[-1 - axis]
            around = torch.arange(-pads[2 * axis], size + pads[2 * axis + 1], device=values.device) % size
            values = values.index_select(values.ndim - 1 - axis, around)
        return values


class _Recorder(TorchDispatchMode):
    """Writes down every operator call; those that only cost time give zeros."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes = [_Node(None, (), {}, [_described(images)], True)]
        self.known = WeakIdKeyDictionary()
        self.known[images] = _Ref(0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # keeps torch from importing its compiler, which takes seconds, at the first call

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _mapped((tuple(args), kwargs), self._named)
        pictured = any(isinstance(leaf, _Ref) and self.nodes[leaf.node].pictured for leaf in _leaves(given))
        if pictured and op.overloadpacket in _READS:
            raise _Unfollowed("it decides by what it computes")
        if op is aten.as_strided_.default and tuple(args[1]) == tuple(args[0].shape):
            return op(*args, **kwargs)  # other strides, the same values
        if pictured and op._schema.is_mutable:
            raise _Unfollowed(f"{op} writes where it cannot be followed")
        skip = pictured and op.overloadpacket in _HEAVY
        result = _blank(op, args) if skip else op(*args, **kwargs)
        outputs = [_described(out) for out in _outputs(result)]
        self._note(_Node(op, given[0], given[1], outputs, pictured), result)
        return result

    def _named(self, value: Any) -> Any:
        return self.known.get(value, value) if isinstance(value, Tensor) else value

    def _note(self, node: _Node, result: Any) -> None:
        node.value = None if node.pictured else result
        for number, out in enumerate(_outputs(result)):
            if isinstance(out, Tensor) and out not in self.known:
                self.known[out] = _Ref(len(self.nodes), number)
        self.nodes.append(node)


def _described(value: Any) -> Any:
    return (tuple(value.shape), value.element_size(), ()) if isinstance(value, Tensor) else ((), 0, ())


def _blank(op: Any, args: Sequence[Any]) -> Tensor:
    """Zeros of the shape that ``op`` would give, without its arithmetic."""
    if op.overloadpacket is aten.convolution:
        values, weight = args[0], args[1]
        shape = _convolved(values.shape, weight.shape, *args[3:])
        last = any(
            t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
            for t in (values, weight)
            if t.ndim == 4
        )
        form = torch.channels_last if last else torch.contiguous_format
        return torch.zeros(shape, dtype=values.dtype, device=values.device).contiguous(memory_format=form)
    left, right = args[-2:]
    return left.new_zeros((*left.shape[:-1], right.shape[-1]))


def _convolved(
    values: Sequence[int], weight: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, beyond: Sequence[int], groups: int,
) -> list[int]:  # fmt: skip
    sizes = []
    for axis, size in enumerate(values[2:]):
        s, p, d, o = (v[axis % len(v)] for v in (stride, padding, dilation, beyond))
        reach = d * (weight[2 + axis] - 1)
        sizes.append((size - 1) * s - 2 * p + reach + o + 1 if transposed else (size + 2 * p - reach - 1) // s + 1)
    return [values[0], weight[1] * groups if transposed else weight[0], *sizes]


def _recorded(network: Network, image: Tensor, count: int) -> tuple[list[_Node], _Ref]:
    if network.defence is not None:
        raise _Unfollowed(f"{network.defence} stands in front of it")
    images = torch.zeros_like(image).expand(count, *image.shape).clone()
    with torch.no_grad(), evaluation_mode(network.module), _Recorder(images) as recorder, _CircularPads():
        output = torch.func.functionalize(network.forward)(images)
    found = recorder.known.get(output)
    if found is None or not recorder.nodes[found.node].pictured:
        raise _Unfollowed("its scores come from outside torch")
    return recorder.nodes, found


def _merged(two: Any, three: Any) -> Any:
    """What both passes agree on; a number that differs is taken to grow with the batch."""
    if isinstance(two, (list, tuple)) and type(two) is type(three) and len(two) == len(three):
        return type(two)([_merged(a, b) for a, b in zip(two, three, strict=True)])
    if isinstance(two, dict) and two.keys() == three.keys():
        return {name: _merged(two[name], three[name]) for name in two}
    if isinstance(two, Tensor) and isinstance(three, Tensor):
        if two is three or (two.shape == three.shape and torch.equal(two, three)):
            return two
    elif type(two) is int and type(three) is int and two != three:
        return _PerPicture(three - two, 3 * two - 2 * three)
    elif type(two) is type(three) and two == three:
        return two
    raise _Unfollowed("its course depends on the number of pictures")


class _Graph:
    """The operators between picture and scores."""

    def __init__(self, network: Network, image: Tensor) -> None:
        (two, self.output), (three, other) = (_recorded(network, image, count) for count in (2, 3))
        if len(two) != len(three) or self.output != other:
            raise _Unfollowed("its course depends on the number of pictures")
        self.nodes = [_agreed(a, b) for a, b in zip(two, three, strict=True)]
        self.proven = False  # whether the boxes of a call were found to give the scores of full passes
        self._refs: dict[int, list[_Ref]] = {}
        self.last: dict[_Ref, int] = {self.output: len(self.nodes)}  # who uses an output last; absent: nobody
        for number in reversed(range(len(self.nodes))):
            if any(_Ref(number, output) in self.last for output in range(len(self.nodes[number].outputs))):
                for ref in self.refs(number):
                    self.last.setdefault(ref, number)

    def refs(self, number: int) -> list[_Ref]:
        """The outputs that a node takes."""
        if number not in self._refs:
            node = self.nodes[number]
            self._refs[number] = [leaf for leaf in _leaves((node.args, node.kwargs)) if isinstance(leaf, _Ref)]
        return self._refs[number]

    def pictured(self, ref: _Ref) -> bool:
        return self.nodes[ref.node].pictured

    @cached_property
    def work(self) -> list[int]:
        """The nodes that matter and depend on the picture, in order."""
        return [n for n, node in enumerate(self.nodes) if n and node.pictured and self.used(n)]

    def used(self, number: int) -> list[int]:
        """Which outputs of a node anybody uses."""
        return [o for o in range(len(self.nodes[number].outputs)) if _Ref(number, o) in self.last]

    @cached_property
    def dying(self) -> Mapping[int, list[_Ref]]:
        """What nobody needs any more behind a node."""
        dying: dict[int, list[_Ref]] = {}
        for ref, number in self.last.items():
            dying.setdefault(number, []).append(ref)
        return dying

    def multiply_adds(self, number: int) -> int:
        """Of a node, for one picture."""
        node = self.nodes[number]
        packet, outputs = getattr(node.op, "overloadpacket", None), math.prod(node.shape())
        if packet is aten.convolution:
            weight = self.shape(node.args[1])
            moved = math.prod(self.shape(node.args[0])) if node.args[6] else outputs  # transposed or not
            return moved * math.prod(weight[1:])
        if packet in _HEAVY:
            return outputs * self.shape(node.args[-1])[-2]
        if packet is not None and "scaled_dot_product" in str(packet):
            return 2 * outputs * self.shape(node.args[1])[-2]
        return 0

    def shape(self, value: Any) -> tuple[int, ...]:
        """Of a tensor or an output, for one picture."""
        return self.nodes[value.node].shape(value.output) if isinstance(value, _Ref) else tuple(value.shape)

    def depends(self, tree: Any) -> bool:
        """Whether anything in it depends on the picture."""
        return any(isinstance(leaf, _Ref) and self.pictured(leaf) for leaf in _leaves(tree))

    def constant(self, value: Any, count: int) -> Any:
        """What does not depend on the pictures, but perhaps on how many there are."""
        if not isinstance(value, _Ref):
            return value
        node = self.nodes[value.node]
        found = _called(node, lambda ref: self.constant(ref, count), count) if node.value is None else node.value
        return _outputs(found)[value.output]


def _agreed(two: _Node, three: _Node) -> _Node:
    if two.op is not three.op or len(two.outputs) != len(three.outputs) or two.pictured != three.pictured:
        raise _Unfollowed("its course depends on the number of pictures")
    outputs = [_one(first, second) for first, second in zip(two.outputs, three.outputs, strict=True)]
    value = None
    if two.value is not None:
        try:
            value = _merged(two.value, three.value)
        except _Unfollowed:
            value = None  # grows with the batch: computed when needed
    return _Node(two.op, _merged(two.args, three.args), _merged(two.kwargs, three.kwargs), outputs, two.pictured, value)


def _one(two: Any, three: Any) -> Any:
    """What an output is for one picture, and which of its dims grow with the batch."""
    if len(two[0]) != len(three[0]):
        raise _Unfollowed("its course depends on the number of pictures")
    grows = tuple(dim for dim, (a, b) in enumerate(zip(two[0], three[0], strict=True)) if a != b)
    return tuple(2 * a - b for a, b in zip(two[0], three[0], strict=True)), two[1], grows


_VIEWS = {aten.view, aten._unsafe_view, aten.reshape}


def _called(node: _Node, lookup: Callable[[_Ref], Any], count: int) -> Any:
    """The node's operator on other inputs, for ``count`` pictures."""

    def filled(value: Any) -> Any:
        if isinstance(value, _Ref):
            return lookup(value)
        return value.of(count) if isinstance(value, _PerPicture) else value

    args, kwargs = _mapped((node.args, node.kwargs), filled)
    # What was a view in the trace may need a copy here.
    op = aten.reshape.default if node.op.overloadpacket in _VIEWS else node.op
    return op(*args, **kwargs)


# ------------------------------------------------------------------------------------------------ where the changes are


@dataclass(frozen=True, eq=False)
class _Span:
    """Along one axis of a map, for each variation: as many rows, starting where it needs them."""

    starts: Places
    size: int
    length: int  # of the map

    @classmethod
    def hull(cls, first: Places, last: Places, length: int) -> _Span:
        first = first.clip(0, length - 1)
        last = np.maximum(last.clip(0, length - 1), first)
        size = int((last - first).max()) + 1
        return cls(np.minimum(first, length - size), size, length)

    @property
    def last(self) -> Places:
        return self.starts + self.size - 1

    def part(self, part: slice) -> _Span:
        return _Span(self.starts[part], self.size, self.length)

    def same(self, other: _Span) -> bool:
        return self is other or (self.size == other.size and np.array_equal(self.starts, other.starts))

    def shifted(self, by: int) -> _Span:
        return _Span(self.starts + by, self.size, self.length) if by else self

    def whole(self) -> _Span:
        return _Span(np.zeros_like(self.starts), self.length, self.length)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a node's output differs from the clean one.

    ``dims`` are the tensor's row and column dims, or None where pictures, rows and columns are one dim, the first.
    """

    rows: _Span
    columns: _Span
    dims: tuple[int, int] | None = (2, 3)

    @property
    def share(self) -> float:
        return self.rows.size * self.columns.size / (self.rows.length * self.columns.length)

    def part(self, part: slice) -> _Place:
        return _Place(self.rows.part(part), self.columns.part(part), self.dims)

    def same(self, other: _Place) -> bool:
        return self is other or (self.rows.same(other.rows) and self.columns.same(other.columns))

    def shape(self, clean: Sequence[int], count: int) -> tuple[int, ...]:
        """Of the box, in a tensor that has the shape ``clean`` for one picture."""
        shape = list(clean)
        if self.dims is None:
            return (count * self.rows.size * self.columns.size, *shape[1:])
        shape[0], shape[self.dims[0]], shape[self.dims[1]] = count, self.rows.size, self.columns.size
        return tuple(shape)


# Values are handled as (K, rows, columns, the rest): the memory order of channels-last, so mostly without a copy.


def _front(values: Tensor, place: _Place) -> Tensor:
    if place.dims is None:
        return values.view(-1, place.rows.size, place.columns.size, *values.shape[1:])
    return values.movedim(place.dims, (1, 2))


def _back(values: Tensor, dims: tuple[int, int] | None) -> Tensor:
    return values.flatten(0, 2) if dims is None else values.movedim((1, 2), dims)


@dataclass(frozen=True)
class _Need:
    """A clean activation in the form in which boxes are cut from it: padded, (rows, columns, the rest)."""

    ref: _Ref
    dims: tuple[int, int] | None
    size: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom
    fill: float = 0.0


def _prepared(clean: Tensor, need: _Need) -> Tensor:
    values = clean.view(*need.size, *clean.shape[1:]) if need.dims is None else clean.movedim(need.dims, (1, 2))[0]
    if any(need.pads):
        beyond = [0, 0] * (values.ndim - 2)
        values = F.pad(values, [*beyond, *need.pads], value=need.fill)
    return values.contiguous()


def _rows(span: _Span) -> Places:
    """(K, size): the numbers of the rows."""
    return span.starts[:, None] + np.arange(span.size)


def _cut(clean: Tensor, rows: _Span, columns: _Span) -> Tensor:
    """(K, rows, columns, the rest) of a prepared clean activation."""
    width = clean.shape[1]
    if rows.size * columns.size == clean.shape[0] * width:
        return clean.expand(len(rows.starts), *clean.shape).clone()
    down, across = torch.from_numpy(_rows(rows)) * width, torch.from_numpy(_rows(columns))
    index = (down[:, :, None] + across[:, None, :]).flatten().to(clean.device)
    found = clean.flatten(0, 1).index_select(0, index)
    return found.view(len(rows.starts), rows.size, columns.size, *clean.shape[2:])


def _overlap(offset: int, size: int, room: int) -> tuple[slice, slice]:
    """Which part of a box lies in a patch that starts ``offset`` before it, and where in the patch."""
    first, last = max(0, -offset), max(0, -offset, min(size, room - offset))
    return slice(first, last), slice(first + offset, last + offset)


def _paste(patch: Tensor, box: Tensor, down: Places, across: Places) -> None:
    """Each box into its patch, ``down`` rows and ``across`` columns from the patch's corner; in place."""
    code = down * (1 << 20) + across
    for one in np.unique(code):
        where = np.flatnonzero(code == one)
        (a, y), (b, x) = (
            _overlap(int(offset[where[0]]), box.shape[dim], patch.shape[dim])
            for dim, offset in ((1, down), (2, across))
        )
        if len(where) == len(code):
            patch[:, y, x] = box[:, a, b]
        elif where[-1] - where[0] == len(where) - 1:
            run = slice(int(where[0]), int(where[-1]) + 1)
            patch[run, y, x] = box[run, a, b]
        else:
            index = torch.from_numpy(where).to(box.device)
            patch[index, y, x] = box[index, a, b]


def _reach(patch: Tensor, box: Tensor, down: Places, across: Places, other: Places) -> None:
    """Into each patch what reaches into it of box number ``other``, as :func:`_paste` does with its own."""
    inside = [(offset < patch.shape[dim]) & (offset > -box.shape[dim]) for dim, offset in ((1, down), (2, across))]
    some = np.flatnonzero(inside[0] & inside[1])
    code = down[some] * (1 << 20) + across[some]
    for one in np.unique(code):
        where = some[code == one]
        (a, y), (b, x) = (
            _overlap(int(offset[where[0]]), box.shape[dim], patch.shape[dim])
            for dim, offset in ((1, down), (2, across))
        )
        into, out_of = (torch.from_numpy(index).to(box.device) for index in (where, other[where]))
        patch[into, y, x] = box[out_of, a, b]


# ------------------------------------------------------------------------------------------------------------- the plan


class _NotLocal(Exception):
    """The operator needs whole maps."""


@dataclass(frozen=True, eq=False)
class _Local:
    """A node computed inside a box: where, how, and how many elements a variation it takes in between."""

    place: _Place
    run: Callable[[_Piece], Any]
    scratch: int = 0


class _Plan:
    """For boxes of one size: what is computed inside a box and what on whole maps, and what that costs.

    The boxes' places follow from the windows alone, so this needs no pass.
    """

    def __init__(self, graph: _Graph, rows: _Span, columns: _Span, each: int = 1) -> None:
        self.graph, self.each = graph, each  # so many boxes a variation, one behind the other
        self.places: dict[_Ref, _Place] = {_Ref(0): _Place(rows, columns)}
        self.steps: dict[int, _Local] = {}
        self.needs: set[_Need] = set()
        self.multiply_adds = 0.0  # a variation
        self._alive: dict[_Ref, float] = {}
        self._peak = 0.0
        for number in graph.work:
            self._add(number)
        if graph.output in self.places:
            self.whole(graph.output)
        self.bytes = math.ceil(self._peak)  # a variation

    def _add(self, number: int) -> None:
        try:
            step = self._local(number)
        except _NotLocal:
            step = None
        node = self.graph.nodes[number]
        share = self.each * step.place.share if step else 1.0
        if step:
            self.steps[number] = step
            self.places |= {_Ref(number, output): step.place for output in self.graph.used(number)}
        else:
            for ref in self.graph.refs(number):
                self.whole(ref)
        self.multiply_adds += self.graph.multiply_adds(number) * share
        self._count(number, share, self.each * step.scratch * node.outputs[0][1] if step else 0)

    def _local(self, number: int) -> _Local:
        known = [ref for ref in self.graph.refs(number) if self.graph.pictured(ref)]
        node = self.graph.nodes[number]
        rule = _RULES.get(node.op.overloadpacket, _pointwise if torch.Tag.pointwise in node.op.tags else None)
        if rule is None or any(ref not in self.places for ref in known):
            raise _NotLocal
        if any(node.outputs[output][2] != (0,) for output in self.graph.used(number)):
            raise _NotLocal  # pictures are folded into another dim
        step = rule(self, number, node)
        if self.each * step.place.share >= WHOLE and step.place.share > max(self.places[ref].share for ref in known):
            raise _NotLocal
        return step

    def whole(self, ref: _Ref) -> None:
        """Ask for an input as whole maps."""
        if ref in self.places:
            self.need(ref)
            shape, size, _ = self.graph.nodes[ref.node].outputs[ref.output]
            # Maps of several pieces are joined, and stand there twice meanwhile.
            self._alive[ref] = math.prod(shape) * size * (2 + self.each * self.places[ref].share)

    def need(self, ref: _Ref, pads: tuple[int, int, int, int] = (0, 0, 0, 0), fill: float = 0.0) -> _Need:
        """A clean activation that must be there."""
        place = self.places[ref]
        need = _Need(ref, place.dims, (place.rows.length, place.columns.length), pads, fill)
        self.needs.add(need)
        return need

    def place(self, value: Any) -> _Place:
        """Of an input that must depend on the picture."""
        if not isinstance(value, _Ref) or value not in self.places:
            raise _NotLocal
        return self.places[value]

    def maps(self, value: Any) -> _Place:
        """Of an input that must be (N, C, H, W)."""
        place = self.place(value)
        if place.dims != (2, 3) or len(self.graph.nodes[value.node].shape(value.output)) != 4:
            raise _NotLocal
        return place

    def only_first(self, number: int) -> None:
        """The other outputs (places of maxima, statistics) mean nothing inside a box."""
        if self.graph.used(number) != [0]:
            raise _NotLocal

    def _count(self, number: int, share: float, scratch: int) -> None:
        for output, (shape, size, _) in enumerate(self.graph.nodes[number].outputs):
            self._alive[_Ref(number, output)] = math.prod(shape) * size * share
        self._peak = max(self._peak, sum(self._alive.values()) + scratch)
        for ref in self.graph.dying.get(number, []):
            self._alive.pop(ref, None)


# ------------------------------------------------------------------------------------------------- operators in a box

_Rule: TypeAlias = Callable[[_Plan, int, _Node], _Local]
_RULES: dict[Any, _Rule] = {}


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update({getattr(aten, name): rule for name in names if hasattr(aten, name)})
        return rule

    return register


def _behind(span: _Span, kernel: int, stride: int, padding: int, dilation: int, length: int) -> _Span:
    """Which rows of a sliding operator's output see the rows of its input."""
    reach = dilation * (kernel - 1)
    first = -((reach - span.starts - padding) // stride)  # rounded up
    return _Span.hull(first, (span.last + padding) // stride, length)


def _seen(span: _Span, kernel: int, stride: int, dilation: int, padded: int) -> _Span:
    """Which rows of its padded input those rows of its output see."""
    return _Span(span.starts * stride, (span.size - 1) * stride + dilation * (kernel - 1) + 1, padded)


def _two(value: Any, default: Any = None) -> tuple[int, int]:
    values = list(value if isinstance(value, (list, tuple)) else [value]) or list(default)
    if any(not isinstance(v, int) for v in values):
        raise _NotLocal
    return values[0], values[-1]


@dataclass(frozen=True)
class _Slide:
    """A window that slides over (N, C, H, W): kernel, stride, padding, dilation, each (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


def _sliding(
    plan: _Plan, number: int, node: _Node, slide: _Slide, fill: float, run: Callable[[_Piece, Tensor], Any]
) -> _Local:
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
    found = _Place(spans[0], spans[1])
    return _Local(found, lambda piece: run(piece, piece.patch(need, seen[0], seen[1])), scratch)


@_rule("convolution")
def _convolution(plan: _Plan, number: int, node: _Node) -> _Local:
    _, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if transposed or len(plan.graph.shape(weight)) != 4 or plan.graph.depends((weight, bias)):
        raise _NotLocal
    size = plan.graph.shape(weight)
    slide = _Slide((size[2], size[3]), _two(stride), _two(padding), _two(dilation))

    plain = slide == _Slide((3, 3), (1, 1), slide.padding) and groups == 1

    def run(piece: _Piece, patch: Tensor) -> Tensor:
        w, b = (piece.constant(v) for v in (weight, bias))
        if plain and _fewer_products(patch, size[0]):
            return winograd.convolved(patch, piece.shared.turned(number, w), b)
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
def _max_pool(plan: _Plan, number: int, node: _Node) -> _Local:
    plan.only_first(number)
    kernel, stride, padding, dilation = _pool_options(node, ((), (0,), (1,)))
    slide = _Slide(kernel, stride, padding, dilation)

    def run(_piece: _Piece, patch: Tensor) -> Tensor:
        return F.max_pool2d(patch, slide.kernel, slide.stride, 0, slide.dilation)

    return _sliding(plan, number, node, slide, -math.inf, run)


def _pool_options(node: _Node, defaults: Sequence[Any]) -> list[tuple[int, int]]:
    given = [*node.args[1:], *([None] * len(defaults))]
    found = [_two(given[0])]
    for value, default in zip(given[1:], defaults, strict=False):
        found.append(_two(default if value is None else value, default or found[0]))
    return found


@_rule("avg_pool2d")
def _avg_pool(plan: _Plan, number: int, node: _Node) -> _Local:
    kernel, stride, padding = _pool_options(node, ((), (0,)))[:3]
    shares = _divisors(plan, node, kernel, stride, padding)
    dims = plan.maps(node.args[0]).dims
    slide = _Slide(kernel, stride, padding)

    def run(piece: _Piece, patch: Tensor) -> Tensor:
        sums = F.avg_pool2d(patch, kernel, stride, divisor_override=1)
        place = step.place.part(piece.part)
        factor = _cut(shares.to(sums), place.rows, place.columns)
        return sums * _back(factor, dims)

    step = _sliding(plan, number, node, slide, 0.0, run)
    return step


def _divisors(plan: _Plan, node: _Node, kernel: Any, stride: Any, padding: tuple[int, int]) -> Tensor:
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
def _adaptive(plan: _Plan, number: int, node: _Node) -> _Local:
    """An average pool where the sizes divide each other."""
    place, shape = plan.maps(node.args[0]), node.shape()
    steps = [divmod(span.length, n) for span, n in zip((place.rows, place.columns), shape[2:], strict=True)]
    if any(rest for _, rest in steps):
        raise _NotLocal
    kernel = (steps[0][0], steps[1][0])
    slide = _Slide(kernel, kernel, (0, 0))
    return _sliding(plan, number, node, slide, 0.0, lambda _piece, patch: F.avg_pool2d(patch, kernel))


@_rule("hardswish", "_to_copy", "detach", "alias", "_prelu_kernel", "clone")
def _pointwise(plan: _Plan, number: int, node: _Node) -> _Local:
    """Place by place; boxes that differ are grown to their hull first."""
    _constants_without_extent(plan, node)
    place = _united(plan, number, node)

    def run(piece: _Piece) -> Any:
        return _called(node, lambda ref: piece.grown(ref, place), piece.count)

    scratch = math.prod(place.shape(node.shape(), 1)) * len(plan.graph.refs(number))
    return _Local(place, run, scratch)


def _constants_without_extent(plan: _Plan, node: _Node) -> None:
    """Tensors that do not depend on the picture may only hold numbers that are the same everywhere."""
    place = next(plan.places[leaf] for leaf in _leaves((node.args, node.kwargs)) if leaf in plan.places)
    for leaf in _leaves((node.args, node.kwargs)):
        if isinstance(leaf, Tensor) or (isinstance(leaf, _Ref) and leaf not in plan.places):
            shape = plan.graph.shape(leaf)
            aligned = (1,) * (len(node.shape()) - len(shape)) + shape
            if any(aligned[dim] != 1 for dim in (0, *(place.dims or ()))):
                raise _NotLocal


def _united(plan: _Plan, number: int, node: _Node) -> _Place:
    """The hull of the boxes of all inputs."""
    known = [ref for ref in plan.graph.refs(number) if plan.graph.pictured(ref)]
    places = [plan.place(ref) for ref in known]
    shapes = [plan.graph.nodes[ref.node].shape(ref.output) for ref in known]
    first = places[0]
    if any(p.dims != first.dims or len(s) != len(shapes[0]) for p, s in zip(places, shapes, strict=True)):
        raise _NotLocal
    if any((p.rows.length, p.columns.length) != (first.rows.length, first.columns.length) for p in places):
        raise _NotLocal
    if len(node.shape()) != len(shapes[0]):
        raise _NotLocal
    if all(place.same(first) for place in places):
        return first
    if first.dims is None:
        raise _NotLocal
    for ref in known:
        plan.need(ref)
    rows, columns = (_hull([getattr(p, axis) for p in places]) for axis in ("rows", "columns"))
    return _Place(rows, columns, first.dims)


def _hull(spans: Sequence[_Span]) -> _Span:
    first = np.minimum.reduce([span.starts for span in spans])
    return _Span.hull(first, np.maximum.reduce([span.last for span in spans]), spans[0].length)


@_rule("cat")
def _cat(plan: _Plan, number: int, node: _Node) -> _Local:
    pieces = node.args[0]
    dim = (node.args[1] if len(node.args) > 1 else 0) % len(node.shape())
    dims = plan.place(pieces[0]).dims
    if dims is None or dim in (0, *dims) or any(not isinstance(p, _Ref) or p not in plan.places for p in pieces):
        raise _NotLocal
    place = _united(plan, number, node)

    def run(piece: _Piece) -> Tensor:
        return torch.cat([piece.grown(ref, place) for ref in pieces], dim)

    return _Local(place, run, 2 * math.prod(place.shape(node.shape(), 1)))


def _same_place(plan: _Plan, node: _Node, *, but: Sequence[int], dims: tuple[int, int] | None = None) -> _Local:
    """An operator that leaves rows and columns alone, unless it acts on one of the dims ``but``."""
    place = plan.place(node.args[0])
    count = len(plan.graph.shape(node.args[0]))
    if place.dims is None or any(dim % count in (0, *place.dims) for dim in but):
        raise _NotLocal
    if plan.graph.depends((node.args[1:], node.kwargs)):
        raise _NotLocal
    found = _Place(place.rows, place.columns, dims or place.dims)
    return _Local(found, lambda piece: _called(node, piece.local_or_constant, piece.count))


@_rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(plan: _Plan, number: int, node: _Node) -> _Local:
    plan.only_first(number)
    trained = node.op.overloadpacket is not aten._native_batch_norm_legit_no_training and node.args[5]
    if trained or plan.place(node.args[0]).dims is None:
        raise _NotLocal
    return _same_place(plan, node, but=[1])


@_rule("native_layer_norm")
def _layer_norm(plan: _Plan, number: int, node: _Node) -> _Local:
    plan.only_first(number)
    count = len(node.shape())
    return _same_place(plan, node, but=range(count - len(node.args[1]), count))


@_rule("_softmax", "_log_softmax")
def _softmax(plan: _Plan, number: int, node: _Node) -> _Local:
    return _same_place(plan, node, but=[node.args[1]])


@_rule("split", "split_with_sizes", "unbind")
def _split(plan: _Plan, number: int, node: _Node) -> _Local:
    alone = node.op.overloadpacket is aten.unbind
    dim = node.args[-1] if len(node.args) > (1 if alone else 2) else 0
    dims = _without(plan, node, [dim]) if alone else None
    return _same_place(plan, node, but=[dim], dims=dims)


@_rule("mean", "sum", "amax", "amin")
def _reduction(plan: _Plan, number: int, node: _Node) -> _Local:
    over = node.args[1] if len(node.args) > 1 else None
    if not over:
        raise _NotLocal
    over = over if isinstance(over, (list, tuple)) else [over]
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return _same_place(plan, node, but=over, dims=None if keep else _without(plan, node, over))


@_rule("select")
def _select(plan: _Plan, number: int, node: _Node) -> _Local:
    return _same_place(plan, node, but=[node.args[1]], dims=_without(plan, node, [node.args[1]]))


def _without(plan: _Plan, node: _Node, gone: Sequence[int]) -> tuple[int, int] | None:
    """The row and column dims after some dims have gone."""
    dims, count = plan.place(node.args[0]).dims, len(plan.graph.shape(node.args[0]))
    if dims is None:
        return None
    gone = [dim % count for dim in gone]
    return (dims[0] - sum(g < dims[0] for g in gone), dims[1] - sum(g < dims[1] for g in gone))


@_rule("permute", "transpose")
def _permute(plan: _Plan, number: int, node: _Node) -> _Local:
    count = len(node.shape())
    order = list(range(count))
    if node.op.overloadpacket is aten.permute:
        order = [dim % count for dim in node.args[1]]
    else:
        a, b = (dim % count for dim in node.args[1:3])
        order[a], order[b] = b, a
    dims = plan.place(node.args[0]).dims
    if dims is None or order[0] != 0:
        raise _NotLocal
    return _same_place(plan, node, but=[], dims=(order.index(dims[0]), order.index(dims[1])))


@_rule("unsqueeze")
def _unsqueeze(plan: _Plan, number: int, node: _Node) -> _Local:
    dim = node.args[1] % len(node.shape())
    dims = plan.place(node.args[0]).dims
    if dims is None or dim == 0:
        raise _NotLocal
    return _same_place(plan, node, but=[], dims=(dims[0] + (dim <= dims[0]), dims[1] + (dim <= dims[1])))


@_rule("view", "_unsafe_view", "reshape")
def _view(plan: _Plan, number: int, node: _Node) -> _Local:
    """Splitting and joining channels, as in a channel shuffle; joining pictures, rows and columns before a product."""
    place, before, after = plan.place(node.args[0]), plan.graph.shape(node.args[0]), node.shape()
    size = (place.rows.length, place.columns.length)
    if place.dims is None:
        dims = (1, 2) if after == (1, *size, before[1]) else _nowhere()
    elif place.dims == (1, 2) and after == (size[0] * size[1], *before[3:]) and len(before) == 4:
        dims = None
    else:
        dims = _kept(before, place.dims, after)
    found = _Place(place.rows, place.columns, dims)
    return _Local(found, lambda piece: piece.local[node.args[0]].reshape(found.shape(after, piece.count)))


def _nowhere() -> tuple[int, int]:
    raise _NotLocal


def _kept(before: Sequence[int], dims: tuple[int, int], after: Sequence[int]) -> tuple[int, int]:
    """Where rows and columns are after a reshape that only concerns other dims."""
    if not after or after[0] != 1:
        raise _NotLocal
    found = []
    for dim in dims:
        ahead = math.prod(before[:dim])
        fits = [d for d in range(1, len(after)) if after[d] == before[dim] and math.prod(after[:d]) == ahead]
        if not fits:
            raise _NotLocal
        found.append(fits[-1] if dim == dims[1] else fits[0])
    if found[0] >= found[1]:
        raise _NotLocal
    return found[0], found[1]


@_rule("mm", "addmm")
def _product(plan: _Plan, number: int, node: _Node) -> _Local:
    """A linear layer over channels that come last."""
    *bias, values, weight = node.args
    place = plan.place(values)
    if place.dims is not None or plan.graph.depends((bias, weight)):
        raise _NotLocal
    if any(len(plan.graph.shape(b)) != 1 for b in bias):
        raise _NotLocal
    return _Local(place, lambda piece: _called(node, piece.local_or_constant, piece.count))


@_rule("constant_pad_nd")
def _constant_pad(plan: _Plan, number: int, node: _Node) -> _Local:
    """The box moves; nothing is computed."""
    place, pads, shape = plan.place(node.args[0]), node.args[1], node.shape()
    if place.dims is None or any(not isinstance(p, int) or p < 0 for p in pads):
        raise _NotLocal
    before = {len(shape) - 1 - axis: pads[2 * axis] for axis in range(len(pads) // 2)}
    if any(any(pads[2 * a : 2 * a + 2]) and len(shape) - 1 - a not in place.dims for a in range(len(pads) // 2)):
        raise _NotLocal
    rows, columns = (
        _Span(span.starts + before.get(dim, 0), span.size, shape[dim])
        for span, dim in zip((place.rows, place.columns), place.dims, strict=True)
    )
    return _Local(_Place(rows, columns, place.dims), lambda piece: piece.local[node.args[0]])


@_rule("slice")
def _slice(plan: _Plan, number: int, node: _Node) -> _Local:
    place = plan.place(node.args[0])
    dim = (node.args[1] if len(node.args) > 1 else 0) % len(node.shape())
    if node.shape() == plan.graph.shape(node.args[0]) and not any(isinstance(a, _PerPicture) for a in node.args):
        return _Local(place, lambda piece: piece.local[node.args[0]])
    if place.dims is not None and dim in place.dims:
        return _moved(plan, number, node)
    return _same_place(plan, node, but=[dim])


@_rule("reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "index_select", "flip", "roll")
def _moved(plan: _Plan, number: int, node: _Node) -> _Local:
    """Every place of the output is a copy of one of the input: mirrored padding, enlarging, cropping."""
    ref = node.args[0]
    place = plan.maps(ref)
    sources = _sources(plan, node, place)
    if len(node.shape()) != 4:
        raise _NotLocal
    spans = [_copies(span, source) for span, source in zip((place.rows, place.columns), sources, strict=True)]
    need = plan.need(ref)
    found = _Place(spans[0], spans[1])

    def run(piece: _Piece) -> Tensor:
        return piece.copied(need, place, found, sources)

    return _Local(found, run, 2 * math.prod(found.shape(node.shape(), 1)))


def _sources(plan: _Plan, node: _Node, place: _Place) -> list[Places]:
    """For each row and each column of the output, the one of the input that it copies: run it on the row numbers."""
    height, width = place.rows.length, place.columns.length
    given = (node.args[1:], node.kwargs)
    if plan.graph.depends(given) or any(isinstance(leaf, _PerPicture) for leaf in _leaves(given)):
        raise _NotLocal
    args, kwargs = _mapped(given, lambda leaf: _on_cpu(plan.graph.constant(leaf, 1)))
    axes = node.args[1] if node.op.overloadpacket is aten.index_select else None
    if axes is not None and axes % 4 not in (2, 3):
        raise _NotLocal
    rows = torch.arange(height, dtype=torch.float64).view(1, 1, -1, 1).expand(1, 1, height, width)
    columns = torch.arange(width, dtype=torch.float64).expand(1, 1, height, width)
    found = [node.op(coordinates.clone(), *args, **kwargs) for coordinates in (rows, columns)]
    if any(values.ndim != 4 or values.shape[:2] != (1, 1) for values in found):
        raise _NotLocal
    return [found[0][0, 0, :, 0].long().numpy(), found[1][0, 0, 0].long().numpy()]


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _copies(span: _Span, source: Places) -> _Span:
    """The rows of the output that copy any row of the span."""
    found = {}
    for start in np.unique(span.starts):
        where = np.flatnonzero((source >= start) & (source < start + span.size))
        found[int(start)] = (where[0], where[-1]) if len(where) else (0, 0)
    first, last = np.array([found[int(start)] for start in span.starts]).T
    return _Span.hull(first, last, len(source))


# ---------------------------------------------------------------------------------------------------------- one batch


@dataclass(frozen=True)
class _Shared:
    """What all batches over one picture read."""

    clean: Mapping[_Need, Tensor]
    filters: dict[int, Tensor] = field(default_factory=dict)  # by node, turned for ``winograd``

    def turned(self, number: int, weight: Tensor) -> Tensor:
        if number not in self.filters:
            self.filters[number] = winograd.turned(weight)
        return self.filters[number]


class _Batch:
    """One pass over variations of one or several plans: piece by piece as long as any is local, then all in one."""

    def __init__(self, graph: _Graph, pieces: Sequence[_Piece]) -> None:
        self.graph, self.pieces = graph, pieces
        self.count = sum(piece.variations for piece in pieces)
        self.full: dict[_Ref, Tensor] = {}

    def logits(self) -> Tensor:
        graph = self.graph
        apart = [number for number in graph.work if any(number in piece.plan.steps for piece in self.pieces)]
        together = sorted(set(graph.work).difference(apart))  # nothing in a box comes behind these
        kept = {ref for number in together for ref in graph.refs(number)} | {graph.output}
        for piece in self.pieces:
            piece.run(apart, kept)
        for number in together:
            values = _outputs(_called(graph.nodes[number], self.whole, self.count))
            self.full.update({_Ref(number, output): values[output] for output in graph.used(number)})
            for ref in graph.dying.get(number, []):
                self.full.pop(ref, None)
                for piece in self.pieces:
                    piece.forget(ref)
        return self.whole(graph.output)

    def whole(self, ref: _Ref) -> Any:
        """The whole maps of every variation. What any piece has as boxes has the variations in its first dim."""
        if not self.graph.pictured(ref):
            return self.graph.constant(ref, self.count)
        if ref not in self.full:
            parts = [piece.whole(ref) for piece in self.pieces]
            self.full[ref] = torch.cat(parts) if len(parts) > 1 else parts[0]
            for piece in self.pieces:
                piece.forget(ref)
        return self.full[ref]


class _Piece:
    """The variations of a batch that share a plan: boxes where it says so, whole maps behind.

    ``count`` is of boxes, of which each variation has ``plan.each``, next to each other.
    """

    def __init__(self, plan: _Plan, shared: _Shared, part: slice, boxes: Tensor) -> None:
        self.plan, self.shared, self.count, self.variations = plan, shared, len(boxes), len(boxes) // plan.each
        self.part = slice(part.start * plan.each, part.stop * plan.each)
        self.local: dict[_Ref, Tensor] = {_Ref(0): boxes}
        self.full: dict[_Ref, Tensor] = {}
        self._parts: dict[int, _Place] = {}

    def run(self, numbers: Sequence[int], kept: Collection[_Ref]) -> None:
        """Those nodes; of what nobody needs behind them, ``kept`` stays."""
        graph = self.plan.graph
        for number in numbers:
            step = self.plan.steps.get(number)
            values = _outputs(step.run(self) if step else _called(graph.nodes[number], self.whole, self.variations))
            into = self.local if step else self.full
            into.update({_Ref(number, output): values[output] for output in graph.used(number)})
            for ref in graph.dying.get(number, []):
                if ref not in kept:
                    self.forget(ref)

    def forget(self, ref: _Ref) -> None:
        self.local.pop(ref, None)
        self.full.pop(ref, None)

    def constant(self, value: Any) -> Any:
        """What does not depend on the picture."""
        return self.plan.graph.constant(value, self.count)

    def whole(self, ref: _Ref) -> Any:
        """The whole maps of every variation."""
        if not self.plan.graph.pictured(ref):
            return self.plan.graph.constant(ref, self.variations)
        if ref not in self.full:
            self.full[ref] = self._joined(ref)
        return self.full[ref]

    def _joined(self, ref: _Ref) -> Tensor:
        """The boxes of each variation in its whole map."""
        place, each = self.placed(ref), self.plan.each
        box = _front(self.local[ref], place)
        if place.share == 1:
            return _back(box[::each], place.dims)
        maps = _cut(
            self.shared.clean[self._plain(ref)],
            *(span.whole().part(slice(0, self.variations)) for span in (place.rows, place.columns)),
        )
        for turn in range(each):
            _paste(maps, box[turn::each], place.rows.starts[turn::each], place.columns.starts[turn::each])
        return _back(maps, place.dims)

    def local_or_constant(self, ref: _Ref) -> Any:
        return self.local[ref] if ref in self.local else self.constant(ref)

    def placed(self, ref: _Ref) -> _Place:
        """Where this part's boxes are."""
        place = self.plan.places[ref]
        if id(place) not in self._parts:
            self._parts[id(place)] = place.part(self.part)
        return self._parts[id(place)]

    def grown(self, ref: _Ref, place: _Place) -> Tensor:
        """The values of a box around this one's own; of a constant its value."""
        if ref not in self.plan.places:
            return self.constant(ref)
        if self.plan.places[ref].same(place):
            return self.local[ref]
        own = self.placed(ref)
        return self._grown(self._plain(ref), own, place.rows.part(self.part), place.columns.part(self.part))

    def _plain(self, ref: _Ref) -> _Need:
        place = self.plan.places[ref]
        return _Need(ref, place.dims, (place.rows.length, place.columns.length))

    def patch(self, need: _Need, rows: _Span, columns: _Span) -> Tensor:
        """(K, C, rows, columns) of a padded input, the change pasted in."""
        return self._grown(need, self.placed(need.ref), rows.part(self.part), columns.part(self.part))

    def _grown(self, need: _Need, own: _Place, rows: _Span, columns: _Span) -> Tensor:
        old_rows, old_columns = own.rows.shifted(need.pads[2]), own.columns.shifted(need.pads[0])
        if rows.same(old_rows) and columns.same(old_columns):
            return self.local[need.ref]
        patch = _cut(self.shared.clean[need], rows, columns)
        box = _front(self.local[need.ref], own)
        _paste(patch, box, old_rows.starts - rows.starts, old_columns.starts - columns.starts)
        for other in self._others():
            _reach(patch, box, old_rows.starts[other] - rows.starts, old_columns.starts[other] - columns.starts, other)
        return _back(patch, own.dims)

    def _others(self) -> Iterator[Places]:
        """For each box the number of another one of its variation, until all were there."""
        number, each = np.arange(self.count), self.plan.each
        for turn in range(1, each):
            yield number - number % each + (number + turn) % each

    def copied(self, need: _Need, own: _Place, place: _Place, sources: Sequence[Places]) -> Tensor:
        """For each place of a box the value of the input that it copies, of the change or of the clean picture."""
        box, clean = _front(self.local[need.ref], own.part(self.part)), self.shared.clean[need]
        axes = zip((own.rows, own.columns), (place.rows, place.columns), sources, strict=True)
        spans = [(old.part(self.part), source[_rows(new.part(self.part))]) for old, new, source in axes]
        down, across = (torch.from_numpy(at).to(clean.device) for _, at in spans)
        found = clean[down[:, :, None], across[:, None, :]]
        for other in (np.arange(self.count), *self._others()):
            there = [torch.from_numpy(at - old.starts[other][:, None]).to(clean.device) for old, at in spans]
            inside = [(t >= 0) & (t < old.size) for t, (old, _) in zip(there, spans, strict=True)]
            y, x = (t.clamp(0, old.size - 1) for t, (old, _) in zip(there, spans, strict=True))
            number = torch.from_numpy(other).to(clean.device)[:, None, None]
            mask = inside[0][:, :, None] & inside[1][:, None, :]
            found = torch.where(mask[..., None], box[number, y[:, :, None], x[:, None, :]], found)
        return _back(found, place.dims)


# ------------------------------------------------------------------------------------------------------ for all to use


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a network says to the variations of one picture.

    Attributes:
        logits: (K, classes), in the order of the boxes, or what was read off them. clean: (classes,), of the picture
            itself.
        engine: ``incremental`` or ``full`` passes.
        reason: why full passes, or empty.
        multiply_adds, full_multiply_adds: for all variations, as computed and as full passes would; None where the
            network could not be followed. Convolutions and matrix products count.
    """

    logits: Tensor
    clean: Tensor
    engine: Engine
    reason: str = ""
    multiply_adds: int | None = None
    full_multiply_adds: int | None = None

    @property
    def saved(self) -> float:
        """Share of the arithmetic of full passes that was not needed, in [0, 1]."""
        if self.multiply_adds is None or not self.full_multiply_adds:
            return 0.0
        return 1 - self.multiply_adds / self.full_multiply_adds


@dataclass(frozen=True, eq=False)
class _Wanted:
    """The boxes of one size, and which of all variations they are."""

    boxes: NDArray[np.int64]  # (k each, 4)
    index: NDArray[np.int64]  # (k,)


class Variations:
    """A network, ready to be asked about altered copies of pictures; it is followed once for each size of picture.

    Args:
        network: any network that returns (N, classes) logits.
        budget: bytes that one batch may take, weights and clean activations not counted.
        incremental: whether to recompute only what changed, where that is possible.
    """

    def __init__(self, network: Network, *, budget: int = BUDGET, incremental: bool = True) -> None:
        self.network, self.budget, self.incremental = network, budget, incremental
        self._graphs: dict[Any, _Graph | str] = {}

    def of(
        self,
        image: Tensor,
        boxes: Sequence[Box],
        content: Tensor | Sequence[Tensor],
        *,
        each: int = 1,
        clean: Tensor | None = None,
        read: Read | None = None,
    ) -> Outcome:
        """The logits of ``image`` with each box in turn replaced, or so many of them at once.

        Args:
            image: (3, H, W) in [0, 1].
            boxes: (top, left, height, width) of each variation, inside the picture; sizes may differ.
            content: what stands in the box instead: a picture, (3, H, W) or what expands to it, of which the same
                place is taken; or (3, height, width) for each box, as a sequence or a tensor of four dims.
            each: boxes of one variation, which stand next to each other and are of one size; where they meet, the
                later one is seen.
            clean: (classes,) logits of the picture itself, where they are known.
            read: what is kept of the logits (k, classes) of each batch, as (k, ...); everything if left out.

        Raises:
            OptionError: a box that is empty or leaves the picture, or content of another shape.
        """
        picture = _Picture(image, boxes, content, each)
        with torch.no_grad():
            clean = self.network(image[None])[0] if clean is None else clean
            read = read or (lambda logits: logits)
            graph = self._graph(image)
            if isinstance(graph, str):
                return Outcome(self._full(picture, read), clean, "full", graph)
            try:
                return self._incremental(graph, picture, clean, read)
            except _Unfollowed as reason:
                cost = picture.count * sum(map(graph.multiply_adds, graph.work))
                return Outcome(self._full(picture, read), clean, "full", str(reason), cost, cost)

    def _graph(self, image: Tensor) -> _Graph | str:
        """What the network does to pictures of this kind, or why that cannot be said."""
        if not self.incremental:
            return "full passes were asked for"
        key = (image.shape, image.dtype, image.device)
        if key not in self._graphs:
            self._graphs[key] = _followed(self.network, image)
        return self._graphs[key]

    def _incremental(self, graph: _Graph, picture: _Picture, clean: Tensor, read: Read) -> Outcome:
        groups = picture.groups()
        plans = [_Plan(graph, *_spans(group.boxes, picture.image), picture.each) for group in groups]
        cost = sum(plan.multiply_adds * len(group.index) for plan, group in zip(plans, groups, strict=True))
        full = picture.count * sum(map(graph.multiply_adds, graph.work))
        if cost > WHOLE * full:
            raise _Unfollowed("almost every activation depends on every box")
        kept, again = _clean(graph, picture.image, set().union(*(plan.needs for plan in plans)))
        _check(again[None], clean[None], "it computes something else in another order")
        order, several = np.concatenate([group.index for group in groups]), False
        told: Tensor | None = None
        for part, found in self._batches(plans, groups, _Shared(kept), picture):
            if not graph.proven and part.start == 0:
                self._compare(found, 0, picture, order[part])
            if not graph.proven and part.stop == len(order):
                self._compare(found, -1, picture, order[part])
            several = several or part.stop - part.start > 1
            said = read(self.network.check_logits(found))
            told = said.new_empty(len(order), *said.shape[1:]) if told is None else told
            told[torch.from_numpy(order[part])] = said
        assert told is not None  # there is at least one box
        graph.proven = graph.proven or several  # of a batch of one, mixed pictures would not show
        return Outcome(told, clean, "incremental", "", round(cost), full)

    def _batches(
        self, plans: Sequence[_Plan], groups: Sequence[_Wanted], shared: _Shared, picture: _Picture
    ) -> Iterator[tuple[slice, Tensor]]:
        """Which variations, counted group by group, and their scores; a batch may hold several groups."""
        ends = np.cumsum([len(group.index) for group in groups])

        def run(part: slice) -> tuple[slice, Tensor]:
            pieces = []
            for plan, group, end in zip(plans, groups, ends.tolist(), strict=True):
                first = end - len(group.index)
                own = slice(max(part.start - first, 0), min(part.stop, end) - first)
                if own.start < own.stop:
                    pieces.append(_Piece(plan, shared, own, picture.patches(group.index[own])))
            return part, _Batch(plans[0].graph, pieces).logits()

        size = max(1, min(MOST_AT_ONCE, self.budget // max(1, *(plan.bytes for plan in plans))))
        return batched(run, picture.count, size, "windows")

    def _compare(self, found: Tensor, which: int, picture: _Picture, index: NDArray[np.int64]) -> None:
        """One variation of a batch, against a full pass."""
        expected = self.network(picture.altered(index[[which]]))
        _check(self.network.check_logits(found)[[which]], expected, "its boxes do not give its scores")

    def _full(self, picture: _Picture, read: Read) -> Tensor:
        def run(part: slice) -> Tensor:
            return read(self.network(picture.altered(np.arange(part.start, part.stop))))

        size = min(self.network.at_once(picture.image), self.budget // (picture.image[0].numel() * FULL_PICTURE))
        return torch.cat(list(batched(run, picture.count, max(1, size), "windows")))


def perturbed(network: Network, image: Tensor, boxes: Sequence[Box], content: Tensor | Sequence[Tensor]) -> Outcome:
    """The logits of (3, H, W) ``image`` with each box in turn replaced; see :meth:`Variations.of`."""
    return Variations(network).of(image, boxes, content)


def _followed(network: Network, image: Tensor) -> _Graph | str:
    try:
        return _Graph(network, image)
    except _Unfollowed as reason:
        return str(reason)
    except Exception as error:  # whatever a module may raise when it is called in an unusual way
        if is_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"it cannot be followed: {first}"


def _spans(boxes: NDArray[np.int64], image: Tensor) -> tuple[_Span, _Span]:
    height, width = image.shape[-2:]
    return _Span(boxes[:, 0], int(boxes[0, 2]), height), _Span(boxes[:, 1], int(boxes[0, 3]), width)


def _clean(graph: _Graph, image: Tensor, needs: set[_Need]) -> tuple[dict[_Need, Tensor], Tensor]:
    """The activations of the picture itself that boxes will be cut from, and its scores."""
    wanted: dict[_Ref, list[_Need]] = {}
    for need in needs:
        wanted.setdefault(need.ref, []).append(need)
    kept: dict[_Need, Tensor] = {}
    values: dict[_Ref, Tensor] = {}

    def keep(ref: _Ref, value: Tensor) -> None:
        values[ref] = value
        for need in wanted.get(ref, []):
            kept[need] = _prepared(value, need)

    def lookup(ref: _Ref) -> Any:
        return values[ref] if ref in values else graph.constant(ref, 1)

    keep(_Ref(0), image[None])
    for number in graph.work:
        found = _outputs(_called(graph.nodes[number], lookup, 1))
        for output in graph.used(number):
            keep(_Ref(number, output), found[output])
        for ref in graph.dying.get(number, []):
            values.pop(ref, None)
    return kept, values[graph.output].flatten()


def _check(found: Tensor, expected: Tensor, otherwise: str) -> None:
    """Gross differences only: a rule that is wrong here, or a network that rolls dice."""
    tolerance = math.sqrt(max(torch.finfo(found.dtype).eps, torch.finfo(torch.float32).eps))
    if found.shape != expected.shape:
        raise _Unfollowed(otherwise)
    found, expected = found.double(), expected.double()
    if not bool((found - expected).abs().max() <= tolerance * expected.abs().max()):
        raise _Unfollowed(otherwise)


class _Picture:
    """A picture with the boxes that are to be replaced in it."""

    def __init__(
        self, image: Tensor, boxes: Sequence[Box], content: Tensor | Sequence[Tensor], each: int = 1
    ) -> None:  # fmt: skip
        self.image, self.boxes, self.each = image, np.array(boxes, dtype=np.int64).reshape(-1, 4), each
        self.count = len(self.boxes) // each
        self._own = not isinstance(content, Tensor) or content.ndim == 4
        self._check_boxes()
        self.content = content if self._own else self._expanded(content)

    def _check_boxes(self) -> None:
        height, width = self.image.shape[-2:]
        if not len(self.boxes):
            raise OptionError("there is no box to replace; give at least one (top, left, height, width)")
        low, size = self.boxes[:, :2], self.boxes[:, 2:]
        bad = np.flatnonzero((low < 0).any(1) | (size < 1).any(1) | (low + size > (height, width)).any(1))
        if len(bad):
            raise OptionError(
                f"box {tuple(self.boxes[bad[0]].tolist())} does not lie in a picture of {height}x{width}; "
                "a box is (top, left, height, width) in pixels"
            )
        if self.each > 1 and (len(self.boxes) % self.each or len(np.unique(self.boxes[:, 2:], axis=0)) > 1):
            raise OptionError(
                f"{len(self.boxes)} boxes, {self.each} a variation: give as many for each, and all of one size"
            )

    def _expanded(self, content: Any) -> Tensor:
        try:
            return content.to(self.image).expand(self.image.shape)
        except RuntimeError:
            raise OptionError(
                f"content of shape {tuple(content.shape)} does not fit a picture of {tuple(self.image.shape)}; "
                "give a picture of that shape, a colour (3, 1, 1), or (3, height, width) for each box"
            ) from None

    def groups(self) -> list[_Wanted]:
        """The boxes of one size at like distances from the border, where less of what grows lies in the picture."""
        if self.each > 1:
            return [_Wanted(self.boxes, np.arange(self.count))]
        height, width = self.image.shape[-2:]
        _, which = np.unique(self.boxes[:, 2:], axis=0, return_inverse=True)
        keys = np.zeros((len(self.boxes), 3), dtype=np.int64)
        keys[:, 0] = which.reshape(-1)
        for size in range(int(keys[:, 0].max()) + 1):
            same = np.flatnonzero(keys[:, 0] == size)
            top, left, high, wide = self.boxes[same].T
            bands = max(1, min(MOST_BANDS, math.isqrt(len(same) // FEWEST_PLANNED)))
            keys[same, 1] = _banded(np.minimum(top, height - top - high), bands)
            keys[same, 2] = _banded(np.minimum(left, width - left - wide), bands)
        _, code = np.unique(keys, axis=0, return_inverse=True)
        code = code.reshape(-1)
        indices = (np.flatnonzero(code == number) for number in np.unique(code))
        return [_Wanted(self.boxes[index], index) for index in indices]

    def patch(self, number: int) -> Tensor:
        """(3, height, width) of one box."""
        top, left, height, width = self.boxes[number].tolist()
        if not self._own:
            return self.content[:, top : top + height, left : left + width]  # type: ignore[call-overload]
        if len(self.content) != len(self.boxes):
            raise OptionError(f"content for {len(self.content)} of {len(self.boxes)} boxes; give as many")
        patch = self.content[number].to(self.image)
        if patch.shape != (len(self.image), height, width):
            raise OptionError(f"content of shape {tuple(patch.shape)} does not fit a box of {height}x{width}")
        return patch

    def patches(self, index: NDArray[np.int64]) -> Tensor:
        """(k each, 3, height, width) of variations of one size."""
        numbers = self._numbers(index)
        found = torch.stack([self.patch(number) for number in numbers])
        for place, number in enumerate(numbers if self.each > 1 else []):
            self._cover(found[place], number)
        return found

    def _numbers(self, index: NDArray[np.int64]) -> list[int]:
        """Of the boxes of those variations."""
        return (index[:, None] * self.each + np.arange(self.each)).flatten().tolist()

    def _cover(self, patch: Tensor, number: int) -> None:
        """Later boxes of the same variation, where they lie over this one; in place."""
        for other in range(number + 1, number - number % self.each + self.each):
            (down, across), (height, width) = (self.boxes[other] - self.boxes[number])[:2].tolist(), patch.shape[1:]
            (a, y), (b, x) = _overlap(down, height, height), _overlap(across, width, width)
            if y.start < y.stop and x.start < x.stop:
                patch[:, y, x] = self.patch(other)[:, a, b]

    def altered(self, index: NDArray[np.int64]) -> Tensor:
        """(k, 3, H, W): whole pictures."""
        images = self.image.expand(len(index), *self.image.shape).clone()
        for place, number in enumerate(self._numbers(index)):
            top, left, height, width = self.boxes[number].tolist()
            images[place // self.each, :, top : top + height, left : left + width] = self.patch(number)
        return images


def _banded(distance: Places, bands: int) -> Places:
    """Which of so many bands each distance falls into, each with about as many different distances."""
    ends = [band[-1] for band in np.array_split(np.unique(distance), bands) if len(band)]
    return np.searchsorted(np.array(ends), distance)
