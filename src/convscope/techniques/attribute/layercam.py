"""LayerCAM: each cell of each channel weighted by its own positive gradient (Jiang 2021).

    w_k,ij = max(dS/dA_k,ij, 0),      L_ij = sum over k of w_k,ij A_k,ij

A weight for each cell, not for each channel, keeps the map sharp in early layers, whose channels mean little as a
whole.

Departures: the sign of L stays, of which the paper keeps the positive part; it is below zero only where the layer is.
The paper's scaling of early layers by tanh before it fuses them is left out: several layers are scaled to 1 each.
"""

from __future__ import annotations

from torch import Tensor

from convscope.network import Network
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, Seen, activation_map


@technique(
    family="attribute",
    paper="Jiang et al. 2021, LayerCAM, IEEE Transactions on Image Processing 30",
    see="On early layers fine lines that belong to the class; on late ones much the same as Grad-CAM.",
    caution=(
        "Negative gradients are thrown away, so there is hardly any evidence against a class in the map, and its "
        "sum is not the score."
    ),
)
def layercam(network: Network, images: Tensor, *, target: Target = None, layer: Layers = None) -> Heatmap:
    """Where a layer finds evidence for a class, cell by cell: activations weighted by their own positive gradient.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer: any layer with spatial extent, by default the last one before the network pools it away; or several,
            whose maps are scaled to 1 each and averaged.

    Returns:
        ``values`` (N, H, W), signed, in score (activation times score per activation), enlarged to the pictures;
        ``cells`` (N, h, w), the layer's own resolution, untouched (None for several layers).

    Raises:
        UnknownTarget, UnknownLayer; OptionError for a layer without spatial extent.
    """
    return activation_map(
        network, images, weighted, target=target, layer=layer, quantity="contribution to the score, rising slopes only"
    )


def weighted(seen: Seen) -> Tensor:
    """(N, h, w): activations times their positive gradients."""
    return (seen.slopes.clamp(min=0) * seen.maps).sum(1)
