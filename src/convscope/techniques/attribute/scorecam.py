"""Score-CAM: channels weighted by the score of the picture seen through them; no gradients (Wang 2020, section 3).

    H_k = A_k enlarged to the picture and scaled to [0, 1],      S_k = score of X * H_k
    w   = softmax over channels of S_k - S_b,                    L = sum over k of w_k A_k

X * H_k dims the picture towards zero as the network gets it, which is its mean colour, as in the paper, whose
pictures are normalised. The score S_b of the baseline is the same for all channels and cancels in the softmax, so it
is not computed. S is the score before the softmax over classes (algorithm 1).

Departures: the sign of L stays, of which the paper keeps the positive part; it is below zero only where the layer is.
A channel that is constant lets no picture through (H_k = 0, where the paper has 0 / 0).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from convscope.batching import batched
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import class_score
from convscope.progress import over
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, Seen, activation_map, enlarged


@technique(
    family="attribute",
    paper="Wang et al. 2020, arXiv:1910.01279, section 3, algorithm 1",
    see="Warm regions are where channels are active that alone keep the class recognisable.",
    caution=(
        "One channel often takes nearly all the weight, for the softmax sharpens; dimming a picture also makes one "
        "that the network never saw. Weights are never negative: nothing in the map speaks against the class."
    ),
)
def scorecam(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layers = None,
    channels: Annotated[
        int | None, Field(ge=1, description="only the channels that vary most, this many; all of them if left out")
    ] = None,
) -> Heatmap:
    """Where a layer finds evidence for a class: channels, weighted by the score of the picture seen through each.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size. Each costs one pass for each channel.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer: any layer with spatial extent, by default the last one before the network pools it away; or several,
            whose maps are scaled to 1 each and averaged.
        channels: how many to use, those of largest variance over positions; the paper uses all.

    Returns:
        ``values`` (N, H, W), signed, in units of the layer's activation, enlarged to the pictures; ``cells`` (N, h, w),
        the layer's own resolution, untouched (None for several layers).

    Raises:
        UnknownTarget, UnknownLayer; OptionError for a layer without spatial extent.
    """
    return activation_map(
        network, images, partial(weighted, most=channels), target=target, layer=layer, slopes=False,
        quantity="activation, weighted by the score seen through it",
    )  # fmt: skip


def weighted(seen: Seen, most: int | None = None) -> Tensor:
    """(N, h, w): channels weighted by the softmax of the scores of the picture behind each."""
    return torch.stack([_one(seen, number, most) for number in over(len(seen.maps), "pictures")])


def _one(seen: Seen, number: int, most: int | None) -> Tensor:
    maps = seen.maps[number]
    if most is not None:
        maps = maps[maps.flatten(1).var(1).argsort(descending=True, stable=True)[:most]]
    image, target = seen.images[number], int(seen.targets[number])
    passes = batched(
        lambda part: _scores_through(seen.question.network, image, maps[part], target),
        len(maps),
        seen.question.network.max_batch,
        "channels",
    )
    weights = torch.cat(list(passes)).to(maps).softmax(0)
    return torch.einsum("k,khw->hw", weights, maps)


def _scores_through(network: Network, image: Tensor, maps: Tensor, target: int) -> Tensor:
    """(M,) scores of a picture (3, H, W), each dimmed by one of M maps."""
    masks = enlarged(maps, (image.shape[-2], image.shape[-1])).to(image.device)
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    masks = torch.where(high > low, (masks - low) / (high - low), 0)[:, None]
    zero = network.mean.to(image.device).view(1, -1, 1, 1)
    dimmed = (zero + (image - zero) * masks).to(image.dtype)
    return class_score(network, target)(observe(network, dimmed, [OUTPUT]))
