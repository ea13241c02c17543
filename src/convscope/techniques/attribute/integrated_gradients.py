"""Integrated gradients: gradients along the straight path from a baseline (Sundararajan 2017, section 3).

    M = (I - B) * integral over a from 0 to 1 of dS/dI at B + a (I - B), summed over colours

Completeness: the map's sum is S(I) - S(B). How far the sum that stands for the integral misses it is said in the
summary; a large error asks for more steps.

Departure: the paper sums at equal steps; here Gauss-Legendre nodes are the default, which need fewer, and midpoints of
equal steps are there on request.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.progress import over
from convscope.registry import Layer, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import (
    BaselineOption,
    OfOption,
    asked_for,
    baseline_of,
    ends,
    slopes_at,
    wide,
    with_completeness,
)  # fmt: skip

Rule = Literal["gauss-legendre", "midpoint"]


@technique(
    family="attribute",
    order=4,
    paper="Sundararajan et al. 2017, arXiv:1703.01365, section 3",
    see="Warm pixels raise the score on the way from the baseline to the picture, cold ones lower it.",
    caution=(
        "What looks like the baseline can have no share: with a black one, black pixels never matter. Compare two "
        "baselines before trusting a detail."
    ),
)
def integrated_gradients(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: OfOption = "score",
    baseline: BaselineOption = "black",
    steps: Annotated[int, Field(ge=1, description="points on the path; more make the completeness error smaller")] = 50,
    rule: Annotated[Rule, Field(description="where the points lie on the path")] = "gauss-legendre",
) -> Heatmap:
    """Each pixel's share in the difference of scores between a picture and one without evidence.

    Args:
        network: any network; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``score`` before the softmax, ``probability`` or ``loss``.
        baseline: ``black``, ``mean`` (the colour that the network subtracts) or ``blur`` (Gaussian, a tenth of the
            longer side).
        steps: points on the path, one forward and backward pass each.
        rule: ``gauss-legendre`` or ``midpoint``.

    Returns:
        ``values`` (N, H, W), signed, in score, summed over colours. Each summary holds ``baseline_score`` and
        ``completeness``: the map's ``sum``, the ``wanted`` difference of scores and the ``error`` between them.

    Raises:
        UnknownTarget, UnknownLayer, OptionError.
    """
    question = ask(network, target, of=of, layer=layer, unit=unit)
    starts = baseline_of(network, wide(images), baseline)
    scores, targets, without = ends(question, images, starts)
    places, weights = nodes(steps, rule)
    values = torch.stack(
        [
            _integrated(question, image, start, target, places, weights)
            for image, start, target in over(zip(wide(images), starts, targets.tolist(), strict=True), "pictures")
        ]
    )
    said = with_completeness(describe(question, values, scores, targets), values, scores, without)
    return Heatmap(
        values=values, images=images, signed=True, quantity=f"share in the {asked_for(question)}",
        layer=question.layer, **said,
    )  # fmt: skip


def nodes(steps: int, rule: Rule) -> tuple[Tensor, Tensor]:
    """Places in [0, 1] and weights that sum to 1, (steps,) each, in float64."""
    if rule == "midpoint":
        return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps, torch.full((steps,), 1 / steps).double()
    places, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((places + 1) / 2), torch.from_numpy(weights / 2)


def _integrated(
    question: Question, image: Tensor, start: Tensor, target: int, places: Tensor, weights: Tensor
) -> Tensor:
    """(H, W) for one picture (3, H, W)."""
    away = image - start
    places, weights = (t.to(image).view(-1, 1, 1, 1) for t in (places, weights))
    total = torch.zeros_like(image)
    for part, slopes, _ in slopes_at(question, target, len(places), lambda part: start + places[part] * away):
        total += (weights[part] * slopes.to(image)).sum(0)
    return (away * total).sum(0).cpu()
