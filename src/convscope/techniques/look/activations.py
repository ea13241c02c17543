"""What a layer computes for a photograph: one map a channel."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope.batching import batched
from convscope.hooks import observe
from convscope.network import Network
from convscope.registry import Layer, technique
from convscope.results import Pictures


@technique(
    family="look",
    order=4,
    paper="Yosinski et al. 2015, arXiv:1506.06579, section 2; CS231n notes, Understanding and visualizing networks",
    see=(
        "In early layers dense outlines, deeper sparse and local blobs. A map that is all zero is marked: for "
        "this picture its channel is silent."
    ),
    caution="A silent channel is dead only if it is silent for every picture; one photograph cannot tell.",
)
def activations(
    network: Network,
    images: Tensor,
    *,
    layer: Layer = None,
    channels: Annotated[int, Field(ge=1, description="how many channels to draw, in order")] = 64,
) -> Pictures:
    """The output of one layer as a grid of maps, with its sparsity and its silent channels.

    Args:
        network: any network.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        layer: any layer, by default the first one with weights, behind its rectifier, whose maps still show the scene.
        channels: how many to draw. A layer without spatial extent is drawn as one square of all its units.

    Returns:
        ``values``: the layer's output, untouched, (N, C, h, w) or (N, C). Each summary holds ``sparsity`` (share of
        exact zeros), ``silent`` (channels that are zero everywhere), ``mean``, ``maximum`` and ``strongest`` channels.

    Raises:
        UnknownLayer.
    """
    name = layer or network.first_layer
    passes = batched(lambda part: observe(network, images[part], [name])[name].cpu(), len(images), network.max_batch)
    values = torch.cat(list(passes)).float()
    maps = network.maps(name, values)
    flat = maps.flatten(2)
    silent = (flat == 0).all(2)
    single = flat.shape[2] == 1
    tiles = _square(flat[:, :, 0]) if single else maps[:, :channels, None]
    return Pictures(
        values=values, layer=name, images=images, tiles=tiles, signed=bool(values.min() < 0), quantity="activation",
        marks=None if single else silent[:, :channels], mark="zero everywhere",
        tile_titles=[] if single else [str(c) for c in range(tiles.shape[1])],
        titles=[_title(name, maps, tiles, s) for s in silent],
        summaries=[_summary(f, s) for f, s in zip(flat, silent, strict=True)],
    )  # fmt: skip


def _square(vectors: Tensor) -> Tensor:
    """(N, C) as (N, 1, 1, side, side), filled up with zeros."""
    side = math.ceil(math.sqrt(vectors.shape[1]))
    padded = torch.nn.functional.pad(vectors, (0, side * side - vectors.shape[1]))
    return padded.view(len(vectors), 1, 1, side, side)


def _summary(flat: Tensor, silent: Tensor) -> dict[str, Any]:
    peaks = flat.amax(1)
    best = peaks.argsort(descending=True)[:5].tolist()
    return {
        "sparsity": float((flat == 0).double().mean()),
        "channels": len(flat),
        "silent": silent.nonzero()[:, 0].tolist(),
        "mean": float(flat.double().mean()),
        "maximum": float(flat.max()),
        "strongest": [{"channel": c, "maximum": float(peaks[c])} for c in best],
    }


def _title(name: str, maps: Tensor, tiles: Tensor, silent: Tensor) -> str:
    count, rows, columns = maps.shape[1:]
    if rows * columns == 1:
        return f"{name}: {count} units, {int(silent.sum())} at zero"
    drawn = f"{tiles.shape[1]} of {count}" if tiles.shape[1] < count else str(count)
    return f"{name}: {drawn} channels of {rows}×{columns}; {int(silent.sum())} of {count} zero everywhere"
