"""What all class activation maps share: one pass, a formula that makes cells of it, and the heat map.

A technique of the family is a formula: a function of :class:`Seen`, which holds a layer's channels, their gradients
and the scores, that gives one number for each cell of the layer. Signs are kept in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope.backward import gradient
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe

Layers = Annotated[
    str | Sequence[str] | None,
    Field(
        description="layer name as `convscope layers` lists it, or several, whose maps are scaled to 1 and averaged; "
        "chosen and said if left out"
    ),
]


@dataclass(frozen=True)
class Seen:
    """What a formula can read: one layer and N pictures.

    ``activation`` is the layer's output as it is, ``maps`` (N, C, h, w) the same in this order, in at least float32,
    and ``slopes`` (N, C, h, w) the derivative of the score by it; zeros where the technique asked for none.
    """

    question: Question
    images: Tensor  # (N, 3, H, W)
    layer: str
    activation: Tensor
    maps: Tensor
    slopes: Tensor
    scores: Tensor  # (N,)
    targets: Tensor  # (N,) class indices


Formula = Callable[[Seen], Tensor]
"""Seen to (N, h, w)."""


def activation_map(
    network: Network,
    images: Tensor,
    formula: Formula,
    *,
    target: Any,
    layer: str | Sequence[str] | None,
    quantity: str = "contribution to the score",
    slopes: bool = True,
) -> Heatmap:
    """The heat map of a formula at a layer, or the mean of those of several layers.

    Args:
        formula: from what was seen to (N, h, w).
        slopes: whether the formula reads gradients; without, none are computed.

    Raises:
        UnknownTarget, UnknownLayer; OptionError for a layer without spatial extent.
    """
    names = layers_of(network, layer)
    question = ask(network, target)
    passes = list(
        batched(
            lambda part: _cells(question.of_part(part, len(images)), images[part], names, formula, slopes),
            len(images),
            network.at_once(images),
        )
    )
    *cells, scores, targets = (torch.cat(parts) for parts in zip(*passes, strict=True))
    values = enlarged_and_fused(cells, images)
    return heatmap(images, cells, values, names, quantity, **describe(question, values, scores, targets))


def heatmap(
    images: Tensor, cells: Sequence[Tensor], values: Tensor, layers: Sequence[str], quantity: str, **said: Any
) -> Heatmap:
    """The result of (N, h, w) cells of one or several layers."""
    several = len(cells) > 1
    return Heatmap(
        values=values, cells=None if several else cells[0], images=images, signed=True,
        quantity=f"{quantity}, each layer scaled to 1" if several else quantity, layer=", ".join(layers) or None,
        **said,
    )  # fmt: skip


def layers_of(network: Network, given: str | Sequence[str] | None) -> list[str]:
    """Names of the layers to show; the default one for None, OptionError for one without spatial extent."""
    names = [given] if isinstance(given, str) else list(dict.fromkeys(given or ()))
    for name in names:
        if not network.layer(name).spatial:
            raise OptionError(f"layer {name!r} has no spatial extent, so it has no map; try {network.default_layer!r}")
    return names or [network.default_layer]


def _cells(
    question: Question, images: Tensor, layers: Sequence[str], formula: Formula, slopes: bool
) -> tuple[Tensor, ...]:
    """(N, h, w) for each layer, then scores (N,) and targets (N,)."""
    network = question.network
    if slopes:
        activations = observe(network, images, question.layers, leaves=layers)
    else:
        activations = observe(network, images, [*question.layers, *layers])
    scores, targets = question.scores(activations)
    outputs = [activations[name] for name in layers]
    found = gradient(scores, outputs) if slopes else [torch.zeros_like(output) for output in outputs]
    cells = [
        formula(
            Seen(
                question, images, name, output.detach(), _maps(network, name, output.detach()),
                _maps(network, name, slope), scores.detach(), targets,
            )
        )
        for name, output, slope in zip(layers, outputs, found, strict=True)
    ]  # fmt: skip
    return (*cells, scores.detach(), targets)


def _maps(network: Network, layer: str, values: Tensor) -> Tensor:
    maps = network.maps(layer, values)
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def enlarged(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) cells enlarged bilinearly to (N, H, W) pixels, on the cells' device."""
    wide = cells[:, None].to(torch.promote_types(cells.dtype, torch.float32))
    return F.interpolate(wide, size, mode="bilinear", align_corners=False)[:, 0]


def enlarged_and_fused(cells: Sequence[Tensor], images: Tensor) -> Tensor:
    """(N, H, W), on the CPU: the enlarged cells; of several layers the mean of each's map over its largest size."""
    maps = [enlarged(each, (images.shape[-2], images.shape[-1])).cpu() for each in cells]
    if len(maps) == 1:
        return maps[0]
    largest = [each.abs().amax((1, 2), keepdim=True) for each in maps]
    # A map that is zero everywhere stays so.
    return torch.stack([m / torch.where(s > 0, s, 1) for m, s in zip(maps, largest, strict=True)]).mean(0)
