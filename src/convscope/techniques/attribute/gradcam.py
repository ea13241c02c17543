"""Grad-CAM: a layer's channels weighted by the mean gradient of the class score (Selvaraju 2017, section 3).

    alpha_k = mean over positions of dS / dA_k,      L = sum over k of alpha_k A_k

The paper keeps only the positive part of L. Here the sign stays, so that a class with no evidence at all is said
and not shown as black; views show both sides. The coarse map is enlarged bilinearly, as in the paper.
"""

from __future__ import annotations

from torch import Tensor

from convscope.network import Network
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, Seen, activation_map


@technique(
    family="attribute",
    order=2,
    paper="Selvaraju et al. 2017, arXiv:1610.02391, section 3",
    see="Warm regions speak for the class, cold ones against it, as the layer named in the title sees the picture.",
    caution="The map has only as many cells as the layer; its soft edges come from enlarging, not from the network.",
)
def gradcam(network: Network, images: Tensor, *, target: Target = None, layer: Layers = None) -> Heatmap:
    """Where a layer finds evidence for a class: its channels, weighted by their mean gradient.

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
    """(N, h, w): channels weighted by their mean gradient."""
    return (seen.slopes.mean((2, 3), keepdim=True) * seen.maps).sum(1)  # alpha, eq. 1
