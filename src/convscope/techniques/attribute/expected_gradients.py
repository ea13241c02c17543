"""Expected gradients: integrated gradients from many baselines, by chance (Erion 2021).

    M = mean over n of (I - B_n) * dS/dI at B_n + a_n (I - B_n),      a_n uniform in [0, 1], summed over colours

The map's sum comes to S(I) less the mean of S(B_n) as the samples grow; how far it misses that is said in the summary.

Departure: the paper draws baselines from the training data. Pictures of a batch must not mix here, so a baseline is
either the picture itself, blurred by a random width, or noise, uniform in [0, 1]. The draws are the same for all
pictures; a_n lies in the n-th of equal parts of [0, 1], in random order, which lowers the variance and keeps the mean.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.batching import batched
from convscope.hooks import observe
from convscope.images import blurred
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.progress import over
from convscope.registry import Layer, Seed, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import (
    OfOption,
    answers,
    asked_for,
    slopes_at,
    wide,
    with_completeness,
)  # fmt: skip

Kind = Literal["blur", "noise"]
WIDTHS = (0.02, 0.2)  # standard deviations of blurred baselines, of the longer side


@technique(
    family="attribute",
    paper="Erion et al. 2021, arXiv:1906.10670",
    see="Warm pixels raise the score above that of pictures without their detail, cold ones lower it.",
    caution="The choice of baselines is a choice of question: blurred ones ask about detail, noise about everything.",
)
def expected_gradients(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: OfOption = "score",
    baselines: Annotated[
        Kind, Field(description="pictures without evidence: the picture blurred by random widths, or noise")
    ] = "blur",
    samples: Annotated[int, Field(ge=1, description="baselines, one pass forward and back each")] = 50,
    seed: Seed = 0,
) -> Heatmap:
    """Each pixel's share in the difference of scores between a picture and many without evidence, on average.

    Args:
        network: any network; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``score`` before the softmax, ``probability`` or ``loss``.
        baselines: ``blur`` or ``noise``.
        samples: how many baselines, each with one point on its path.
        seed: of baselines and points.

    Returns:
        ``values`` (N, H, W), signed, in score, summed over colours. Each summary holds ``baseline_score``, the mean
        over baselines, and ``completeness``: the map's ``sum``, the ``wanted`` difference of scores and the ``error``.

    Raises:
        UnknownTarget, UnknownLayer, OptionError.
    """
    question = ask(network, target, of=of, layer=layer, unit=unit)
    scores, targets = answers(question, images)
    draws = Draws(samples, baselines, seed)
    found = [
        _expected(question, image, target, draws)
        for image, target in over(zip(wide(images), targets.tolist(), strict=True), "pictures")
    ]
    values, without = torch.stack([heat for heat, _ in found]), torch.stack([base for _, base in found])
    said = with_completeness(describe(question, values, scores, targets), values, scores, without)
    return Heatmap(
        values=values, images=images, signed=True, quantity=f"share in the {asked_for(question)}",
        layer=question.layer, **said,
    )  # fmt: skip


class Draws:
    """Everything random: few numbers, of which baselines are made when they are needed."""

    def __init__(self, count: int, kind: Kind, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        parts = torch.randperm(count, generator=generator)
        self.count, self._kind, self._seed = count, kind, seed
        self.places = (parts + torch.rand(count, generator=generator)) / count
        low, high = WIDTHS
        self._widths = (low * (high / low) ** torch.rand(count, generator=generator)).tolist()

    def baselines(self, image: Tensor, part: slice) -> Tensor:
        """(M, 3, H, W) for a picture (3, H, W)."""
        return torch.stack([self._baseline(image, number) for number in range(self.count)[part]])

    def _baseline(self, image: Tensor, number: int) -> Tensor:
        if self._kind == "blur":
            return blurred(image[None], self._widths[number] * max(image.shape[1:]))[0]
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        return torch.rand(image.shape, generator=generator).to(image)


def _expected(question: Question, image: Tensor, target: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """(H, W), and the mean score of the baselines, for one picture (3, H, W)."""
    places = draws.places.to(image).view(-1, 1, 1, 1)

    def between(part: slice) -> Tensor:
        starts = draws.baselines(image, part)
        return starts + places[part] * (image - starts)

    total = torch.zeros_like(image)
    for part, slopes, _ in slopes_at(question, target, draws.count, between):
        total += ((image - draws.baselines(image, part)) * slopes.to(image)).sum(0)
    network, asked = question.network, replace(question, target=target)
    bases = batched(
        lambda part: asked.scores(observe(network, draws.baselines(image, part), question.layers))[0],
        draws.count,
        network.max_batch,
    )
    return (total.sum(0) / draws.count).cpu(), torch.cat(list(bases)).float().mean().cpu()
