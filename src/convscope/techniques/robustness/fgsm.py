"""The fast gradient sign method: one step (Goodfellow et al. 2015)."""

from __future__ import annotations

from torch import Tensor

from convscope.network import Network
from convscope.registry import technique
from convscope.results import Adversarial
from convscope.techniques.robustness._attack import (
    Epsilon,
    Goal,
    Label,
    LossOption,
    NormOption,
    attack,
    budget,
    reported,
    searched,
    task,
)


@technique(
    family="robustness",
    order=2,
    paper="arXiv:1412.6572, section 4",
    see="A pattern of two levels, up and down, that is the same everywhere in size and that the eye takes for grain.",
    caution=(
        "One step says little of a network that holds: what looks robust against it falls to several (pgd), and "
        "training against it alone teaches to hide gradients."
    ),
    quick={"epsilon": 8 / 255},
)
def fgsm(
    network: Network,
    images: Tensor,
    *,
    target: Goal = None,
    label: Label = None,
    epsilon: Epsilon = None,
    norm: NormOption = "linf",
    loss: LossOption = "cross-entropy",
) -> Adversarial:
    """Pictures changed by one step of the whole budget, along the sign of the gradient.

        x + epsilon * sign(gradient of the loss),   cut at 0 and 1

    Args:
        network: a classifier, differentiated in bfloat16 where the device is fast at it, and always judged in float32.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], rounded to 8 bits first.
        target: class to be taken for, instead of any mistake.
        label: class that the pictures are of.
        epsilon: 4/255 in linf and 1 in l2 if left out.
        norm: ``linf``, or ``l2`` for a step along the gradient itself.
        loss: what rises.

    Returns:
        ``values`` (N, 3, H, W): the changed pictures as an 8-bit file holds them, never further than ``epsilon`` from
        ``originals``. Each summary holds ``clean`` and ``adversarial`` predictions, ``success``, the probabilities of
        both classes before and after, and the distances ``linf``, ``l2`` and ``l0`` (pixels).

    Raises:
        UnknownTarget; OptionError for an epsilon out of range and for a target that the picture already is.
    """
    epsilon, job = budget(epsilon, norm, images), task(network, images, label, target)
    pictures = searched(
        job,
        lambda part, _: attack(
            network.drawing, part.originals, part.classes, epsilon=epsilon, norm=norm, steps=1, rate=epsilon,
            targeted=target is not None, loss=loss,
        ),
        epsilon=epsilon,
        norm=norm,
    )  # fmt: skip
    return reported(job, pictures, epsilon=epsilon, norm=norm)
