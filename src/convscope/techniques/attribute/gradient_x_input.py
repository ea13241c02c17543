"""Gradient times input: the first-order share of each pixel in the score (Shrikumar 2016, section 2).

    M = (I - B) * dS / dI, summed over colours

B is what counts as nothing: black by default; with the network's mean colour the map is that of the normalised
picture, which most other libraries show. For a network that is linear the map's sum is S(I) - S(B).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import PLAIN
from convscope.batching import batched
from convscope.network import Network
from convscope.objectives import ask
from convscope.registry import Layer, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import OfOption, asked_for, baseline_of, wide
from convscope.techniques.attribute.saliency import sensitivity


@technique(
    family="attribute",
    paper="Shrikumar et al. 2016, arXiv:1605.01713, section 2",
    see="Warm pixels raise the score by being what they are, cold ones lower it; fine and noisy.",
    caution="A dark pixel can have no share however much it matters, for its distance to black is zero.",
)
def gradient_x_input(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: OfOption = "score",
    baseline: Annotated[
        Literal["black", "mean"], Field(description="what counts as nothing: black, or the network's mean colour")
    ] = "black",
) -> Heatmap:
    """Each pixel's share in the score to first order: its value times its gradient.

    Args:
        network: any network; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``score`` before the softmax, ``probability`` or ``loss``.
        baseline: what counts as nothing.

    Returns:
        ``values`` (N, H, W), signed, in score, summed over colours.

    Raises:
        UnknownTarget, UnknownLayer, OptionError.
    """
    question = ask(network, target, of=of, layer=layer, unit=unit)
    passes = list(
        batched(
            lambda part: sensitivity(question.of_part(part, len(images)), images[part], PLAIN),
            len(images),
            network.max_batch,
        )
    )
    slopes, scores, targets = (torch.cat(parts) for parts in zip(*passes, strict=True))
    away = wide(images) - baseline_of(network, wide(images), baseline)
    values = (away.to(slopes.device) * slopes).sum(1).cpu()
    return Heatmap(
        values=values, images=images, signed=True, quantity=f"share in the {asked_for(question)}",
        layer=question.layer,
        **describe(question, values, scores, targets),
    )  # fmt: skip
