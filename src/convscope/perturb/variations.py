"""A network that is asked about altered copies of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convscope.batching import batched, is_out_of_memory
from convscope.memory import kept
from convscope.network import Network
from convscope.perturb.batch import Batch, Piece, Shared
from convscope.perturb.graph import Graph, Ref, Unfollowed, called, outputs_of
from convscope.perturb.picture import Box, Picture, Wanted
from convscope.perturb.places import Need, Span, prepared
from convscope.perturb.plan import WHOLE, Plan

Engine = Literal["incremental", "full"]
Read: TypeAlias = Callable[[Tensor], Tensor]
MOST_AT_ONCE = 80  # windows a batch: more gains nothing on a CPU, and the memory is better spent on caches
BUDGET = 512 * 2**20  # bytes that a batch may take, weights and clean activations not counted
FULL_PICTURE = 768  # bytes a pixel of an unknown network takes in a full pass: three maps of 64 channels in float32


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


class Variations:
    """A network, ready to be asked about altered copies of pictures; it is followed once for each size of picture.

    Args:
        network: any network that returns (N, classes) logits.
        budget: bytes that one batch may take, weights and clean activations not counted.
        incremental: whether to recompute only what changed, where that is possible.
    """

    def __init__(self, network: Network, *, budget: int = BUDGET, incremental: bool = True) -> None:
        self.network, self.budget, self.incremental = network, budget, incremental
        self._graphs: dict[Any, Graph | str] = {}

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
        picture = Picture(image, boxes, content, each)
        with torch.no_grad(), kept(freed=False):
            clean = self.network(image[None])[0] if clean is None else clean
            read = read or (lambda logits: logits)
            graph = self._graph(image)
            if isinstance(graph, str):
                return Outcome(self._full(picture, read), clean, "full", graph)
            try:
                return self._incremental(graph, picture, clean, read)
            except Unfollowed as reason:
                cost = picture.count * sum(map(graph.multiply_adds, graph.work))
                return Outcome(self._full(picture, read), clean, "full", str(reason), cost, cost)

    def _graph(self, image: Tensor) -> Graph | str:
        """What the network does to pictures of this kind, or why that cannot be said."""
        if not self.incremental:
            return "full passes were asked for"
        key = (image.shape, image.dtype, image.device)
        if key not in self._graphs:
            self._graphs[key] = _followed(self.network, image)
        return self._graphs[key]

    def _incremental(self, graph: Graph, picture: Picture, clean: Tensor, read: Read) -> Outcome:
        groups = picture.groups()
        plans = [Plan(graph, *_spans(group.boxes, picture.image), picture.each) for group in groups]
        cost = sum(plan.multiply_adds * len(group.index) for plan, group in zip(plans, groups, strict=True))
        full = picture.count * sum(map(graph.multiply_adds, graph.work))
        if cost > WHOLE * full:
            raise Unfollowed("almost every activation depends on every box")
        kept, again = _clean(graph, picture.image, set().union(*(plan.needs for plan in plans)))
        _check(again[None], clean[None], "it computes something else in another order")
        order, several = np.concatenate([group.index for group in groups]), False
        told: Tensor | None = None
        for part, found in self._batches(plans, groups, Shared(kept), picture):
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
        self, plans: Sequence[Plan], groups: Sequence[Wanted], shared: Shared, picture: Picture
    ) -> Iterator[tuple[slice, Tensor]]:
        """Which variations, counted group by group, and their scores; a batch may hold several groups."""
        ends = np.cumsum([len(group.index) for group in groups])

        def run(part: slice) -> tuple[slice, Tensor]:
            pieces = []
            for plan, group, end in zip(plans, groups, ends.tolist(), strict=True):
                first = end - len(group.index)
                own = slice(max(part.start - first, 0), min(part.stop, end) - first)
                if own.start < own.stop:
                    pieces.append(Piece(plan, shared, own, picture.patches(group.index[own])))
            return part, Batch(plans[0].graph, pieces).logits()

        size = max(1, min(MOST_AT_ONCE, self.budget // max(1, *(plan.bytes for plan in plans))))
        half = self.network.arithmetic == "bfloat16"
        return batched(run, picture.count, size, "windows", alike=half)  # whose holes are small, too

    def _compare(self, found: Tensor, which: int, picture: Picture, index: NDArray[np.int64]) -> None:
        """One variation of a batch, against a full pass."""
        expected = self.network(picture.altered(index[[which]]))
        _check(self.network.check_logits(found)[[which]], expected, "its boxes do not give its scores")

    def _full(self, picture: Picture, read: Read) -> Tensor:
        def run(part: slice) -> Tensor:
            return read(self.network(picture.altered(np.arange(part.start, part.stop))))

        size = min(self.network.at_once(picture.image), self.budget // (picture.image[0].numel() * FULL_PICTURE))
        return torch.cat(list(batched(run, picture.count, max(1, size), "windows")))


def perturbed(network: Network, image: Tensor, boxes: Sequence[Box], content: Tensor | Sequence[Tensor]) -> Outcome:
    """The logits of (3, H, W) ``image`` with each box in turn replaced; see :meth:`Variations.of`."""
    return Variations(network).of(image, boxes, content)


def _followed(network: Network, image: Tensor) -> Graph | str:
    try:
        return Graph(network, image)
    except Unfollowed as reason:
        return str(reason)
    except Exception as error:  # whatever a module may raise when it is called in an unusual way
        if is_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"it cannot be followed: {first}"


def _spans(boxes: NDArray[np.int64], image: Tensor) -> tuple[Span, Span]:
    height, width = image.shape[-2:]
    return Span(boxes[:, 0], int(boxes[0, 2]), height), Span(boxes[:, 1], int(boxes[0, 3]), width)


def _clean(graph: Graph, image: Tensor, needs: set[Need]) -> tuple[dict[Need, Tensor], Tensor]:
    """The activations of the picture itself that boxes will be cut from, and its scores."""
    wanted: dict[Ref, list[Need]] = {}
    for need in needs:
        wanted.setdefault(need.ref, []).append(need)
    kept: dict[Need, Tensor] = {}
    values: dict[Ref, Tensor] = {}

    def keep(ref: Ref, value: Tensor) -> None:
        values[ref] = value
        for need in wanted.get(ref, []):
            kept[need] = prepared(value, need)

    def lookup(ref: Ref) -> Any:
        return values[ref] if ref in values else graph.constant(ref, 1)

    keep(Ref(0), image[None])
    for number in graph.work:
        found = outputs_of(called(graph.nodes[number], lookup, 1))
        for output in graph.used(number):
            keep(Ref(number, output), found[output])
        for ref in graph.dying.get(number, []):
            values.pop(ref, None)
    return kept, values[graph.output].flatten()


def _check(found: Tensor, expected: Tensor, otherwise: str) -> None:
    """Gross differences only: a rule that is wrong here, or a network that rolls dice."""
    tolerance = math.sqrt(max(torch.finfo(found.dtype).eps, torch.finfo(torch.float32).eps))
    if found.shape != expected.shape:
        raise Unfollowed(otherwise)
    found, expected = found.double(), expected.double()
    if not bool((found - expected).abs().max() <= tolerance * expected.abs().max()):
        raise Unfollowed(otherwise)
