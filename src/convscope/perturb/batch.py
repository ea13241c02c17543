"""One pass over many copies: boxes as far as the plan says so, whole maps behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope import winograd
from convscope.perturb.graph import Graph, Ref, called, outputs_of
from convscope.perturb.places import Need, Place, Places, Span, back, cut, front, numbered, paste, paste_other
from convscope.perturb.plan import Plan


@dataclass(frozen=True)
class Shared:
    """What all batches over one picture read."""

    clean: Mapping[Need, Tensor]
    filters: dict[int, Tensor] = field(default_factory=dict)  # by node, turned for ``winograd``

    def turned(self, number: int, weight: Tensor) -> Tensor:
        if number not in self.filters:
            self.filters[number] = winograd.turned(weight)
        return self.filters[number]


class Batch:
    """One pass over variations of one or several plans: piece by piece as long as any is local, then all in one."""

    def __init__(self, graph: Graph, pieces: Sequence[Piece]) -> None:
        self.graph, self.pieces = graph, pieces
        self.count = sum(piece.variations for piece in pieces)
        self.full: dict[Ref, Tensor] = {}

    def logits(self) -> Tensor:
        graph = self.graph
        apart = [number for number in graph.work if any(number in piece.plan.steps for piece in self.pieces)]
        together = sorted(set(graph.work).difference(apart))  # nothing in a box comes behind these
        kept = {ref for number in together for ref in graph.refs(number)} | {graph.output}
        for piece in self.pieces:
            piece.run(apart, kept)
        for number in together:
            values = outputs_of(called(graph.nodes[number], self.whole, self.count))
            self.full.update({Ref(number, output): values[output] for output in graph.used(number)})
            for ref in graph.dying.get(number, []):
                self.full.pop(ref, None)
                for piece in self.pieces:
                    piece.forget(ref)
        return self.whole(graph.output)

    def whole(self, ref: Ref) -> Any:
        """The whole maps of every variation. What any piece has as boxes has the variations in its first dim."""
        if not self.graph.pictured(ref):
            return self.graph.constant(ref, self.count)
        if ref not in self.full:
            parts = [piece.whole(ref) for piece in self.pieces]
            self.full[ref] = torch.cat(parts) if len(parts) > 1 else parts[0]
            for piece in self.pieces:
                piece.forget(ref)
        return self.full[ref]


class Piece:
    """The variations of a batch that share a plan: boxes where it says so, whole maps behind.

    ``count`` is of boxes, of which each variation has ``plan.each``, next to each other.
    """

    def __init__(self, plan: Plan, shared: Shared, part: slice, boxes: Tensor) -> None:
        self.plan, self.shared, self.count, self.variations = plan, shared, len(boxes), len(boxes) // plan.each
        self.part = slice(part.start * plan.each, part.stop * plan.each)
        self.local: dict[Ref, Tensor] = {Ref(0): boxes}
        self.full: dict[Ref, Tensor] = {}
        self._parts: dict[int, Place] = {}

    def run(self, numbers: Sequence[int], kept: Collection[Ref]) -> None:
        """Those nodes; of what nobody needs behind them, ``kept`` stays."""
        graph = self.plan.graph
        for number in numbers:
            step = self.plan.steps.get(number)
            values = outputs_of(step.run(self) if step else called(graph.nodes[number], self.whole, self.variations))
            into = self.local if step else self.full
            into.update({Ref(number, output): values[output] for output in graph.used(number)})
            for ref in graph.dying.get(number, []):
                if ref not in kept:
                    self.forget(ref)

    def forget(self, ref: Ref) -> None:
        self.local.pop(ref, None)
        self.full.pop(ref, None)

    def constant(self, value: Any) -> Any:
        """What does not depend on the picture."""
        return self.plan.graph.constant(value, self.count)

    def whole(self, ref: Ref) -> Any:
        """The whole maps of every variation."""
        if not self.plan.graph.pictured(ref):
            return self.plan.graph.constant(ref, self.variations)
        if ref not in self.full:
            self.full[ref] = self._joined(ref)
        return self.full[ref]

    def _joined(self, ref: Ref) -> Tensor:
        """The boxes of each variation in its whole map."""
        place, each = self.placed(ref), self.plan.each
        box = front(self.local[ref], place)
        if place.share == 1:
            return back(box[::each], place.dims)
        maps = cut(
            self.shared.clean[self._plain(ref)],
            *(span.whole().part(slice(0, self.variations)) for span in (place.rows, place.columns)),
        )
        for turn in range(each):
            paste(maps, box[turn::each], place.rows.starts[turn::each], place.columns.starts[turn::each])
        return back(maps, place.dims)

    def local_or_constant(self, ref: Ref) -> Any:
        return self.local[ref] if ref in self.local else self.constant(ref)

    def placed(self, ref: Ref) -> Place:
        """Where this part's boxes are."""
        place = self.plan.places[ref]
        if id(place) not in self._parts:
            self._parts[id(place)] = place.part(self.part)
        return self._parts[id(place)]

    def grown(self, ref: Ref, place: Place) -> Tensor:
        """The values of a box around this one's own; of a constant its value."""
        if ref not in self.plan.places:
            return self.constant(ref)
        if self.plan.places[ref].same(place):
            return self.local[ref]
        own = self.placed(ref)
        return self._grown(self._plain(ref), own, place.rows.part(self.part), place.columns.part(self.part))

    def _plain(self, ref: Ref) -> Need:
        place = self.plan.places[ref]
        return Need(ref, place.dims, (place.rows.length, place.columns.length))

    def patch(self, need: Need, rows: Span, columns: Span) -> Tensor:
        """(K, C, rows, columns) of a padded input, the change pasted in."""
        return self._grown(need, self.placed(need.ref), rows.part(self.part), columns.part(self.part))

    def _grown(self, need: Need, own: Place, rows: Span, columns: Span) -> Tensor:
        old_rows, old_columns = own.rows.shifted(need.pads[2]), own.columns.shifted(need.pads[0])
        if rows.same(old_rows) and columns.same(old_columns):
            return self.local[need.ref]
        patch = cut(self.shared.clean[need], rows, columns)
        box = front(self.local[need.ref], own)
        paste(patch, box, old_rows.starts - rows.starts, old_columns.starts - columns.starts)
        for other in self._others():
            paste_other(
                patch, box, old_rows.starts[other] - rows.starts, old_columns.starts[other] - columns.starts, other
            )
        return back(patch, own.dims)

    def _others(self) -> Iterator[Places]:
        """For each box the number of another one of its variation, until all were there."""
        number, each = np.arange(self.count), self.plan.each
        for turn in range(1, each):
            yield number - number % each + (number + turn) % each

    def copied(self, need: Need, own: Place, place: Place, sources: Sequence[Places]) -> Tensor:
        """For each place of a box the value of the input that it copies, of the change or of the clean picture."""
        box, clean = front(self.local[need.ref], own.part(self.part)), self.shared.clean[need]
        axes = zip((own.rows, own.columns), (place.rows, place.columns), sources, strict=True)
        spans = [(old.part(self.part), source[numbered(new.part(self.part))]) for old, new, source in axes]
        down, across = (torch.from_numpy(at).to(clean.device) for _, at in spans)
        found = clean[down[:, :, None], across[:, None, :]]
        for other in (np.arange(self.count), *self._others()):
            there = [torch.from_numpy(at - old.starts[other][:, None]).to(clean.device) for old, at in spans]
            inside = [(t >= 0) & (t < old.size) for t, (old, _) in zip(there, spans, strict=True)]
            y, x = (t.clamp(0, old.size - 1) for t, (old, _) in zip(there, spans, strict=True))
            number = torch.from_numpy(other).to(clean.device)[:, None, None]
            mask = inside[0][:, :, None] & inside[1][:, None, :]
            found = torch.where(mask[..., None], box[number, y[:, :, None], x[:, None, :]], found)
        return back(found, place.dims)
