"""Image-specific class saliency: the gradient of a score with respect to the pixels.

The derivative of the class score S by the picture I says, to first order, how much S moves with each pixel; its
size is the map: M = max over colours of abs(dS / dI) (Simonyan 2013, section 3).

By default S is the score before the softmax. The probability can rise because the other classes fall, so its
gradient mixes them in (the same section); it and the loss are there on request.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import RULES, GradientRule, gradient
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.network import Network
from convscope.objectives import Of, Question, ask
from convscope.registry import Layer, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe

Reduce = Literal["max", "sum", "l2"]
Rule = Literal["plain", "deconvnet", "guided"]


@technique(
    family="attribute",
    order=1,
    paper="Simonyan, Vedaldi & Zisserman 2013, arXiv:1312.6034, section 3; rules: arXiv:1311.2901, arXiv:1412.6806",
    see=(
        "Bright pixels are those that would change the score most if they moved a little; many should lie on the "
        "object."
    ),
    caution="It is a slope, not a share of the evidence: a pixel that the decision rests on may have a slope of zero.",
)
def saliency(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: Annotated[
        Of,
        Field(
            description="what to differentiate: the class score before the softmax, the probability, or the loss; "
            "the softmax mixes in the other classes, since a probability also rises when they fall"
        ),
    ] = "score",
    reduce: Annotated[
        Reduce, Field(description="over colours: the strongest, the sum, or the Euclidean length")
    ] = "max",
    signed: Annotated[bool, Field(description="keep the sign (with max: that of the strongest colour)")] = False,
    rule: Annotated[Rule, Field(description="what rectifiers do to the gradient on its way back")] = "plain",
) -> Heatmap:
    """How much each pixel's value would move the score: the size of the gradient.

    Args:
        network: any network; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``score`` before the softmax, ``probability`` or ``loss``.
        reduce: over the three colours. ``l2`` has no sign.
        signed: keep signs instead of the size.
        rule: ``plain``; ``deconvnet`` or ``guided`` for the published pictures, which are not gradients any more.

    Returns:
        ``values`` (N, H, W), in score per unit of pixel value.

    Raises:
        UnknownTarget, UnknownLayer, OptionError, RuleError.
    """
    if signed and reduce == "l2":
        raise OptionError("reduce l2 has no sign; use signed with max or sum")
    question = ask(network, target, of=of, layer=layer, unit=unit)
    passes = list(
        batched(
            lambda part: sensitivity(question.of_part(part, len(images)), images[part], RULES[rule]),
            len(images),
            network.at_once(images),
        )
    )
    slopes, scores, targets = (torch.cat(parts) for parts in zip(*passes, strict=True))
    values = reduce_colours(slopes, reduce, signed).cpu()
    quantity = f"{'activation' if question.unit else of} per unit of pixel value"
    return Heatmap(
        values=values, images=images, signed=signed, quantity=quantity, layer=question.layer,
        **describe(question, values, scores, targets),
    )  # fmt: skip


def sensitivity(question: Question, images: Tensor, rule: GradientRule) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3, H, W) derivatives of each picture's score, the scores (N,), and the class indices (N,)."""
    images = images.clone().requires_grad_()
    scores, targets = question.scores(observe(question.network, images, question.layers))
    return gradient(scores, images, rule), scores.detach(), targets


def reduce_colours(slopes: Tensor, reduce: Reduce, signed: bool) -> Tensor:
    """(N, C, H, W) to (N, H, W)."""
    if reduce == "l2":
        return slopes.square().sum(1).sqrt()
    if reduce == "sum":
        return slopes.sum(1) if signed else slopes.abs().sum(1)
    if not signed:
        return slopes.abs().amax(1)  # section 3.1: the strongest colour
    return slopes.gather(1, slopes.abs().argmax(1, keepdim=True))[:, 0]
