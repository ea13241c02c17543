"""XGrad-CAM: gradients averaged where a channel is active (Fu 2020, section 3.3).

    w_k = sum over ij of (A_k,ij / sum over ab of A_k,ab) dS/dA_k,ij,      L = sum over k of w_k A_k

These weights come nearest to two axioms: sensitivity (what the score loses without a channel is what the channel adds
to the map) and conservation (the sum of the map is the score). With only linear layers behind they hold exactly, up to
the bias.

Departures: the sign of L stays, of which the paper keeps the positive part. A channel whose sum is zero gets no weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convscope.network import Network
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, Seen, activation_map


@technique(
    family="attribute",
    paper="Fu et al. 2020, arXiv:2008.02312, section 3.3",
    see="Warm regions speak for the class, cold ones against it; the map's sum over cells is near the score.",
    caution=(
        "The axioms hold only as far as the network behind the layer is linear; on a layer that is not behind a "
        "rectifier a channel's sum can be near zero, and its weight then is huge."
    ),
)
def xgradcam(network: Network, images: Tensor, *, target: Target = None, layer: Layers = None) -> Heatmap:
    """Where a layer finds evidence for a class: its channels, weighted by their gradient where they are active.

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
    return activation_map(network, images, weighted, target=target, layer=layer)


def weighted(seen: Seen) -> Tensor:
    """(N, h, w): channels weighted by the mean of their gradient under their own activation."""
    total = seen.maps.sum((2, 3), keepdim=True)
    weights = (seen.maps * seen.slopes).sum((2, 3), keepdim=True) / torch.where(total == 0, 1, total)
    return (torch.where(total == 0, 0, weights) * seen.maps).sum(1)
