"""The operators between picture and scores, written down in two passes of blank pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from convscope.hooks import evaluation_mode
from convscope.network import Network

aten = torch.ops.aten


class Unfollowed(Exception):
    """Why the network cannot be followed, as a part of a sentence."""


@dataclass(frozen=True)
class Ref:
    """An output of a node."""

    node: int
    output: int = 0


@dataclass(frozen=True)
class PerPicture:
    """A number that grows with the batch."""

    slope: int
    offset: int

    def of(self, count: int) -> int:
        return self.slope * count + self.offset


@dataclass
class Node:
    """One operator call; ``args`` hold :class:`Ref`, :class:`PerPicture`, tensors and plain values."""

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


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Lists, tuples and dicts of changed leaves."""
    if isinstance(tree, (list, tuple)):
        return type(tree)([mapped(part, change) for part in tree])
    if isinstance(tree, dict):
        return {name: mapped(part, change) for name, part in tree.items()}
    return change(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """What stands in lists, tuples and dicts."""
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def outputs_of(value: Any) -> tuple[Any, ...]:
    """Of what an operator returned, also where that is one tensor."""
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
        self.nodes = [Node(None, (), {}, [_described(images)], True)]
        self.known = WeakIdKeyDictionary()
        self.known[images] = Ref(0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # keeps torch from importing its compiler, which takes seconds, at the first call

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = mapped((tuple(args), kwargs), self._named)
        pictured = any(isinstance(leaf, Ref) and self.nodes[leaf.node].pictured for leaf in leaves(given))
        if pictured and op.overloadpacket in _READS:
            raise Unfollowed("it decides by what it computes")
        if op is aten.as_strided_.default and tuple(args[1]) == tuple(args[0].shape):
            return op(*args, **kwargs)  # other strides, the same values
        if pictured and op._schema.is_mutable:
            raise Unfollowed(f"{op} writes where it cannot be followed")
        skip = pictured and op.overloadpacket in _HEAVY
        result = _blank(op, args) if skip else op(*args, **kwargs)
        outputs = [_described(out) for out in outputs_of(result)]
        self._note(Node(op, given[0], given[1], outputs, pictured), result)
        return result

    def _named(self, value: Any) -> Any:
        return self.known.get(value, value) if isinstance(value, Tensor) else value

    def _note(self, node: Node, result: Any) -> None:
        node.value = None if node.pictured else result
        for number, out in enumerate(outputs_of(result)):
            if isinstance(out, Tensor) and out not in self.known:
                self.known[out] = Ref(len(self.nodes), number)
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


def _recorded(network: Network, image: Tensor, count: int) -> tuple[list[Node], Ref]:
    if network.defence is not None:
        raise Unfollowed(f"{network.defence} stands in front of it")
    images = torch.zeros_like(image).expand(count, *image.shape).clone()
    with torch.no_grad(), evaluation_mode(network.module), _Recorder(images) as recorder, _CircularPads():
        output = torch.func.functionalize(network.forward)(images)
    found = recorder.known.get(output)
    if found is None or not recorder.nodes[found.node].pictured:
        raise Unfollowed("its scores come from outside torch")
    return recorder.nodes, found


def _merged(two: Any, three: Any) -> Any:
    """What both passes agree on; a number that differs is taken to grow with the batch."""
    if isinstance(two, (list, tuple)) and type(two) is type(three) and len(two) == len(three):
        return type(two)([_merged(a, b) for a, b in zip(two, three, strict=True)])
    if isinstance(two, dict) and two.keys() == three.keys():
        return {name: _merged(two[name], three[name]) for name in two}
    if isinstance(two, Tensor) and isinstance(three, Tensor):
        if _views_of_one(two, three) or (two.shape == three.shape and torch.equal(two, three)):
            return two
    elif type(two) is int and type(three) is int and two != three:
        return PerPicture(three - two, 3 * two - 2 * three)
    elif type(two) is type(three) and two == three:
        return two
    raise Unfollowed("its course depends on the number of pictures")


def _views_of_one(two: Tensor, three: Tensor) -> bool:
    """Whether both are the same numbers in memory, of which no two need be compared."""
    same = two.dtype == three.dtype and two.shape == three.shape and two.stride() == three.stride()
    return two is three or (same and two.layout == torch.strided and two.data_ptr() == three.data_ptr() != 0)


class Graph:
    """The operators between picture and scores."""

    def __init__(self, network: Network, image: Tensor) -> None:
        (two, self.output), (three, other) = (_recorded(network, image, count) for count in (2, 3))
        if len(two) != len(three) or self.output != other:
            raise Unfollowed("its course depends on the number of pictures")
        self.nodes = [_agreed(a, b) for a, b in zip(two, three, strict=True)]
        self.proven = False  # whether the boxes of a call were found to give the scores of full passes
        self._refs: dict[int, list[Ref]] = {}
        self.last: dict[Ref, int] = {self.output: len(self.nodes)}  # who uses an output last; absent: nobody
        for number in reversed(range(len(self.nodes))):
            if any(Ref(number, output) in self.last for output in range(len(self.nodes[number].outputs))):
                for ref in self.refs(number):
                    self.last.setdefault(ref, number)

    def refs(self, number: int) -> list[Ref]:
        """The outputs that a node takes."""
        if number not in self._refs:
            node = self.nodes[number]
            self._refs[number] = [leaf for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, Ref)]
        return self._refs[number]

    def pictured(self, ref: Ref) -> bool:
        return self.nodes[ref.node].pictured

    @cached_property
    def work(self) -> list[int]:
        """The nodes that matter and depend on the picture, in order."""
        return [n for n, node in enumerate(self.nodes) if n and node.pictured and self.used(n)]

    def used(self, number: int) -> list[int]:
        """Which outputs of a node anybody uses."""
        return [o for o in range(len(self.nodes[number].outputs)) if Ref(number, o) in self.last]

    @cached_property
    def dying(self) -> Mapping[int, list[Ref]]:
        """What nobody needs any more behind a node."""
        dying: dict[int, list[Ref]] = {}
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
        return self.nodes[value.node].shape(value.output) if isinstance(value, Ref) else tuple(value.shape)

    def depends(self, tree: Any) -> bool:
        """Whether anything in it depends on the picture."""
        return any(isinstance(leaf, Ref) and self.pictured(leaf) for leaf in leaves(tree))

    def constant(self, value: Any, count: int) -> Any:
        """What does not depend on the pictures, but perhaps on how many there are."""
        if not isinstance(value, Ref):
            return value
        node = self.nodes[value.node]
        found = called(node, lambda ref: self.constant(ref, count), count) if node.value is None else node.value
        return outputs_of(found)[value.output]


def _agreed(two: Node, three: Node) -> Node:
    if two.op is not three.op or len(two.outputs) != len(three.outputs) or two.pictured != three.pictured:
        raise Unfollowed("its course depends on the number of pictures")
    outputs = [_one(first, second) for first, second in zip(two.outputs, three.outputs, strict=True)]
    value = None
    if two.value is not None:
        try:
            value = _merged(two.value, three.value)
        except Unfollowed:
            value = None  # grows with the batch: computed when needed
    return Node(two.op, _merged(two.args, three.args), _merged(two.kwargs, three.kwargs), outputs, two.pictured, value)


def _one(two: Any, three: Any) -> Any:
    """What an output is for one picture, and which of its dims grow with the batch."""
    if len(two[0]) != len(three[0]):
        raise Unfollowed("its course depends on the number of pictures")
    grows = tuple(dim for dim, (a, b) in enumerate(zip(two[0], three[0], strict=True)) if a != b)
    return tuple(2 * a - b for a, b in zip(two[0], three[0], strict=True)), two[1], grows


_VIEWS = {aten.view, aten._unsafe_view, aten.reshape}


def called(node: Node, lookup: Callable[[Ref], Any], count: int) -> Any:
    """The node's operator on other inputs, for ``count`` pictures."""

    def filled(value: Any) -> Any:
        if isinstance(value, Ref):
            return lookup(value)
        return value.of(count) if isinstance(value, PerPicture) else value

    args, kwargs = mapped((node.args, node.kwargs), filled)
    # What was a view in the trace may need a copy here.
    op = aten.reshape.default if node.op.overloadpacket in _VIEWS else node.op
    return op(*args, **kwargs)
