"""SmoothGrad: the mean of the gradients of noisy copies of the picture (Smilkov 2017, section 3).

    M = mean over n of dS/dI at I + e_n,      e_n normal with standard deviation s (max I - min I)

The noise is drawn once and is the same for all pictures, so that one does not depend on its neighbours; it is not
clipped to [0, 1], as in the paper. The class is that of the picture without noise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from convscope.errors import OptionError
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.progress import over
from convscope.registry import Layer, Seed, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import OfOption, answers, asked_for, slopes_at, wide
from convscope.techniques.attribute.saliency import Reduce, reduce_colours

Samples = Annotated[int, Field(ge=1, description="noisy copies of each picture, one pass forward and back each")]
Noise = Annotated[float, Field(ge=0, description="standard deviation of the noise, of the picture's range of values")]


@technique(
    family="attribute",
    paper="Smilkov et al. 2017, arXiv:1706.03825, section 3",
    see="As for saliency, with less speckle: bright pixels are those to which the score is sensitive all around.",
    caution="The noise smooths the picture of the slopes, not the network: much noise shows another function.",
)
def smoothgrad(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: OfOption = "score",
    samples: Samples = 50,
    noise: Noise = 0.15,
    reduce: Annotated[
        Reduce, Field(description="over colours: the strongest, the sum, or the Euclidean length")
    ] = "max",
    signed: Annotated[bool, Field(description="keep the sign (with max: that of the strongest colour)")] = False,
    seed: Seed = 0,
) -> Heatmap:
    """How much each pixel moves the score, averaged over noisy copies of the picture.

    Args:
        network: any network; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``score`` before the softmax, ``probability`` or ``loss``.
        samples: how many copies.
        noise: standard deviation, as a share of the picture's largest less its smallest value.
        reduce, signed: over the three colours, as for saliency. ``l2`` has no sign.
        seed: of the noise.

    Returns:
        ``values`` (N, H, W), in score per unit of pixel value.

    Raises:
        UnknownTarget, UnknownLayer; OptionError for a signed length.
    """
    if signed and reduce == "l2":
        raise OptionError("reduce l2 has no sign; use signed with max or sum")
    question = ask(network, target, of=of, layer=layer, unit=unit)
    scores, targets = answers(question, images)
    passes = noisy(question, images, targets, samples, noise, seed)
    means = torch.stack([functools.reduce(torch.add, (part.sum(0) for part in parts)) / samples for parts in passes])
    means = means.to(wide(images).dtype)
    values = reduce_colours(means, reduce, signed)
    return Heatmap(
        values=values, images=images, signed=signed, quantity=f"{asked_for(question)} per unit of pixel value",
        layer=question.layer,
        **describe(question, values, scores, targets),
    )  # fmt: skip


def noisy(
    question: Question, images: Tensor, targets: Tensor, samples: int, noise: float, seed: int
) -> Iterator[Iterator[Tensor]]:
    """For each picture the gradients of its noisy copies, (n, 3, H, W) in float64, a few copies at a time."""
    draws = torch.randn(samples, *images.shape[1:], generator=torch.Generator().manual_seed(seed))
    for image, target in over(zip(wide(images), targets.tolist(), strict=True), "pictures"):
        spread = noise * (image.max() - image.min())
        copies = lambda part, image=image, spread=spread: torch.addcmul(image, draws[part].to(image), spread)  # noqa: E731
        yield (slopes.cpu().double() for _, slopes, _ in slopes_at(question, target, samples, copies))
