"""Fooled by one pixel: differential evolution over places and colours (Su, Vargas & Sakurai 2019).

A candidate is a place and a colour for each of one to five pixels. Four hundred of them are a generation. Each gets a
child, one candidate plus half the difference of two others, and the better of the two stays (the paper's section III:
F = 0.5, no crossover). Nothing but the network's probabilities is asked for.

A candidate differs from the picture in a few pixels only, so all of a generation are asked in one incremental pass (see
``convscope.perturb``), with the numbers of full passes but for rounding. Places and colours are rounded before they are
judged, so that a candidate is what its 8-bit file will be, and the one that wins is judged again by a full pass.

``method="gradient"`` knows the network instead: projected gradient ascent on pictures of which at most so many pixels
differ, keeping after each step those that change the most (Croce & Hein 2019, arXiv:1909.05040: PGD_0). It needs more
pixels and less time.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.network import Network
from convscope.objectives import mistaken
from convscope.optimize import optimize
from convscope.parameterizations import FewPixels
from convscope.perturb import Box, Outcome, Variations
from convscope.registry import Seed, technique
from convscope.results import Spots
from convscope.techniques.robustness._attack import Goal, Label, Task, exact, logits_of, on_grid, reported, task
from convscope.techniques.robustness._steepest import Steepest

MOST = 5  # pixels that evolution moves
BEYOND = 64  # levels below black and above white that evolution may ask for, and which count as these
RATE, MOMENTUM = 10.0, 0.75  # mean change of a number by a step of the gradient's, and what it keeps of those before


@technique(
    family="robustness",
    order=5,
    paper="Su, Vargas & Sakurai 2019, arXiv:1710.08864, section III; Croce & Hein 2019, arXiv:1909.05040",
    see="A ring around the pixel, and what it looks like from near: everything else is as it was.",
    caution=(
        "The pixel is as bright as it likes, so it is small, not invisible. Where none is found there may be one: "
        "evolution tries some thousand candidates of the billions that there are."
    ),
    quick={"generations": 2, "candidates": 12},
    example={"pixels": 5, "generations": 10, "candidates": 100},
)
def few_pixel(
    network: Network,
    images: Tensor,
    *,
    target: Goal = None,
    label: Label = None,
    pixels: Annotated[int, Field(ge=1, description="pixels that may change; at most 5 by evolution")] = 1,
    method: Annotated[
        Literal["evolution", "gradient"],
        Field(description="ask for probabilities only, or follow the gradient, which wants more pixels"),
    ] = "evolution",
    generations: Annotated[int, Field(ge=1, description="of evolution, at most")] = 100,
    candidates: Annotated[int, Field(ge=5, description="of a generation")] = 400,
    steps: Annotated[int, Field(ge=1, description="of the gradient's ascent")] = 60,
    seed: Seed = 0,
) -> Spots:
    """Pictures of which a few pixels are changed so that the network errs.

        evolution:  child = a + (b - c) / 2 of three candidates; it takes its parent's place where it is better
        gradient:   x <- the nearest picture to x + rate * gradient / its length with so many changed pixels

    Args:
        network: a classifier, judged in float32; by evolution it need not be differentiable.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], rounded to 8 bits first.
        target: class to be taken for, instead of any mistake.
        label: class that the picture is of.
        pixels: at most so many differ in the 8-bit file.
        method, generations, candidates, steps: of the search, which ends with the first picture that fools.
        seed: of evolution, the same for each picture.

    Returns:
        ``values`` (N, 3, H, W): the changed pictures as an 8-bit file holds them, beside ``originals``. Each summary
        holds ``clean`` and ``adversarial`` predictions, ``success``, the probabilities of both classes, the distances
        ``linf``, ``l2`` and ``l0`` (pixels that differ), ``places`` as [row, column], the number of ``candidates`` that
        were asked, the engine and the share of the arithmetic of full passes that it did without.

    Raises:
        UnknownTarget; OptionError for a target that the picture already is, and for more pixels than there are.

    Departures from the paper: candidates are compared by the logarithm of the probability, which orders them alike and
    does not saturate; colours beyond black and white count as these, so that these are found easily; the search ends as
    soon as the class changes, not at a probability of 5 or 90 %.
    """
    _check(images, pixels, method)
    job = task(network, images, label, target)
    said: list[dict[str, Any]] = [{} for _ in images]
    if method == "gradient":
        made = _ascended(job, pixels, steps)
    else:
        found = [
            _evolved(job.part(torch.tensor([number])), pixels, generations, candidates, seed)
            for number in progress.over(len(images), "pictures")
        ]
        made, said = torch.stack([picture for picture, _ in found]), [about for _, about in found]
    return _spots(job, made, said)


def _check(images: Tensor, pixels: int, method: str) -> None:
    height, width = images.shape[-2:]
    if method == "evolution" and pixels > MOST:
        raise OptionError(
            f"few-pixel: evolution is lost among the places of {pixels} pixels; give at most {MOST}, or choose the "
            "method gradient"
        )
    if pixels > height * width:
        raise OptionError(
            f"few-pixel: a picture of {height}x{width} has {height * width:,} pixels; give at most as many, not "
            f"{pixels:,}"
        )


def _spots(job: Task, made: Tensor, said: list[dict[str, Any]]) -> Spots:
    found = reported(job, made)
    summaries = []
    for index, summary in enumerate(found.summaries):
        differ = (made[index] != job.originals[index]).any(0)
        summaries.append({**summary, "places": differ.nonzero().tolist(), **said[index]})
    fields = {name: getattr(found, name) for name in inspect.signature(type(found)).parameters}
    return Spots(**{**fields, "summaries": summaries, "captions": [_caption(s) for s in summaries]})


def _caption(summary: dict[str, Any]) -> list[str]:
    places = [f"row {row}, column {column}" for row, column in summary["places"][:3]]
    where = "; ".join(places) + (" and more" if len(summary["places"]) > 3 else "")
    asked = f"{summary['candidates']:,} candidates were asked" if "candidates" in summary else ""
    count = summary["l0"]
    lines = [
        f"{count:,} of {summary['pixels']:,} pixels changed: {where}" if count else "no pixel changed",
        f"the 8-bit file is taken for {summary['adversarial']['label']}",
    ]
    return [*lines, asked] if asked else lines


# ---- evolution


class _Fooled(Exception):
    """A candidate does it."""


@dataclass
class _Search:
    """The candidates for one picture: asked for, counted, and the best of them kept."""

    job: Task
    pixels: int
    generations: int
    rounds: Iterator[int]
    variations: Variations
    best: Tensor | None = None
    lowest: float = math.inf
    asked: int = 0
    outcome: Outcome | None = None

    @property
    def original(self) -> Tensor:
        """(3, H, W)."""
        return self.job.originals[0]

    def energies(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(S,) of (5 k, S) numbers: what evolution lowers. Raises :class:`_Fooled` when one of them fools."""
        next(self.rounds, None)
        boxes, colours = decoded(vectors, self.pixels)
        found = self.variations.of(self.original, boxes, colours.to(self.original), each=self.pixels)
        logits = found.logits.double().cpu()
        energies = _energies(self.job, logits)
        self._note(found, boxes, colours, logits, energies)
        return energies.numpy()

    def _note(self, found: Outcome, boxes: list[Box], colours: Tensor, logits: Tensor, energies: Tensor) -> None:
        self.asked, self.outcome = self.asked + len(logits), found
        margins = _margins(self.job, logits)
        fooled = bool((margins > 0).any())
        best = int(margins.argmax()) if fooled else int(energies.argmin())
        part = slice(best * self.pixels, (best + 1) * self.pixels)
        picture = painted(self.original, boxes[part], colours[part])
        if float(energies[best]) < self.lowest:
            self.best, self.lowest = picture, float(energies[best])
        if fooled and float(self.job.margins(logits_of(self.job.network, picture[None]))) > 0:
            self.best = picture
            raise _Fooled


