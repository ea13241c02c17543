"""VarGrad: the variance of the gradients of noisy copies of the picture (Adebayo 2018, section 3).

    M = variance over n of dS/dI at I + e_n,      e_n as in SmoothGrad

The same samples as SmoothGrad's, by their spread: where it is large, the slope there depends on details of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.network import Network
from convscope.objectives import ask
from convscope.registry import Layer, Seed, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import OfOption, answers, asked_for, wide
from convscope.techniques.attribute.saliency import reduce_colours
from convscope.techniques.attribute.smoothgrad import Noise, Samples, noisy


@technique(
    family="attribute",
    paper="Adebayo et al. 2018, arXiv:1810.03307, section 3",
    see="Bright pixels are those whose influence changes most when the picture changes a little; edges, mostly.",
    caution="It has no sign and no zero that means absence: a pixel that always matters equally has no variance.",
)
def vargrad(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: OfOption = "score",
    samples: Samples = 50,
    noise: Noise = 0.15,
    reduce: Annotated[Literal["max", "sum"], Field(description="over colours: the largest, or the sum")] = "max",
    seed: Seed = 0,
) -> Heatmap:
    """How much each pixel's influence on the score varies over noisy copies of the picture.

    Args:
        network: any network; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``score`` before the softmax, ``probability`` or ``loss``.
        samples: how many copies.
        noise: standard deviation, as a share of the picture's largest less its smallest value.
        reduce: over the three colours.
        seed: of the noise.

    Returns:
        ``values`` (N, H, W), never negative, in (score per unit of pixel value) squared; over n, not n - 1.

    Raises:
        UnknownTarget, UnknownLayer, OptionError.
    """
    question = ask(network, target, of=of, layer=layer, unit=unit)
    scores, targets = answers(question, images)
    passes = noisy(question, images, targets, samples, noise, seed)
    variances = torch.stack([variance(parts) for parts in passes]).to(wide(images).dtype)
    values = reduce_colours(variances, reduce, signed=False)
    return Heatmap(
        values=values, images=images, signed=False, layer=question.layer,
        quantity=f"variance of {asked_for(question)} per unit of pixel value",
        **describe(question, values, scores, targets),
    )  # fmt: skip


def variance(parts: Iterable[Tensor]) -> Tensor:
    """(...) of all rows of the parts (n, ...), over their number and not one less; one part is held at a time.

    Rows are joined by their means and their squared distances from them (Chan, Golub & LeVeque 1979).
    """
    known, mean, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for part in parts:
        count, middle = len(part), part.mean(0)
        away = middle - mean
        squares = squares + (part - middle).square_().sum(0) + away.square() * (known * count / (known + count))
        known += count
        mean = mean + away * (count / known)
    return squares / known
