"""Eigen-CAM: the first principal component of a layer's activations (Muhammad & Yeasin 2020, section III).

    A = U S V^T,      L = A v_1

A is the layer as a matrix, positions by channels, not centred, as in the paper. It needs neither class nor gradient.
A singular vector has no sign of its own: here it is the one that makes the map's mean positive.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convscope.batching import batched
from convscope.hooks import observe
from convscope.network import Network
from convscope.registry import technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, enlarged_and_fused, heatmap, layers_of
from convscope.techniques.attribute._heat import extremes, remarks


@technique(
    family="attribute",
    paper="Muhammad & Yeasin 2020, arXiv:2008.00299, section III",
    see="The pattern that most of the layer's channels share; often the foreground, whatever its class.",
    caution=(
        "It knows nothing of any class and explains no decision. The share said with it is how much of the layer "
        "the map stands for; the sign is a convention."
    ),
)
def eigencam(network: Network, images: Tensor, *, layer: Layers = None) -> Heatmap:
    """What a layer's channels have in common: their projection on the first principal component.

    Args:
        network: any network.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        layer: any layer with spatial extent, by default the last one before the network pools it away; or several,
            whose maps are scaled to 1 each and averaged.

    Returns:
        ``values`` (N, H, W), signed, in units of the layer's activation, enlarged to the pictures; ``cells`` (N, h, w),
        the layer's own resolution, untouched (None for several layers). The summaries hold ``share``: for each layer
        the part of its sum of squares that the component stands for.

    Raises:
        UnknownLayer; OptionError for a layer without spatial extent.
    """
    names = layers_of(network, layer)
    passes = list(
        batched(lambda part: _projections(network, images[part], names), len(images), network.max_batch),
    )
    found = [torch.cat(parts) for parts in zip(*passes, strict=True)]
    cells, shares = found[0::2], torch.stack(found[1::2], 1)
    values = enlarged_and_fused(cells, images)
    titles = [f"first component, {float(s.mean()):.0%} of {', '.join(names)}" for s in shares]
    said = {
        "summaries": [{"share": s.tolist(), **extremes(heat)} for s, heat in zip(shares, values, strict=True)],
        "notes": remarks(titles, values),
        "titles": titles,
    }
    return heatmap(images, cells, values, names, "projection on the first principal component", **said)


def _projections(network: Network, images: Tensor, layers: list[str]) -> tuple[Tensor, ...]:
    """For each layer cells (N, h, w) and shares (N,), one after the other."""
    seen = observe(network, images, layers)
    return tuple(part for name in layers for part in project(network.maps(name, seen[name])))


def project(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, h, w) to the projection (N, h, w) on the first component, and its share (N,) of the sum of squares."""
    matrix = maps.flatten(2).transpose(1, 2).to(torch.promote_types(maps.dtype, torch.float32))
    left, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    scores = left[:, :, 0] * sizes[:, :1]  # A v_1
    scores = torch.where(scores.sum(1, keepdim=True) < 0, -scores, scores)
    squares = sizes.square()
    share = squares[:, 0] / squares.sum(1).clamp(min=torch.finfo(squares.dtype).tiny)
    return scores.unflatten(1, maps.shape[2:]), share
