"""DeepFool: how far it is to the nearest decision boundary (Moosavi-Dezfooli et al. 2016)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import gradient
from convscope.batching import batched
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import margins
from convscope.optimize import optimize
from convscope.parameterizations import Norm, Pixels
from convscope.registry import technique
from convscope.results import Adversarial
from convscope.techniques.robustness._attack import (
    Label,
    NormOption,
    Steps,
    Task,
    exact,
    logits_of,
    quantised,
    reported,
    task,
)

GROWTH, MOST = 1.07, 60  # how much further the file is sought each time, and how often: up to 58 times as far


@technique(
    family="robustness",
    order=4,
    paper="arXiv:1511.04599, section 2 and algorithm 2",
    see="How little it takes at least: the change is fainter than that of a budget, and the bars are nearly even.",
    caution=(
        "It follows straight lines towards boundaries that are bent, so the true distance may be shorter, and it is "
        "the distance to a mistake that the network is hardly sure of."
    ),
    quick={"steps": 3, "candidates": 3},
)
def deepfool(
    network: Network,
    images: Tensor,
    *,
    label: Label = None,
    norm: NormOption = "l2",
    candidates: Annotated[
        int, Field(ge=2, description="most probable classes whose boundaries are considered, the own one among them")
    ] = 10,
    overshoot: Annotated[float, Field(ge=0, description="share by which each step goes beyond the boundary")] = 0.02,
    steps: Steps = 50,
) -> Adversarial:
    """Pictures changed as little as possible, until they have just crossed the nearest boundary of their class.

    Each step goes where the boundaries would be if the logits f were linear. With w = the gradient of f_k - f_label, it
    is to the class k whose |f_k - f_label| / ||w|| is the smallest, by that distance along w in ``l2``; in ``linf``
    the length is over the sum of absolute values, and the step along the sign. It ends when the label changes.

    Args:
        network: a classifier, in float32, since a distance is a small difference.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], rounded to 8 bits first.
        label: class that the pictures are of. What is taken for another at once is left as it is.
        norm: in which the distance is measured.
        candidates: classes that are tried, the cost of a step in passes back.
        overshoot: as in the paper, 0.02.
        steps: at most.

    Returns:
        ``values`` (N, 3, H, W): the changed pictures as an 8-bit file holds them, further along the same line where
        rounding undid the crossing. Each summary holds ``boundary``, the distance before rounding in ``norm``,
        ``robustness``, that over the picture's own length in ``norm``, ``clean`` and ``adversarial`` predictions,
        ``success``, the probabilities of both classes before and after, and the distances ``linf``, ``l2`` and ``l0``
        (pixels).

    Raises:
        UnknownTarget.

    Departures from the paper: pictures stay in [0, 1], and the overshoot is part of each step and not of the sum.
    """
    job = task(network, images, label)

    def run(part: slice) -> Tensor:
        chosen = job.part(torch.arange(len(job.originals))[part])
        return _crossed(chosen, norm, min(candidates, job.clean.shape[1]), overshoot, steps)

    crossed = torch.cat(list(batched(run, len(images), network.at_once(images))))
    away = _length(crossed - job.originals, norm)
    share = away / _length(job.originals, norm).clamp(min=1e-12)
    more = [{"boundary": a, "robustness": s} for a, s in zip(away.tolist(), share.tolist(), strict=True)]
    lines = [f"boundary {a:.3g} away in {norm}, before rounding" for a in away.tolist()]
    return reported(job, _further(job, crossed, norm), norm=norm, more=more, lines=lines)


def _length(change: Tensor, norm: Norm) -> Tensor:
    return change.flatten(1).norm(dim=1, p=2 if norm == "l2" else torch.inf)


def _crossed(job: Task, norm: Norm, candidates: int, overshoot: float, steps: int) -> Tensor:
    """Pictures of floating point on the other side of a boundary, if all went well."""
    network = exact(job.network)
    device = network.device
    dtype = next((p.dtype for p in network.module.parameters()), torch.float32)
    wide = torch.promote_types(dtype, torch.float32)  # of float64 networks the distance is as fine as they are
    pixels = Pixels(job.originals.to(device, wide))
    nearest = Nearest(job.labels.to(device), job.clean.topk(candidates).indices.to(device), norm, 1 + overshoot)
    for step in optimize(network, nearest, pixels, steps=steps, optimizer="sgd", rate=1.0):
        if bool((step.score > 0).all()):
            break
    return pixels.images().detach().cpu()


class Nearest:
    """The margin by which the label is lost, and instead of its slope the whole step to the nearest linear boundary.

    Args:
        labels: (N,) whose loss is wanted.
        classes: (N, K) whose boundaries are considered; the label among them is passed over.
        norm: in which the nearest is the nearest.
        factor: of the step.
    """

    def __init__(self, labels: Tensor, classes: Tensor, norm: Norm, factor: float) -> None:
        self._labels, self._classes, self._norm, self._factor = labels, classes, norm, factor

    def sweep(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) margins, above zero once the label is lost, and (N, 3, H, W) steps, zero from then on."""
        images = images.detach().requires_grad_()
        logits = network.check_logits(observe(network, images, [OUTPUT])[OUTPUT])
        own = logits.gather(1, self._labels[:, None])[:, 0]
        nearest = torch.full_like(own, torch.inf)
        steps = torch.zeros_like(images)
        for place in range(self._classes.shape[1]):
            other = self._classes[:, place]
            missing = logits.gather(1, other[:, None])[:, 0] - own
            slope = gradient(missing, images, retain_graph=True)
            length, way = self._way(slope)
            distance = torch.where((length > 0) & (other != self._labels), missing.abs() / length, torch.inf)
            closer = distance < nearest
            step = self._factor * distance.view(-1, 1, 1, 1) * way
            steps = torch.where(closer.view(-1, 1, 1, 1), step, steps)
            nearest = torch.where(closer, distance, nearest)
        lost = margins(logits.detach(), self._labels)
        return lost, torch.where((lost > 0).view(-1, 1, 1, 1), 0, steps).detach()

    def _way(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """What a distance is over, and the direction of length 1 in which it is the shortest."""
        if self._norm == "linf":
            return slope.abs().flatten(1).sum(1), slope.sign()
        length = slope.flatten(1).norm(dim=1)
        return length, slope / length.clamp(min=1e-30).view(-1, 1, 1, 1)


def _further(job: Task, crossed: Tensor, norm: Norm) -> Tensor:
    """8-bit pictures along the same lines, each as far out as it takes for the file to fool the network."""
    found = job.originals.clone()
    left = torch.arange(len(found))
    for number in range(MOST):
        part = job.part(left)
        change = GROWTH**number * (crossed[left].float() - part.originals)
        most = 1.0 if norm == "linf" else change[0].numel() ** 0.5
        made = quantised(part.originals, part.originals + change, most, norm)
        fooled = part.margins(logits_of(job.network, made)) > 0
        found[left] = made
        left = left[~fooled]
        if not len(left):
            break
    return found
