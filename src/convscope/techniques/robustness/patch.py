"""A patch that makes a network see one thing wherever it is laid (Brown et al. 2017).

Gradient ascent on the probability of the target, averaged over pictures and over where the patch lies in them, how
large it is and how it is turned, finds a patch that works on pictures that it never saw. Printed and put beside an
object, it is seen instead of it.

Departures: pictures are drawn anew at every step instead of being gone through; the patch is rounded to 8 bits, and so
is every picture with it, before success is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.intervals import Interval, proportion
from convscope.network import Network
from convscope.objectives import mistaken
from convscope.optimize import optimize
from convscope.registry import Seed, Target, technique
from convscope.results import Patch
from convscope.techniques.robustness._attack import exact, logits_of, on_grid
from convscope.techniques.robustness._pasting import Form, Pasted, Placing, covered, pasted

EXAMPLES = 8
Share = Annotated[float, Field(gt=0, lt=1)]


@technique(
    family="robustness",
    order=6,
    paper="Brown et al. 2017, arXiv:1712.09665, section 2; Athalye et al. 2018, arXiv:1707.07397, section 2",
    see="Whatever lies beside the disc, the network names the target; the grey marks are those of an untrained disc.",
    caution=(
        "The rate is of pictures on a screen. A print has other colours, and a camera other light and angles; and what "
        "fools one network need not fool another."
    ),
    quick={"target": 0, "steps": 2, "batch": 2, "shares": [0.1, 0.2]},
    example={"target": "sunflower", "steps": 60, "batch": 4, "shares": [0.15, 0.3]},
    together=True,
)
def patch(
    network: Network,
    images: Tensor,
    *,
    target: Annotated[Target, Field(description="class that the patch makes the network see")] = None,
    form: Annotated[Form, Field(description="of the patch")] = "circle",
    shares: Annotated[
        Share | Sequence[Share],
        Field(description="shares of the picture's area at which success is counted; it is trained between their ends"),
    ] = (0.05, 0.1, 0.2, 0.3),
    rotation: Annotated[float, Field(ge=0, le=180, description="degrees by which it is turned either way")] = 20.0,
    held_out: Annotated[
        float, Field(gt=0, lt=1, description="share of the photographs that it is not trained on")
    ] = 0.4,
    steps: Annotated[int, Field(ge=1, description="of the ascent, one pass forward and back of a batch each")] = 300,
    batch: Annotated[int, Field(ge=1, description="photographs a step")] = 8,
    rate: Annotated[float, Field(gt=0, description="Adam's rate, of the range [0, 1]")] = 0.05,
    save: Annotated[
        str | Path | None, Field(description="file to print the patch from, .png or .pdf, at --size-cm")
    ] = None,
    size_cm: Annotated[float, Field(gt=0, le=200, description="side or diameter of the print in centimetres")] = 10.0,
    seed: Seed = 0,
) -> Patch:
    """A patch which, laid anywhere on any picture, makes the network see one class.

        patch = argmax of the mean of log p(target | picture with the patch at a place, of a size, at an angle)

    Args:
        network: a classifier, trained against in bfloat16 where the device is fast at it, and judged in float32.
        images: (N, 3, H, W) in [0, 1], some dozens.
        target: what it shall be taken for.
        form: ``circle`` or ``square``.
        shares: of the area, between 0 and 1. Wherever it lies, all of it is in the picture.
        rotation: either way.
        held_out: pictures on which the success is counted; with one picture alone that one.
        steps, batch, rate: of Adam.
        save, size_cm: the print has 300 dots an inch or more.
        seed: of the split, of what is drawn, and of the places at which success is counted.

    Returns:
        ``values`` (1, 3, h, h): the patch as an 8-bit file holds it. ``rates`` (S, 3): of each share the success on
        held-out pictures, each with the patch at one random place, and the ends of its 95 % interval (Wilson's);
        ``controls`` (S, 3) the same of the untrained patch at the same places. Pictures that are taken for the target
        without it do not count. ``examples`` are some of them.

    Raises:
        UnknownTarget; OptionError where no target is given, for a patch larger than the picture, and another suffix.
    """
    if target is None:
        raise OptionError("patch needs a target: --target CLASS, what the network shall see wherever the patch lies")
    placing = Placing((images.shape[-2], images.shape[-1]), form, rotation)
    at = sorted(shares) if isinstance(shares, Sequence) else [shares]
    for share in at:
        placing.check(share)
    job = _Job(network, network.targets(target, torch.zeros(1, network.classes)), placing, at, seed)
    trained_on, judged_on, notes = _split(job, on_grid(images), held_out)
    start = _start(round(placing.side(at[-1])), seed)
    found = on_grid(_trained(job, start, trained_on, steps, batch, rate))[0]
    result = _result(job, found, on_grid(start[None])[0], judged_on, [*notes, *_wide_note(job, len(judged_on))])
    if save is not None:
        result.write_print(save, size_cm)
    return result


@dataclass(frozen=True)
class _Job:
    """Whom the patch shall fool into what, and where it lies."""

    network: Network
    target: Tensor
    placing: Placing
    shares: Sequence[float]
    seed: int

    @property
    def name(self) -> str:
        return self.network.label(int(self.target))


def _split(job: _Job, images: Tensor, share: float) -> tuple[Tensor, Tensor, list[str]]:
    """Pictures to train on, pictures to judge on, and notes."""
    count = len(images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(job.seed))
    kept = max(1, round(share * count)) if count > 1 else 0
    alone = ["no picture is held out, since there is only one; give a folder"] if count == 1 else []
    judged = images[order[:kept]] if kept else images
    already = logits_of(job.network, judged).argmax(1) == job.target.cpu()
    left = judged[~already]
    if bool(already.any()):
        number = int(already.sum())
        alone.append(f"{number} of {len(judged)} held-out pictures are taken for {job.name} anyway and do not count")
    return images[order[kept:]] if kept else images, left, alone


def _wide_note(job: _Job, judged: int) -> list[str]:
    counted = "one picture" if judged == 1 else f"{judged} pictures"
    return [] if judged >= 20 else [f"the success is that of {counted}; give more for narrower intervals"]


def _start(side: int, seed: int) -> Tensor:
    """(3, h, h): grey noise."""
    side = max(side, 2)
    return (0.5 + 0.1 * torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def _trained(job: _Job, start: Tensor, pictures: Tensor, steps: int, batch: int, rate: float) -> Tensor:
    """(1, 3, h, h)."""
    network = job.network.drawing
    laid = Pasted(
        start.to(network.device), pictures, job.placing, shares=(job.shares[0], job.shares[-1]), batch=batch,
        seed=job.seed,
    )  # fmt: skip
    objective = mistaken(network, job.target, targeted=True)
    for _ in optimize(network, objective, laid, steps=steps, optimizer="adam", rate=rate):
        pass
    return laid.patch.detach().cpu()


# ---- success


def _judged(job: _Job, patches: Sequence[Tensor], pictures: Tensor, share: float, number: int) -> list[Tensor]:
    """Of each patch the 8-bit pictures with it, all at the same places."""
    generator = torch.Generator().manual_seed(job.seed + 1000 + number)
    places = [job.placing.drawn(share, generator) for _ in pictures]
    return [on_grid(pasted(each, pictures, places, job.placing.form)) for each in patches]


def _hits(job: _Job, pictures: Tensor) -> Tensor:
    """(N,) what the network sees."""
    network = exact(job.network)
    with torch.no_grad():
        parts = batched(lambda part: network(pictures[part]).argmax(1).cpu(), len(pictures), network.max_batch)
        return torch.cat(list(parts))


def _result(job: _Job, found: Tensor, start: Tensor, pictures: Tensor, notes: Sequence[str]) -> Patch:
    rates, controls, examples, titles = [], [], [], []
    for number, share in enumerate(progress.over(list(job.shares), "shares")):
        seen = []
        if len(pictures):
            made = _judged(job, (found, start), pictures, share, number)
            seen = [_hits(job, each) for each in made]
            some = slice(number, None, max(1, len(pictures) // 2))
            for picture, answer in list(zip(made[0][some], seen[0][some].tolist(), strict=True))[:2]:
                examples.append(picture)
                titles.append(f"{share:.0%} → {job.network.label(answer)}")
        hits = [int((answers == job.target.cpu()).sum()) for answers in seen] or [0, 0]
        rates.append(proportion(hits[0], len(pictures)))
        controls.append(proportion(hits[1], len(pictures)))
    return Patch(
        values=found[None], per_picture=False, form=job.placing.form, target=job.name, shares=list(job.shares),
        rates=_as_tensor(rates), controls=_as_tensor(controls), covered=covered(job.placing.form, found.shape[-1]),
        examples=torch.stack(examples[:EXAMPLES]) if examples else None, example_titles=titles[:EXAMPLES],
        notes=notes, summaries=[_summary(job, rates, controls, len(pictures))],
    )  # fmt: skip


def _as_tensor(intervals: Sequence[Interval]) -> Tensor:
    return torch.tensor([[each.mean, each.low, each.high] for each in intervals])


def _summary(job: _Job, rates: Sequence[Interval], controls: Sequence[Interval], count: int) -> dict[str, Any]:
    def said(each: Interval) -> dict[str, float | None]:
        names = {"rate": each.mean, "low": each.low, "high": each.high}
        return {name: value if count else None for name, value in names.items()}

    return {
        "target": job.name, "form": job.placing.form, "held_out_pictures": count,
        "success": [
            {"share": share, **said(rate), "untrained": said(control)}
            for share, rate, control in zip(job.shares, rates, controls, strict=True)
        ],
    }  # fmt: skip