def _energies(job: Task, logits: Tensor) -> Tensor:
    """(S,): the logarithm of the class's probability, or minus that of the target's."""
    shares = logits.log_softmax(1)[:, int(job.classes[0])]
    return shares if job.targets is None else -shares


def _margins(job: Task, logits: Tensor) -> Tensor:
    """(S,), above zero for those that fool."""
    number = len(logits)
    targets = None if job.targets is None else job.targets.expand(number)
    return replace(job, labels=job.labels.expand(number), targets=targets).margins(logits)


def decoded(vectors: NDArray[np.float64], pixels: int) -> tuple[list[Box], Tensor]:
    """Boxes of S k single pixels and their colours (S k, 3, 1, 1), of (5 k, S) numbers: row, column, three levels."""
    numbers = np.floor(vectors.T.reshape(-1, pixels, 5).reshape(-1, 5)).astype(np.int64)
    boxes: list[Box] = [(int(row), int(column), 1, 1) for row, column in numbers[:, :2]]
    return boxes, torch.from_numpy(numbers[:, 2:].clip(0, 255)).float().div(255)[:, :, None, None]


def painted(picture: Tensor, boxes: list[Box], colours: Tensor) -> Tensor:
    """(3, H, W) with those pixels in those colours, the later ones on top."""
    found = picture.clone()
    for (row, column, _, _), colour in zip(boxes, colours, strict=True):
        found[:, row, column] = colour[:, 0, 0]
    return found


