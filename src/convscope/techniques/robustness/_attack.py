"""What the attacks share: gradients inside an epsilon ball, 8-bit pictures, and what the network says of these.

:func:`attack` is the attack itself, on any network, also one with a defence in front, and gives pictures of floating
point. What a technique says is about a file, so :func:`searched` rounds them to 8 bits without leaving the ball, asks
the network in float32, and tries again where the file does not fool it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.network import Network
from convscope.objectives import Loss, margins, mistaken
from convscope.optimize import optimize
from convscope.parameterizations import EpsilonBall, Norm, check_epsilon, near
from convscope.registry import Fraction, Target
from convscope.results import Adversarial
from convscope.techniques.robustness._steepest import Steepest

Epsilon = Annotated[
    Fraction | None,
    Field(description="budget, as 4/255 or 0.016: the largest change of a channel in linf, the change's length in l2"),
]
NormOption = Annotated[Norm, Field(description="how the change is measured: its largest number, or its length")]
Goal = Annotated[
    Target, Field(description="class that the picture shall be taken for; any other than its own if left out")
]
Label = Annotated[
    Target, Field(description="class that the picture is of; the predicted one if left out, which may be wrong")
]
Steps = Annotated[int, Field(ge=1, description="steps, one pass forward and back each")]
LossOption = Annotated[
    Loss, Field(description="what rises: cross-entropy, or the margin, which does not fade where the network is sure")
]
EPSILONS: dict[Norm, float] = {"linf": 4 / 255, "l2": 1.0}
LEVEL = 1 / 255
SHOWN = 256  # pixels of a tile, about


# ---- the attack itself


def attack(
    network: Network,
    images: Tensor,
    classes: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Norm = "linf",
    steps: int = 10,
    rate: float | None = None,
    targeted: bool = False,
    loss: Loss = "cross-entropy",
    momentum: float = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """Pictures in the epsilon ball around the given ones on which the network errs most: projected gradient ascent.

    Args:
        network: any classifier; in its own precision.
        images: (N, 3, H, W) in [0, 1].
        classes: (N,) that they are of, or with ``targeted`` that they shall be taken for.
        epsilon: of the ball, one or (N,), of [0, 1].
        norm: of the ball and of the steps.
        steps: each of length ``rate``, which is 2.5 * epsilon / steps if left out (Madry et al. 2018).
        targeted: towards the classes.
        loss: what rises.
        momentum: see :class:`Steepest`.
        start: (N, 3, H, W) or (1, 3, H, W) to begin with instead of the pictures.

    Returns:
        (N, 3, H, W) in float32 or wider, on the pictures' device; not rounded to 8 bits.
    """
    epsilons = torch.as_tensor(epsilon, dtype=torch.float64).expand(len(images))
    rate = 2.5 * float(epsilons.max()) / steps if rate is None else rate
    starts = images if start is None else start.expand_as(images)

    def run(part: slice) -> Tensor:
        device = network.device
        ball = EpsilonBall(images[part].to(device), epsilons[part], norm=norm, start=starts[part].to(device))
        objective = mistaken(network, classes[part].to(device), targeted=targeted, loss=loss)
        for _ in optimize(network, objective, ball, steps=steps, optimizer=steepest(norm, momentum), rate=rate):
            pass
        return ball.pixels.detach().to(images.device)

    return torch.cat(list(batched(run, len(images), network.at_once(images))))


def steepest(norm: Norm, momentum: float = 0.0) -> Callable[[list[Tensor], float], Steepest]:
    """What :func:`optimize` takes as its optimiser."""
    return lambda parameters, rate: Steepest(parameters, rate, norm=norm, momentum=momentum)


# ---- as a file holds it


def on_grid(images: Tensor) -> Tensor:
    """(N, 3, H, W) float32 with the very numbers that reading their 8-bit PNG gives."""
    return (images.detach().float().clamp(0, 1) * 255).round() / 255


def quantised(originals: Tensor, pictures: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """``pictures`` rounded to 8 bits, no further than ``epsilon`` from the 8-bit ``originals``.

    In linf each number is rounded to the nearest level that the ball holds. In l2 most numbers of a change are less
    than half a level and would vanish; the change is scaled before it is rounded, so that its length stays what it was.
    Of all changes of that length on the grid, this is the one with the largest product with the scaled one.
    """
    levels = (originals * 255).round()
    change = pictures.float() * 255 - levels
    if norm == "linf":
        most = int(epsilon * 255 + 1e-4)
        return (levels + change.round().clamp(-most, most)).clamp(0, 255) / 255
    return (levels + _rounded(levels, change, epsilon * 255)) / 255


def _rounded(levels: Tensor, change: Tensor, epsilon: float) -> Tensor:
    """Whole numbers along ``change``, as long as it is and no longer than ``epsilon``, found by halving their scale."""
    most = change.flatten(1).norm(dim=1).clamp(max=epsilon) * (1 + 1e-5)
    low = torch.zeros_like(most)
    high = (most + 1) / change.flatten(1).abs().amax(1).clamp(min=1e-6)

    def at(scale: Tensor) -> Tensor:
        return (levels + (change * scale.view(-1, 1, 1, 1)).round()).clamp(0, 255) - levels

    for _ in range(30):
        middle = (low + high) / 2
        fits = at(middle).flatten(1).norm(dim=1) <= most
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return at(low)


def exact(network: Network) -> Network:
    """The network in the precision of its weights: what is said about a picture is never said in bfloat16."""
    return replace(network, precision="float32") if network.precision == "bfloat16" else network


def logits_of(network: Network, images: Tensor) -> Tensor:
    """(N, classes) on the CPU, in at least float32."""
    asked = exact(network)
    with torch.no_grad():
        found = torch.cat(list(batched(lambda part: asked(images[part]), len(images), asked.at_once(images))))
    return found.to("cpu", torch.promote_types(found.dtype, torch.float32))


# ---- a task and its pictures


@dataclass(frozen=True)
class Task:
    """What is attacked: 8-bit pictures, what they are of, and what they shall be taken for.

    ``clean`` (N, classes) are the logits before; ``targets`` is None where any mistake will do; ``told`` says whether
    the labels were given.
    """

    network: Network
    originals: Tensor
    clean: Tensor
    labels: Tensor
    targets: Tensor | None
    told: bool

    @property
    def classes(self) -> Tensor:
        """What :func:`attack` takes."""
        return self.labels if self.targets is None else self.targets

    def margins(self, logits: Tensor) -> Tensor:
        """(N,), above zero where the network is fooled: mistaken, or taken in by the target."""
        found = margins(logits, self.classes)
        return found if self.targets is None else -found

    def part(self, chosen: Tensor) -> Task:
        """The task of some of the pictures, by index."""
        targets = None if self.targets is None else self.targets[chosen]
        return replace(
            self, originals=self.originals[chosen], clean=self.clean[chosen], labels=self.labels[chosen],
            targets=targets,
        )  # fmt: skip


def task(network: Network, images: Tensor, label: Any = None, target: Any = None) -> Task:
    """Read the options. The pictures are rounded to 8 bits first, so that distances are those between two files.

    Raises UnknownTarget, and OptionError for a target that the picture is of.
    """
    originals = on_grid(images)
    clean = logits_of(network, originals)
    labels = network.targets(label, clean)
    targets = None if target is None else network.targets(target, clean)
    targets = None if targets is None else targets.clone()
    found = Task(network, originals, clean, labels.clone(), targets, label is not None)
    if targets is not None:
        _check_targets(found, targets)
    return found


def _check_targets(found: Task, targets: Tensor) -> None:
    already = (targets == (found.labels if found.told else found.clean.argmax(1))).nonzero().flatten().tolist()
    if not already:
        return
    name = found.network.label(int(targets[already[0]]))
    what = "the picture is" if len(targets) == 1 else f"picture {already[0] + 1} of {len(targets)} is"
    verb = "of" if found.told else "taken for"
    raise OptionError(
        f"{what} already {verb} the target {name!r}; choose another target, or leave it out for any mistake"
    )


def budget(
    epsilon: float | None, norm: Norm, images: Tensor, defaults: Mapping[Norm, float] = EPSILONS
) -> float:  # fmt: skip
    """The budget, or the default of the norm; :class:`OptionError` when 8 bits have no change that fits into it."""
    chosen = defaults[norm] if epsilon is None else epsilon
    check_epsilon(chosen, norm, images[0].numel())
    if chosen < LEVEL * (1 - 1e-4):
        raise OptionError(
            f"epsilon {chosen:g} is less than one level of an 8-bit file, so no changed file is that near; give 1/255 "
            "or more"
        )
    return chosen


def searched(
    job: Task, make: Callable[[Task, int], Tensor], *, epsilon: float, norm: Norm, restarts: int = 1
) -> Tensor:  # fmt: skip
    """(N, 3, H, W) 8-bit pictures in the ball: of several tries the one on which the network errs most.

    ``make(task, number)`` is try ``number`` for those pictures that do not fool the network yet.
    """
    best, margin = job.originals.clone(), torch.full((len(job.originals),), -torch.inf, dtype=job.clean.dtype)
    for number in progress.over(range(restarts), "tries"):
        left = (margin <= 0).nonzero().flatten()
        if not len(left):
            continue
        part = job.part(left)
        made = quantised(part.originals, make(part, number), epsilon, norm)
        found = part.margins(logits_of(job.network, made))
        better = found > margin[left]
        best[left[better]], margin[left[better]] = made[better], found[better]
    return best


def started(images: Tensor, epsilon: float, norm: Norm, seed: int) -> Tensor:
    """The pictures at a random place of the ball, the same for each."""
    return images + near((images.shape[-2], images.shape[-1]), epsilon, norm=norm, seed=seed).to(images)


# ---- what is said


def reported(
    job: Task, pictures: Tensor, *, norm: Norm | None = None, epsilon: float | None = None, notes: Sequence[str] = (),
    more: Sequence[Mapping[str, Any]] = (), lines: Sequence[str] = (),
) -> Adversarial:  # fmt: skip
    """The result: what the network says about the 8-bit pictures before and after, and how far they are apart.

    ``epsilon`` was the budget, if there was one; ``more`` and ``lines`` have something to add to the summary and to the
    caption of each picture.
    """
    after = logits_of(job.network, pictures)
    found = [_summary(job, index, after[index], pictures[index]) for index in range(len(pictures))]
    told = {name: value for name, value in (("epsilon", epsilon), ("norm", norm)) if value is not None}
    for index, summary in enumerate(found):
        summary.update({**told, **(more[index] if more else {})})
    return Adversarial(
        values=pictures, summaries=found, originals=job.originals,
        names=[[each["label"] for each in s["probabilities"]] for s in found],
        before=[[each["before"] for each in s["probabilities"]] for s in found],
        after=[[each["after"] for each in s["probabilities"]] for s in found],
        success=[s["success"] for s in found], titles=[_title(s) for s in found],
        captions=[[*_caption(s), *lines[i : i + 1]] for i, s in enumerate(found)], notes=[*_clean_notes(job), *notes],
    )  # fmt: skip


def _summary(job: Task, index: int, after: Tensor, picture: Tensor) -> dict[str, Any]:
    network, clean = job.network, job.clean[index]
    before_shares, after_shares = clean.double().softmax(0), after.double().softmax(0)
    label, taken = int(job.labels[index]), int(after.argmax())
    target = None if job.targets is None else int(job.targets[index])
    other = target if target is not None else taken if taken != label else int(_without(after, label).argmax())
    return {
        "clean": {**_guess(network, clean), "correct": bool(clean.argmax() == label) if job.told else None},
        "label": network.label(label),
        "target": None if target is None else network.label(target),
        "adversarial": _guess(network, after),
        "success": bool(taken == target if target is not None else taken != label),
        "probabilities": [
            {"label": network.label(i), "before": float(before_shares[i]), "after": float(after_shares[i])}
            for i in (label, other)
        ],
        **distances(job.originals[index], picture),
    }  # fmt: skip


def _without(logits: Tensor, index: int) -> Tensor:
    found = logits.clone()
    found[index] = -torch.inf
    return found


def _guess(network: Network, logits: Tensor) -> dict[str, Any]:
    best = int(logits.argmax())
    return {"label": network.label(best), "index": best, "probability": float(logits.double().softmax(0)[best])}


def distances(original: Tensor, picture: Tensor) -> dict[str, Any]:
    """Between two 8-bit pictures (3, H, W): of values in [0, 1], and the number of pixels that differ."""
    levels = ((picture - original).double() * 255).round()
    return {
        "linf": float(levels.abs().max()) / 255, "l2": float(levels.norm()) / 255,
        "l0": int((levels != 0).any(0).sum()), "pixels": levels[0].numel(),
    }  # fmt: skip


def as_levels(value: float) -> str:
    """A distance as k/255 where it is one."""
    levels = value * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-4 else f"{value:.3g}"


def _title(summary: Mapping[str, Any]) -> str:
    wanted = f", for {summary['target']}" if summary["target"] else ""
    if not summary["success"]:
        return f"{summary['label']}: not fooled{wanted}"
    return f"{summary['label']} → {summary['adversarial']['label']}"


def _caption(summary: Mapping[str, Any]) -> list[str]:
    taken = summary["adversarial"]
    return [
        f"largest change {as_levels(summary['linf'])}, length {summary['l2']:.3g}",
        f"{summary['l0']:,} of {summary['pixels']:,} pixels changed",
        f"the 8-bit file is taken for {taken['label']}",
    ]


def _clean_notes(job: Task) -> list[str]:
    notes = []
    wrong = (job.clean.argmax(1) != job.labels).nonzero().flatten().tolist() if job.told else []
    if wrong:
        total = len(job.labels)
        which = "the picture is" if total == 1 else f"{len(wrong)} of {total} pictures are"
        first = job.network.label(int(job.clean[wrong[0]].argmax()))
        notes.append(
            f"{which} taken for another class before any attack (the first for {first}), so that is no success of it"
        )
    if job.network.crop < 1:
        notes.append(
            f"{job.network.name} is fooled by the changed picture as it is, and crops photographs: ask it with --crop 1"
        )
    return notes


def enlarged(tiles: Tensor) -> Tensor:
    """Small pictures (..., H, W) with each pixel several times, so that there is room for words under them."""
    times = max(1, round(SHOWN / tiles.shape[-1]))
    return tiles.repeat_interleave(times, -1).repeat_interleave(times, -2)
