"""What one unit of a layer sees: the gradient of its activation by the picture, plain or by a backward rule.

    R = dA_k,ij / dI        for each pixel and colour, in the picture's own size

``deconvnet`` and ``guided`` rectify the signal on its way back; they are the published reconstructions (Zeiler & Fergus
2014, section 2.1; Springenberg 2014, section 3.4) and not gradients any more. Beyond the unit's receptive field R is
exactly zero, so what is drawn is cut out around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import RULES, GradientRule, gradient
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.network import Network
from convscope.objectives import Unit
from convscope.registry import Layer, UnitOption, technique
from convscope.results import Pictures

Rule = Literal["plain", "deconvnet", "guided"]
Box = tuple[int, int, int, int]


@technique(
    family="attribute",
    order=5,
    paper="Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1; Springenberg et al. 2014, arXiv:1412.6806, section 3.4",
    see="The strokes and colours that would raise the unit if they grew stronger; grey leaves it as it is.",
    caution=(
        "One picture shows what excites a unit here, not what it stands for. The deconvnet and guided rules draw much "
        "the same lines for many units, and for random weights."
    ),
)
def neuron(
    network: Network,
    images: Tensor,
    *,
    layer: Layer = None,
    unit: UnitOption = None,
    rule: Annotated[Rule, Field(description="what rectifiers do to the gradient on its way back")] = "plain",
) -> Pictures:
    """What one unit of a layer responds to in a picture: the gradient of its activation, cut to what it can see.

    Args:
        network: any network.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        layer: any layer, by default the last one with spatial extent before the network pools it away.
        unit: a channel, at its strongest position in each picture, or a channel with row and column; for None each
            picture's strongest unit.
        rule: ``plain``, ``deconvnet`` or ``guided``.

    Returns:
        ``values`` (N, 3, H, W), signed, in activation per unit of pixel value, untouched. Each summary holds
        ``channel``, ``row``, ``column``, ``activation``, and ``box`` (top, left, bottom, right): the pixels that the
        unit can see, half open. The tiles are cut to the boxes, as large as the largest of them.

    Raises:
        UnknownLayer, OptionError for a unit that the layer lacks, RuleError for a rule without rectifiers.
    """
    name = layer or network.default_layer
    network.layer(name)
    chosen = None if unit is None else Unit.parse(unit)
    passes = list(
        batched(lambda part: _responses(network, images[part], name, chosen, RULES[rule]), len(images),
                network.max_batch)
    )  # fmt: skip
    values = torch.cat([slopes.cpu() for slopes, _ in passes])
    spots = [spot for _, found in passes for spot in found]
    boxes = boxes_of(network, name, spots, (images.shape[-2], images.shape[-1]))
    silent = [f"picture {n + 1}: unit {s} of {name} is zero" for n, s in enumerate(spots) if s.activation == 0]
    return Pictures(
        values=values, layer=name, images=images, tiles=cut(values, boxes)[:, None], signed=True, each=True,
        quantity="activation per unit of pixel value", titles=[f"{name} unit {spot}" for spot in spots],
        summaries=[s.summary(b) for s, b in zip(spots, boxes, strict=True)], notes=silent,
    )  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """A unit at its place in one picture."""

    channel: int
    row: int
    column: int
    activation: float

    def __str__(self) -> str:
        return f"{self.channel},{self.row},{self.column}"

    def summary(self, box: Box) -> dict[str, Any]:
        place = {"channel": self.channel, "row": self.row, "column": self.column}
        return {**place, "activation": self.activation, "box": list(box)}


def _responses(
    network: Network, images: Tensor, layer: str, unit: Unit | None, rule: GradientRule
) -> tuple[Tensor, list[Spot]]:
    images = images.clone().requires_grad_()
    seen = observe(network, images, [layer])
    maps = network.maps(layer, seen[layer])
    spots = [_spot(each, unit, layer) for each in maps.detach()]
    return gradient(activations_at(maps, spots), images, rule), spots


def activations_at(maps: Tensor, spots: Sequence[Spot]) -> Tensor:
    """(N,) of (N, C, h, w): each picture's own unit."""
    return torch.stack([each[s.channel, s.row, s.column] for each, s in zip(maps, spots, strict=True)])


def _spot(maps: Tensor, unit: Unit | None, layer: str) -> Spot:
    """The unit to look at in (C, h, w): as given, at its strongest position, or the strongest of all."""
    count, rows, columns = maps.shape
    if unit is None:
        return strongest(maps, int(maps.flatten(1).amax(1).argmax()))
    if unit.channel >= count:
        raise OptionError(f"layer {layer!r} has channels 0 to {count - 1}, not {unit.channel}")
    if unit.position is None:
        return strongest(maps, unit.channel)
    row, column = unit.position
    if row >= rows or column >= columns:
        raise OptionError(f"layer {layer!r} has {rows}x{columns} positions; row {row}, column {column} is outside")
    return Spot(unit.channel, row, column, float(maps[unit.channel, row, column]))


def strongest(maps: Tensor, channel: int) -> Spot:
    """Where a channel of (C, h, w) is strongest, first among equals."""
    place = int(maps[channel].argmax())
    row, column = divmod(place, maps.shape[2])
    return Spot(channel, row, column, float(maps[channel, row, column]))


def boxes_of(network: Network, layer: str, spots: Sequence[Spot], size: tuple[int, int]) -> list[Box]:
    """The pixels that each unit sees in pictures of ``size``; all of them where that is not known."""
    sized = network if size == network.input_size else replace(network, input_size=size)
    field = sized.receptive_fields.get(layer)  # none for a run before a layer's last, "relu:0"
    if field is None or any(s.row >= field.units[0] or s.column >= field.units[1] for s in spots):
        return [(0, 0, *size)] * len(spots)
    return [field.box(s.row, s.column) for s in spots]


def cut(values: Tensor, boxes: Sequence[Box]) -> Tensor:
    """(N, C, h, w) of (N, C, H, W): each around its box, all as large as the largest box, inside the picture."""
    height = max(1, *(bottom - top for top, _, bottom, _ in boxes))
    width = max(1, *(right - left for _, left, _, right in boxes))
    tops = [min(box[0], values.shape[2] - height) for box in boxes]
    lefts = [min(box[1], values.shape[3] - width) for box in boxes]
    return torch.stack([v[:, t : t + height, f : f + width] for v, t, f in zip(values, tops, lefts, strict=True)])
