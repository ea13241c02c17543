"""HiResCAM: activations times their gradients, cell by cell (Draelos & Carin 2020).

    L_ij = sum over k of dS/dA_k,ij A_k,ij

Grad-CAM averages the gradient of a channel over positions first, and so can highlight places that the score does not
use. Without the averaging the sum of the map is exactly the score less its bias, where the network behind the layer is
linear (one fully connected layer), and equal to CAM's where that is a global average pooling and a linear layer.

Departure: the sign of L stays, of which the paper keeps the positive part for drawing.
"""

from __future__ import annotations

from torch import Tensor

from convscope.network import Network
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, Seen, activation_map


@technique(
    family="attribute",
    paper="Draelos & Carin 2020, arXiv:2011.08891",
    see=(
        "Warm cells are those whose activations raised the score, cold ones lowered it; where Grad-CAM is warm "
        "and this is not, Grad-CAM misled."
    ),
    caution="Exact for a linear classifier on the layer; on earlier layers it is a first-order guess, and noisy.",
)
def hirescam(network: Network, images: Tensor, *, target: Target = None, layer: Layers = None) -> Heatmap:
    """Which cells of a layer the score really used: activations times their gradients, not averaged.

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
    """(N, h, w): activations times their gradients."""
    return (seen.slopes * seen.maps).sum(1)
