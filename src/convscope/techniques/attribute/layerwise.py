"""A picture layer by layer: the strongest units of each layer, projected back (Zeiler & Fergus 2014, section 4.1).

For each layer the channels with the highest peaks, and of each the unit at its peak, projected to the picture by a
backward rule as in :mod:`convscope.techniques.attribute.neuron`. From layer to layer the structures grow from edges
over textures to parts of objects.

The paper picks the pictures that excite a unit most out of a whole data set; here the picture is given and the units
are picked. The paper's rule is ``deconvnet``; by default it is ``guided``, whose lines are clearer in networks with
few max-poolings (Springenberg 2014, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope.backward import PLAIN, RULES, GradientRule, gradient
from convscope.batching import batched
from convscope.errors import OptionError, RuleError
from convscope.hooks import observe
from convscope.network import Network
from convscope.registry import technique
from convscope.results import Pictures
from convscope.techniques.attribute.neuron import Rule, Spot, activations_at, boxes_of, cut, strongest

TILE = 96  # longest side of a tile, in pixels


@technique(
    family="attribute",
    order=6,
    paper="Zeiler & Fergus 2014, arXiv:1311.2901, sections 2.1 and 4.1",
    see=(
        "One row a layer, from the picture on, its strongest units first: edges, then textures, then parts of objects; "
        "each is cut to what the unit can see."
    ),
    caution=(
        "The projections copy the lines of the picture and look alike for random weights; that a unit is strong here "
        "does not say that the decision rests on it."
    ),
)
def layerwise(
    network: Network,
    images: Tensor,
    *,
    layers: Annotated[
        Sequence[str] | None, Field(min_length=1, description="layer names; by default the last of each resolution")
    ] = None,
    units: Annotated[int, Field(ge=1, description="how many units of each layer")] = 8,
    rule: Annotated[Rule, Field(description="what rectifiers do to the gradient on its way back")] = "guided",
) -> Pictures:
    """What the strongest units of every layer see in a picture, from edges to parts of objects.

    Args:
        network: any network.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        layers: with spatial extent; by default the last one of each resolution, up to where the network pools its maps
            away.
        units: how many channels of each layer; fewer where a layer has fewer.
        rule: ``guided``, ``deconvnet`` or ``plain``. A layer with no rectifier before it gets ``plain``, which is the
            same there.

    Returns:
        ``values`` (N, layers, units, 3, H, W), signed, untouched. Each summary holds for each layer the units,
        strongest first, with ``channel``, ``row``, ``column``, ``activation`` and ``box``, the pixels that the unit can
        see. The tiles are cut to the boxes and enlarged or made smaller to one size.

    Raises:
        UnknownLayer; OptionError for a layer without spatial extent.
    """
    names = list(dict.fromkeys(layers)) if layers is not None else last_of_each_resolution(network)
    for name in names:
        if not network.layer(name).spatial:
            raise OptionError(f"layer {name!r} has no spatial extent; try {network.default_layer!r}")
    most = min(units, *(network.layer(name).channels for name in names))
    passes = list(
        batched(lambda part: _projections(network, images[part], names, most, RULES[rule]), len(images),
                network.max_batch)
    )  # fmt: skip
    values = torch.cat([found for found, _, _ in passes])
    spots = [spot for _, found, _ in passes for spot in found]  # of each picture, layer and unit
    plain = [name for name in names if any(name in found for _, _, found in passes)]
    notes = [f"no rectifier before {', '.join(plain)}: the {rule} rule is the plain gradient there"] if plain else []
    return replace(_result(network, images, names, values, spots), notes=notes)


def last_of_each_resolution(network: Network) -> list[str]:
    """The last layer of each grid, as the network reaches them, up to where it pools its maps away."""
    found: dict[tuple[int, int] | None, str] = {}
    for info in network.layers():
        if info.spatial:
            found[info.grid] = info.name
        if info.name == network.default_layer:
            break
    return list(found.values())


def _projections(
    network: Network, images: Tensor, layers: Sequence[str], units: int, rule: GradientRule
) -> tuple[Tensor, list[list[list[Spot]]], set[str]]:
    """(N, layers, units, 3, H, W), which unit each is of, and the layers where the rule found no rectifier."""
    images = images.clone().requires_grad_()
    seen = observe(network, images, layers)
    values, spots, plain = [], [], set()
    for name in layers:
        maps = network.maps(name, seen[name])
        chosen = [_strongest(each, units) for each in maps.detach()]
        rows = []
        for each in zip(*chosen, strict=True):
            scores = activations_at(maps, each)
            try:
                rows.append(gradient(scores, images, rule, retain_graph=True))
            except RuleError:
                rows.append(gradient(scores, images, PLAIN, retain_graph=True))
                plain.add(name)
        values.append(torch.stack(rows, 1).cpu())
        spots.append(chosen)
    return torch.stack(values, 1), [list(each) for each in zip(*spots, strict=True)], plain


def _strongest(maps: Tensor, units: int) -> list[Spot]:
    peaks = maps.flatten(1).amax(1).argsort(descending=True, stable=True)
    return [strongest(maps, int(channel)) for channel in peaks[:units]]


def _result(
    network: Network, images: Tensor, names: Sequence[str], values: Tensor, spots: Sequence[Sequence[Sequence[Spot]]]
) -> Pictures:
    size = (images.shape[-2], images.shape[-1])
    records: list[dict[str, list]] = [{"layers": []} for _ in images]
    tiles = []
    for place, name in enumerate(names):
        row = [spot for picture in spots for spot in picture[place]]
        boxes = boxes_of(network, name, row, size)
        tiles.append(fitted(cut(values[:, place].flatten(0, 1), boxes), size).unflatten(0, values.shape[0:3:2]))
        said = [spot.summary(box) for spot, box in zip(row, boxes, strict=True)]
        for number, record in enumerate(records):
            units = said[number * values.shape[2] : (number + 1) * values.shape[2]]
            record["layers"].append({"name": name, "units": units})
    titles = [f"{name} {spot.channel}" for p in spots for name, row in zip(names, p, strict=True) for spot in row]
    return Pictures(
        values=values, images=images, tiles=torch.cat(tiles, 1), columns=values.shape[2], signed=True, each=True,
        summaries=records, quantity="activation per unit of pixel value, by the rule", tile_titles=titles,
        titles=[" → ".join(names)] * len(images),
    )  # fmt: skip


def fitted(tiles: Tensor, picture: tuple[int, int]) -> Tensor:
    """(n, C, h, w) scaled into tiles of the picture's proportions, filled up with zero, which is drawn neutral."""
    scale = min(1.0, TILE / max(picture))
    height, width = (max(1, round(side * scale)) for side in picture)
    factor = min(height / tiles.shape[2], width / tiles.shape[3])
    inner = [max(1, min(round(s * factor), most)) for s, most in zip(tiles.shape[2:], (height, width), strict=True)]
    drawn = F.interpolate(tiles.float(), inner, mode="bilinear", antialias=True, align_corners=False)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return F.pad(drawn, (left, width - inner[1] - left, top, height - inner[0] - top))
