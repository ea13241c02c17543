"""What is computed inside boxes and what on whole maps, and what that costs."""

from __future__ import annotations

import math
from typing import Any

import torch

from convscope.perturb.graph import Graph, Ref
from convscope.perturb.places import Need, Place, Span
from convscope.perturb.rules import RULES, Local, NotLocal, pointwise

WHOLE = 0.9  # a box over this share of a map costs as much as the map


class Plan:
    """For boxes of one size: what is computed inside a box and what on whole maps, and what that costs.

    The boxes' places follow from the windows alone, so this needs no pass.
    """

    def __init__(self, graph: Graph, rows: Span, columns: Span, each: int = 1) -> None:
        self.graph, self.each = graph, each  # so many boxes a variation, one behind the other
        self.places: dict[Ref, Place] = {Ref(0): Place(rows, columns)}
        self.steps: dict[int, Local] = {}
        self.needs: set[Need] = set()
        self.multiply_adds = 0.0  # a variation
        self._alive: dict[Ref, float] = {}
        self._peak = 0.0
        for number in graph.work:
            self._add(number)
        if graph.output in self.places:
            self.whole(graph.output)
        self.bytes = math.ceil(self._peak)  # a variation

    def _add(self, number: int) -> None:
        try:
            step = self._local(number)
        except NotLocal:
            step = None
        node = self.graph.nodes[number]
        share = self.each * step.place.share if step else 1.0
        if step:
            self.steps[number] = step
            self.places |= {Ref(number, output): step.place for output in self.graph.used(number)}
        else:
            for ref in self.graph.refs(number):
                self.whole(ref)
        self.multiply_adds += self.graph.multiply_adds(number) * share
        self._count(number, share, self.each * step.scratch * node.outputs[0][1] if step else 0)

    def _local(self, number: int) -> Local:
        known = [ref for ref in self.graph.refs(number) if self.graph.pictured(ref)]
        node = self.graph.nodes[number]
        rule = RULES.get(node.op.overloadpacket, pointwise if torch.Tag.pointwise in node.op.tags else None)
        if rule is None or any(ref not in self.places for ref in known):
            raise NotLocal
        if any(node.outputs[output][2] != (0,) for output in self.graph.used(number)):
            raise NotLocal  # pictures are folded into another dim
        step = rule(self, number, node)
        if self.each * step.place.share >= WHOLE and step.place.share > max(self.places[ref].share for ref in known):
            raise NotLocal
        return step

    def whole(self, ref: Ref) -> None:
        """Ask for an input as whole maps."""
        if ref in self.places:
            self.need(ref)
            shape, size, _ = self.graph.nodes[ref.node].outputs[ref.output]
            # Maps of several pieces are joined, and stand there twice meanwhile.
            self._alive[ref] = math.prod(shape) * size * (2 + self.each * self.places[ref].share)

    def need(self, ref: Ref, pads: tuple[int, int, int, int] = (0, 0, 0, 0), fill: float = 0.0) -> Need:
        """A clean activation that must be there."""
        place = self.places[ref]
        need = Need(ref, place.dims, (place.rows.length, place.columns.length), pads, fill)
        self.needs.add(need)
        return need

    def place(self, value: Any) -> Place:
        """Of an input that must depend on the picture."""
        if not isinstance(value, Ref) or value not in self.places:
            raise NotLocal
        return self.places[value]

    def maps(self, value: Any) -> Place:
        """Of an input that must be (N, C, H, W)."""
        place = self.place(value)
        if place.dims != (2, 3) or len(self.graph.nodes[value.node].shape(value.output)) != 4:
            raise NotLocal
        return place

    def only_first(self, number: int) -> None:
        """The other outputs (places of maxima, statistics) mean nothing inside a box."""
        if self.graph.used(number) != [0]:
            raise NotLocal

    def _count(self, number: int, share: float, scratch: int) -> None:
        for output, (shape, size, _) in enumerate(self.graph.nodes[number].outputs):
            self._alive[Ref(number, output)] = math.prod(shape) * size * share
        self._peak = max(self._peak, sum(self._alive.values()) + scratch)
        for ref in self.graph.dying.get(number, []):
            self._alive.pop(ref, None)
