"""Guided Grad-CAM: guided backpropagation where Grad-CAM is positive (Selvaraju 2017, section 3.2).

    M = G * max(L, 0)        for each pixel and colour

G is the guided gradient of the score by the picture (Springenberg 2014), L the Grad-CAM map, enlarged bilinearly. The
product has the fine lines of the one and the class of the other. Here the positive part of L is kept as published, for
the product of two negative numbers would look like evidence; the sign of M is that of G.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import GUIDED
from convscope.batching import batched
from convscope.network import Network
from convscope.objectives import ask
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import Layers, activation_map
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute.gradcam import weighted
from convscope.techniques.attribute.saliency import Reduce, reduce_colours, sensitivity


@technique(
    family="attribute",
    paper="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2; rule: Springenberg et al. 2014, arXiv:1412.6806",
    see="Fine lines of the object, and only of the object, that the class score rests on.",
    caution=(
        "Its lines are those of guided backpropagation, which hardly change when the weights are random "
        "(Adebayo et al. 2018): only where they are says something about the class."
    ),
)
def guided_gradcam(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layers = None,
    reduce: Annotated[
        Reduce, Field(description="over colours: the strongest, the sum, or the Euclidean length")
    ] = "max",
) -> Heatmap:
    """The fine lines of guided backpropagation, where Grad-CAM finds evidence for the class.

    Args:
        network: a classifier with rectifiers.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer: of Grad-CAM: any layer with spatial extent, by default the last one before the network pools it away; or
            several.
        reduce: over the three colours; ``max`` and ``sum`` keep the sign.

    Returns:
        ``values`` (N, H, W), in score squared per unit of pixel value; signed, but for ``l2``.

    Raises:
        UnknownTarget, UnknownLayer, RuleError; OptionError for a layer without spatial extent.
    """
    coarse = activation_map(network, images, weighted, target=target, layer=layer)
    question = ask(network, target)
    passes = list(
        batched(
            lambda part: sensitivity(question.of_part(part, len(images)), images[part], GUIDED),
            len(images),
            network.max_batch,
        )
    )
    lines, scores, targets = (torch.cat(parts) for parts in zip(*passes, strict=True))
    product = lines.cpu() * coarse.values.clamp(min=0)[:, None]
    signed = reduce != "l2"
    values = reduce_colours(product, reduce, signed)
    return replace(
        coarse, values=values, cells=None, signed=signed, quantity="guided gradient times positive Grad-CAM",
        **describe(question, values, scores, targets),
    )  # fmt: skip
