"""Ablation-CAM: channels weighted by what the score loses without each (Desai & Ramaswamy 2020).

    w_k = S - S_k,      L = sum over k of w_k A_k

S_k is the score with channel k of the layer set to zero: no gradients, one pass for each channel, exact. Only what
lies behind the layer runs for all of them, and a channel that is zero anyway loses nothing and runs not at all.

Departures: the paper divides all weights by S; that is one factor for a whole map, which turns its sign where S is
negative, and is left out. The sign of L stays, of which the paper keeps the positive part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convscope.batching import batched
from convscope.errors import NetworkError
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import class_score
from convscope.progress import over
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, Seen, activation_map


@technique(
    family="attribute",
    paper="Desai & Ramaswamy 2020, Ablation-CAM, WACV",
    see="Warm regions are where channels are active that the score cannot do without, cold ones where it would gain.",
    caution=(
        "Channels are removed one at a time: two that stand in for each other both look useless. Zero need not mean "
        "absent on a layer that is not behind a rectifier."
    ),
)
def ablationcam(network: Network, images: Tensor, *, target: Target = None, layer: Layers = None) -> Heatmap:
    """Where a layer finds evidence for a class: its channels, weighted by what the score loses without each.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer: any layer with spatial extent, by default the last one before the network pools it away; or several,
            whose maps are scaled to 1 each and averaged.

    Returns:
        ``values`` (N, H, W), signed, in score times activation, enlarged to the pictures; ``cells`` (N, h, w), the
        layer's own resolution, untouched (None for several layers).

    Raises:
        UnknownTarget, UnknownLayer; OptionError for a layer without spatial extent.
    """
    return activation_map(
        network, images, weighted, target=target, layer=layer, slopes=False,
        quantity="activation times loss of score",
    )  # fmt: skip


def weighted(seen: Seen) -> Tensor:
    """(N, h, w): channels weighted by what the score loses without them."""
    weights = torch.stack([_losses(seen, number) for number in over(len(seen.maps), "pictures")])
    return (weights[:, :, None, None] * seen.maps).sum(1)


def _losses(seen: Seen, number: int) -> Tensor:
    """(C,) what the score of one picture loses without each channel."""
    losses = seen.maps.new_zeros(seen.maps.shape[1])
    busy = seen.maps[number].flatten(1).any(1).nonzero()[:, 0]
    if len(busy):
        network = seen.question.network
        passes = batched(
            lambda part: _scores_without(seen, number, busy[part]), len(busy), network.max_batch, "channels"
        )
        losses[busy] = seen.scores[number].to(losses) - torch.cat(list(passes)).to(losses)
    return losses


def _scores_without(seen: Seen, number: int, channels: Tensor) -> Tensor:
    """(M,) scores of one picture, each with one of M channels set to zero."""
    network, count = seen.question.network, len(channels)
    ablated = seen.activation[number : number + 1].repeat(count, *[1] * (seen.activation.ndim - 1))
    network.maps(seen.layer, ablated)[torch.arange(count), channels] = 0  # a view
    logits = network.check_logits(_behind(network, seen.images[number : number + 1], seen.layer, ablated))
    return class_score(network, int(seen.targets[number]))({OUTPUT: logits})


def _behind(network: Network, image: Tensor, layer: str, outputs: Tensor) -> Tensor:
    """What the network returns for M outputs of a layer on one picture (1, 3, H, W)."""
    try:
        found = observe(network, image, [OUTPUT], replace={layer: outputs})[OUTPUT]
        if len(found) == len(outputs):
            return found
    except NetworkError:
        pass  # something goes past the layer and does not broadcast, as in a concatenation
    return observe(network, image.expand(len(outputs), -1, -1, -1), [OUTPUT], replace={layer: outputs})[OUTPUT]
