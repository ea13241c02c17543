"""The figure of every lecture: two pictures that look alike, and the network's answers that have nothing in common.

Szegedy et al. (2014) found that this can be done; the way here is that of Kurakin et al. (2017), one level of the 8-bit
file at a time, which ends as soon as the file fools the network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.batching import batched
from convscope.defences import Defence
from convscope.errors import OptionError
from convscope.images import fit
from convscope.network import Network
from convscope.objectives import Loss, mistaken
from convscope.optimize import optimize
from convscope.parameterizations import EpsilonBall, Norm
from convscope.registry import Fraction, Seed, technique
from convscope.results import Adversarial
from convscope.techniques.robustness._attack import (
    LEVEL,
    Epsilon,
    Goal,
    Label,
    LossOption,
    NormOption,
    Steps,
    Task,
    budget,
    logits_of,
    quantised,
    reported,
    steepest,
    task,
)

BUDGETS: dict[Norm, float] = {"linf": 8 / 255, "l2": 4.0}
SHORT = 1 / 40  # of the budget: a step in l2


@technique(
    family="robustness",
    order=1,
    paper="arXiv:1312.6199; arXiv:1607.02533, section 2.2",
    see=(
        "The two pictures look alike and the bars do not. The difference is almost grey; tenfold it shows a pattern "
        "that has little to do with what is in the picture."
    ),
    caution=(
        "The file fools this network at the size at which it sees it. Another network, a rescaled file or a print may "
        "not be fooled, and a budget that suffices on one photograph says nothing of the next."
    ),
    quick={"steps": 3},
)
def fool(
    network: Network,
    images: Tensor | None = None,
    *,
    target: Goal = None,
    label: Label = None,
    start: Annotated[
        Literal["grey", "noise"] | None,
        Field(description="what to begin with where there is no photograph; grey if left out"),
    ] = None,
    epsilon: Epsilon = None,
    norm: NormOption = "linf",
    confidence: Annotated[
        float, Field(ge=0, lt=1, description="probability at which it is content; 0 stops at the first mistake")
    ] = 0.9,
    steps: Annotated[Steps, Field(description="steps at most, two passes each")] = 60,
    rate: Annotated[
        Fraction | None, Field(description="length of a step; 1/255 in linf and a fortieth of the budget in l2")
    ] = None,
    loss: LossOption = "cross-entropy",
    own_size: Annotated[
        bool,
        Field(
            description="change the photograph at its own size, through the network's scaling and cropping, so that "
            "the file fools it wherever it is read as a photograph is"
        ),
    ] = False,
    seed: Seed = 0,
) -> Adversarial:
    """A picture of anything, changed within a budget until the network takes it for anything else.

    Args:
        network: a classifier, differentiated in bfloat16 where the device is fast at it, and always judged in float32.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], rounded to 8 bits first; or nothing, see ``start``.
        target: class that the picture shall be taken for; any other than its own if left out.
        label: class that the picture is of.
        start: mid-grey, or uniform noise by ``seed``.
        epsilon: budget: 8/255 in linf and 4 in l2 if left out.
        norm: of budget and steps.
        confidence: probability of the wrong class at which it ends, in the 8-bit file. What fools with less after all
            steps counts as fooled as well.
        steps, rate, loss: of the ascent.
        own_size: take pictures of any size, and let ``network.prepare`` be a part of what is fooled.

    Returns:
        ``values`` (N, 3, H, W): the changed pictures as an 8-bit file holds them, never further than ``epsilon`` from
        ``originals``. Each summary holds ``clean`` and ``adversarial`` predictions, ``success``, the probabilities of
        both classes before and after, and the distances ``linf``, ``l2`` and ``l0`` (pixels).

    Raises:
        UnknownTarget; OptionError for an epsilon out of range, a target that the picture already is, and a photograph
        together with a ``start``.

    Departures from the papers: the file is rounded to 8 bits within the ball and asked about after every step.
    """
    images = _begun(network, images, start, seed)
    network = _with_preparation(network) if own_size else network
    epsilon, job = budget(epsilon, norm, images, BUDGETS), task(network, images, label, target)
    rate = (LEVEL if norm == "linf" else epsilon * SHORT) if rate is None else rate

    def run(part: slice) -> Tensor:
        chosen = job.part(torch.arange(len(job.originals))[part])
        return _until_fooled(chosen, epsilon, norm, steps, rate, confidence, loss)

    pictures = torch.cat(list(batched(run, len(images), network.at_once(images))))
    return reported(job, pictures, epsilon=epsilon, norm=norm)


def _begun(network: Network, images: Tensor | None, start: str | None, seed: int) -> Tensor:
    """The pictures, or the one that stands for them."""
    if images is not None and start is not None:
        raise OptionError(f"give a photograph, or start {start!r}, not both")
    if images is not None:
        return images
    if start == "noise":
        return torch.rand(1, 3, *network.input_size, generator=torch.Generator().manual_seed(seed))
    return torch.full((1, 3, *network.input_size), 0.5)


def _with_preparation(network: Network) -> Network:
    """The network on pictures of any size, which are scaled and cropped first, with a derivative."""

    def prepared(images: Tensor, generator: torch.Generator) -> Tensor:
        return fit(images, network.input_size, crop=network.crop)

    behind = network.defence
    first = Defence("scaled and cropped", [prepared])
    whole = first if behind is None else replace(behind, parts=[prepared, *behind.parts])
    return replace(network.defended(whole), crop=1.0)


def _until_fooled(
    job: Task, epsilon: float, norm: Norm, steps: int, rate: float, confidence: float, loss: Loss
) -> Tensor:  # fmt: skip
    """For each picture the first file that the network is sure enough of, or the best of all."""
    network = job.network.drawing
    ball = EpsilonBall(job.originals.to(network.device), epsilon, norm=norm)
    objective = mistaken(network, job.classes, targeted=job.targets is not None, loss=loss)
    best, sure = job.originals.clone(), torch.full((len(job.originals),), -torch.inf, dtype=job.clean.dtype)
    for step in optimize(network, objective, ball, steps=steps, optimizer=steepest(norm), rate=rate):
        made = quantised(job.originals, step.images.cpu(), epsilon, norm)
        now = _sureness(job, logits_of(job.network, made))
        better = (now > sure) & (sure < confidence)
        best[better], sure[better] = made[better], now[better]
        if bool((sure >= confidence).all()):
            break
    return best


def _sureness(job: Task, logits: Tensor) -> Tensor:
    """(N,): the probability of the wrong class where the network is fooled; below zero by how far it is from that."""
    margins = job.margins(logits)
    return torch.where(margins > 0, logits.softmax(1).amax(1), margins.clamp(max=0))
