"""One change that fools a network on most pictures, also on those that it was not made from (Moosavi-Dezfooli 2017)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import gradient
from convscope.batching import batched
from convscope.hooks import OUTPUT, observe
from convscope.intervals import proportion
from convscope.network import Network
from convscope.objectives import class_score
from convscope.optimize import optimize
from convscope.parameterizations import Norm, SharedChange
from convscope.registry import Fraction, Seed, technique
from convscope.results import Adversarial
from convscope.techniques.robustness._attack import (
    Epsilon,
    NormOption,
    Task,
    budget,
    distances,
    logits_of,
    on_grid,
    quantised,
    reported,
    steepest,
    task,
)

BUDGETS: dict[Norm, float] = {"linf": 8 / 255, "l2": 8.0}
ENOUGH = 5.0  # of cross-entropy: a picture that is mistaken by so much is left in peace
MOMENTUM = 0.9


@technique(
    family="robustness",
    order=6,
    paper="arXiv:1610.08401; by gradients over batches, arXiv:1811.11304, section 3",
    see=(
        "The same pattern in every difference. What is left of its success on pictures that it has never seen says how "
        "universal it is: made from few, it knows them by heart; from many, it finds what all have in common."
    ),
    caution=(
        "The rate is of pictures like the given ones, and its interval says how few they are. A change of label counts "
        "as fooled whether or not the label was right before."
    ),
    quick={"rounds": 2},
    together=True,
)
def universal(
    network: Network,
    images: Tensor,
    *,
    epsilon: Epsilon = None,
    norm: NormOption = "linf",
    held_out: Annotated[
        float, Field(ge=0, lt=1, description="share of the pictures that it is not made from, only tried on")
    ] = 0.3,
    rounds: Annotated[int, Field(ge=1, description="how often it sees each picture that it is made from")] = 10,
    batch: Annotated[int, Field(ge=1, description="pictures a step")] = 16,
    rate: Annotated[Fraction | None, Field(description="length of a step; a tenth of epsilon if left out")] = None,
    seed: Seed = 0,
) -> Adversarial:
    """One change for a whole folder of pictures, and how often it fools the network on others that it has never seen.

    Steps along the direction that makes the network err most on a few pictures at a time, with momentum, back into the
    ball of ``epsilon`` after each. Which pictures are held out is drawn by ``seed``.

    Args:
        network: a classifier, differentiated in bfloat16 where the device is fast at it, and always judged in float32.
        images: (N, 3, H, W) in [0, 1], rounded to 8 bits first.
        epsilon: 8/255 in linf and 8 in l2 if left out.
        norm: of budget and steps.
        held_out: of one picture none is.
        rounds, batch, rate: of the ascent.

    Returns:
        ``values`` (M, 3, H, W): the held-out pictures with the change, as an 8-bit file holds them; all pictures where
        none is held out. ``change`` (1, 3, H, W) in whole levels. The summary holds ``fooled`` with the share of
        held-out and of seen pictures whose label changes, each with a 95 % interval, the labels that the first are
        ``taken_for`` most often, and the distances ``linf``, ``l2`` and ``l0`` (pixels) of the change.

    Raises:
        OptionError for an epsilon out of range.

    Departures from the first paper: it sums up DeepFool steps of one picture after the other; here batches climb a
    cross-entropy that stops counting where a picture is mistaken by enough, as in the second, which is far quicker.
    """
    epsilon, job = budget(epsilon, norm, images, BUDGETS), task(network, images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    apart = min(round(held_out * len(images)) or int(held_out > 0), len(images) - 1)
    seen, unseen = order[apart:], order[:apart]
    rate = epsilon / 10 if rate is None else rate
    change = _climbed(job.part(seen), epsilon, norm, rounds, batch, rate, seed)
    pictures = on_grid(job.originals + change)
    summary = _summary(job, change, logits_of(network, pictures).argmax(1), seen, unseen)
    shown = unseen if len(unseen) else seen
    found = reported(job.part(shown), pictures[shown], norm=norm)
    return replace(
        found, summaries=[{**summary, "epsilon": epsilon, "norm": norm}], per_picture=False, change=change,
        places=shown.tolist(), notes=[*_notes(summary), *found.notes],
    )  # fmt: skip


class _InParts:
    """Cross-entropy up to :data:`ENOUGH`, over a batch in passes that fit."""

    def __init__(self, classes: Tensor, shared: SharedChange) -> None:
        self._classes, self._shared = classes, shared

    def sweep(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) scores and (N, 3, H, W) slopes."""
        labels = self._classes[self._shared.chosen]

        def run(part: slice) -> tuple[Tensor, Tensor]:
            pixels = images[part].detach().requires_grad_()
            score = class_score(network, labels[part], "loss")(observe(network, pixels, [OUTPUT])).clamp(max=ENOUGH)
            return score.detach(), gradient(score, pixels)

        found = list(batched(run, len(images), network.at_once(images)))
        return torch.cat([score for score, _ in found]), torch.cat([slope for _, slope in found])


def _climbed(job: Task, epsilon: float, norm: Norm, rounds: int, batch: int, rate: float, seed: int) -> Tensor:
    """(1, 3, H, W): the change, in whole levels."""
    network = job.network.drawing
    originals, labels = job.originals.to(network.device), job.labels.to(network.device)
    shared = SharedChange(originals, epsilon, norm=norm, batch=batch, seed=seed)
    steps = rounds * math.ceil(len(originals) / batch)
    for _ in optimize(
        network, _InParts(labels, shared), shared, steps=steps, optimizer=steepest(norm, MOMENTUM), rate=rate
    ):
        pass
    grey = torch.full_like(job.originals[:1], 128 / 255)
    rounded = quantised(grey, grey + shared.change.detach().cpu(), epsilon, norm)
    return ((rounded - grey) * 255).round() / 255


def _summary(job: Task, change: Tensor, labels: Tensor, seen: Tensor, unseen: Tensor) -> dict[str, Any]:
    """How often ``labels`` are not what they were, among the seen and the unseen pictures, and what else they are."""
    moved = labels != job.labels

    def told(part: Tensor) -> dict[str, Any]:
        share = proportion(int(moved[part].sum()), len(part))
        counts = {"fooled": int(moved[part].sum()), "pictures": len(part)}
        return {"share": share.mean, "low": share.low, "high": share.high, **counts}

    where = unseen if len(unseen) else seen
    often = Counter(labels[where][moved[where]].tolist()).most_common(3)
    return {
        "fooled": {"held_out": told(unseen) if len(unseen) else None, "seen": told(seen)},
        "taken_for": {job.network.label(label): count for label, count in often},
        **distances(torch.zeros_like(change[0]), change[0]),
    }  # fmt: skip


def _notes(summary: dict[str, Any]) -> list[str]:
    """The rates in a sentence each."""
    held, seen = summary["fooled"]["held_out"], summary["fooled"]["seen"]

    def said(rate: dict[str, Any], which: str) -> str:
        interval = f"95 % interval {rate['low']:.0%} to {rate['high']:.0%}"
        return f"fools the network on {rate['fooled']} of {rate['pictures']} {which} pictures ({interval})"

    taken = ", ".join(f"{label} ({count})" for label, count in summary["taken_for"].items())
    return [
        said(held, "held-out") if held else "no picture was held out; give several to see how it does on new ones",
        said(seen, "seen"), *([f"most often they are then taken for {taken}"] if taken else []),
    ]  # fmt: skip
