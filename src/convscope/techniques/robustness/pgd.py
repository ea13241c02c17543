"""Projected gradient descent: the strongest attack that knows no more than gradients (Madry et al. 2018)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from convscope.network import Network
from convscope.registry import Fraction, Seed, technique
from convscope.results import Adversarial
from convscope.techniques.robustness._attack import (
    Epsilon,
    Goal,
    Label,
    LossOption,
    NormOption,
    Steps,
    Task,
    attack,
    budget,
    reported,
    searched,
    started,
    task,
)


@technique(
    family="robustness",
    order=3,
    paper="arXiv:1706.06083, section 2.1; momentum arXiv:1710.06081; margin arXiv:1608.04644, section IV",
    see="How little it takes: both pictures look alike, and the bars have changed places.",
    caution=(
        "Where it fails, another attack may not: it proves that a network can be fooled, never that it cannot. The "
        "file is judged at the size at which the network sees it; scaling or a print may undo the change."
    ),
    quick={"steps": 2, "epsilon": 8 / 255},
)
def pgd(
    network: Network,
    images: Tensor,
    *,
    target: Goal = None,
    label: Label = None,
    epsilon: Epsilon = None,
    norm: NormOption = "linf",
    steps: Steps = 20,
    rate: Annotated[Fraction | None, Field(description="length of a step; 2.5 epsilon / steps if left out")] = None,
    random_start: Annotated[bool, Field(description="begin at a random place of the ball, not at the picture")] = True,
    restarts: Annotated[int, Field(ge=1, description="tries from other places for pictures that hold")] = 1,
    momentum: Annotated[float, Field(ge=0, description="share of earlier gradients that a step keeps")] = 0.0,
    loss: LossOption = "cross-entropy",
    seed: Seed = 0,
) -> Adversarial:
    """Pictures that are changed within a budget, step by step, until the network errs as much as it can.

        x <- projection of x + rate * direction(gradient of the loss)

    on the ball of ``epsilon`` around the picture and on [0, 1]; the direction is the gradient's sign in ``linf`` and
    the gradient over its length in ``l2``.

    Args:
        network: a classifier, attacked in bfloat16 where the device is fast at it, and always judged in float32.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], rounded to 8 bits first.
        target: class to be taken for, instead of any mistake.
        label: class that the pictures are of.
        epsilon: 4/255 in linf and 1 in l2 if left out.
        norm, steps, rate, momentum, loss: of the attack.
        random_start, restarts: where it begins, by ``seed`` + the number of the try, for all pictures alike.

    Returns:
        ``values`` (N, 3, H, W): the changed pictures as an 8-bit file holds them, never further than ``epsilon`` from
        ``originals``. Each summary holds ``clean`` and ``adversarial`` predictions, ``success``, the probabilities of
        both classes before and after, and the distances ``linf``, ``l2`` and ``l0`` (pixels).

    Raises:
        UnknownTarget; OptionError for an epsilon out of range and for a target that the picture already is.

    Departures from the paper: rounding to 8 bits within the ball, and tries end with the first that fools.
    """
    epsilon, job = budget(epsilon, norm, images), task(network, images, label, target)

    def make(part: Task, number: int) -> Tensor:
        start = started(part.originals, epsilon, norm, seed + number) if random_start or number else None
        return attack(
            network.drawing, part.originals, part.classes, epsilon=epsilon, norm=norm, steps=steps, rate=rate,
            targeted=target is not None, loss=loss, momentum=momentum, start=start,
        )  # fmt: skip

    pictures = searched(job, make, epsilon=epsilon, norm=norm, restarts=restarts)
    return reported(job, pictures, epsilon=epsilon, norm=norm)
