"""Grad-CAM++: a layer's channels weighted by their positive gradients, so that several objects all count (Chattopadhay
2018).

    alpha_k,ij = d2Y/dA2 / (2 d2Y/dA2 + sum over ab of A_k,ab d3Y/dA3)            all at k, ij
    w_k        = sum over ij of alpha_k,ij max(dY/dA_k,ij, 0),   L = sum over k of w_k A_k

With Y = exp(S), as there, and S piecewise linear in A, the derivatives are exp(S) times the powers of
g = dS/dA, and alpha_k,ij = 1 / (2 + g sum over ab of A_k,ab) wherever g is not zero.

Departures: the factor exp(S), the same for all weights of a picture, is left out, for it overflows; the sign of L
stays, of which the paper keeps the positive part. On a rectified layer the weights are not negative, and neither is L.
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
    paper="Chattopadhay et al. 2018, arXiv:1710.11063",
    see=("As for Grad-CAM; where the class is there several times, or fills the picture, more of it should be warm."),
    caution=(
        "Negative gradients are thrown away, so the map shows hardly any evidence against a class. On a layer that is "
        "not behind a rectifier the denominator can vanish and a weight explode."
    ),
)
def gradcam_pp(network: Network, images: Tensor, *, target: Target = None, layer: Layers = None) -> Heatmap:
    """Where a layer finds evidence for a class, all its instances: channels weighted by their positive gradients.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer: any layer with spatial extent, by default the last one before the network pools it away; or several,
            whose maps are scaled to 1 each and averaged.

    Returns:
        ``values`` (N, H, W), signed, in activation times score per activation, enlarged to the pictures;
        ``cells`` (N, h, w), the layer's own resolution, untouched (None for several layers).

    Raises:
        UnknownTarget, UnknownLayer; OptionError for a layer without spatial extent.
    """
    return activation_map(
        network, images, weighted, target=target, layer=layer, quantity="activation, weighted by positive gradients"
    )


def weighted(seen: Seen) -> Tensor:
    """(N, h, w): channels weighted by their positive gradients, each divided by 2 + g sum(A)."""
    denominator = 2 + seen.slopes * seen.maps.sum((2, 3), keepdim=True)
    alpha = torch.where(denominator == 0, 0, 1 / denominator)
    weights = (alpha * seen.slopes.clamp(min=0)).sum((2, 3), keepdim=True)
    return (weights * seen.maps).sum(1)