def _evolved(job: Task, pixels: int, generations: int, candidates: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """The best picture for a task of one, and what it took."""
    height, width = job.originals.shape[-2:]
    rounds = progress.over(range(generations + 1), "generations")
    search = _Search(job, pixels, generations, iter(rounds), Variations(exact(job.network)))
    if bool(job.margins(job.clean) > 0):  # it is mistaken without any change
        search.best = search.original
        for _ in rounds:
            pass
    else:
        _run(search, (height, width), candidates, seed)
        for _ in search.rounds:
            pass
    assert search.best is not None
    saved = {} if search.outcome is None else {
        "engine": search.outcome.engine, "arithmetic_saved": search.outcome.saved,
    }  # fmt: skip
    return search.best, {"candidates": search.asked, **saved}


def _run(search: _Search, size: tuple[int, int], candidates: int, seed: int) -> None:
    """SciPy's differential evolution, a generation at a time."""
    from scipy.optimize import differential_evolution

    generator = np.random.default_rng(seed)
    levels = [(-float(BEYOND), 256.0 + BEYOND)] * 3
    bounds = [(0.0, size[0] - 1e-6), (0.0, size[1] - 1e-6), *levels] * search.pixels
    chance = "rng" if "rng" in inspect.signature(differential_evolution).parameters else "seed"
    with contextlib.suppress(_Fooled):
        differential_evolution(
            search.energies, bounds, init=_first(generator, size, candidates, search.pixels),
            strategy="rand1bin", mutation=0.5, recombination=1.0, maxiter=search.generations, tol=0.0, atol=0.0,
            polish=False, updating="deferred", vectorized=True, **{chance: generator},
        )  # fmt: skip


def _first(generator: np.random.Generator, size: tuple[int, int], candidates: int, pixels: int) -> NDArray[np.float64]:
    """(S, 5 k): places uniform, colours normal around the middle (section III)."""
    places = generator.uniform(0, np.array(size) - 1e-6, (candidates, pixels, 2))
    colours = generator.normal(128, 127, (candidates, pixels, 3)).clip(-BEYOND, 256 + BEYOND)
    return np.concatenate([places, colours], 2).reshape(candidates, -1)


# ---- by gradient


def _ascended(job: Task, pixels: int, steps: int) -> Tensor:
    """(N, 3, H, W) 8-bit pictures: of each the first that fools, else the one on which the network errs most."""
    rate = RATE * math.sqrt(job.originals[0].numel())
    network = job.network.drawing

    def run(part: slice) -> Tensor:
        chosen = torch.arange(len(job.originals))[part]
        own = job.part(chosen)
        few = FewPixels(own.originals.to(network.device), pixels)
        objective = mistaken(network, own.classes.to(network.device), targeted=own.targets is not None, loss="margin")
        best, margin = own.originals.clone(), own.margins(own.clean)
        for _ in optimize(network, objective, few, steps=steps, optimizer=_along, rate=rate):
            made = on_grid(few.pixels.cpu())
            found = own.margins(logits_of(job.network, made))
            better = (found > margin) & (margin <= 0)
            best[better], margin[better] = made[better], found[better]
            if bool((margin > 0).all()):
                break
        return best

    return torch.cat(list(batched(run, len(job.originals), network.at_once(job.originals))))


def _along(parameters: list[Tensor], rate: float) -> Steepest:
    return Steepest(parameters, rate, norm="l2", momentum=MOMENTUM)
