"""Multifaceted feature visualisation: one class, and a picture for each kind of photograph that it is found in.

A class fires for a facade and for a market hall alike; one picture of it mixes both. So the photographs of the class
are sorted by what the network makes of them: their codes are reduced by PCA to 50 numbers and by t-SNE to two, and
clustered by k-means. Each cluster's mean photograph (over the 15 nearest to its centre) is where one ascent starts,
and the centre-biased schedule draws the rest (Nguyen, Yosinski & Clune 2016, algorithm 1, section 3).

The published schedule is the authors' program's for mean images: octaves of 190, 150, 20 and 10 steps, the second at
1.2 times the size under random crops, the third with a still frame, total-variation denoising after each step.
Departures: the default schedule is another, whose pictures are clearer, Fourier coefficients under random crops about
the centre, which widen; fewer than 20 photographs are clustered without t-SNE, which needs neighbours; four facets by
default, of the paper's ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope import progress
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.extras import require
from convscope.hooks import OUTPUT, observe
from convscope.images import fit
from convscope.network import Network
from convscope.objectives import class_score
from convscope.optimize import State, Step, optimize
from convscope.parameterizations import Fourier, Pixels
from convscope.registry import Layer, Seed, Target, technique
from convscope.regularizers import Denoise, Frame, MeanOne, Ramp, Regularizer
from convscope.results import Pictures
from convscope.techniques.dataset._plane import Points, affinities, principal
from convscope.techniques.synthesize._run import Resume, Run, Sitting, seen_again
from convscope.transforms import Crops, Jitter, Noise, Transform

FEWEST_FOR_TSNE = 20
COMPONENTS = 50  # of the PCA, section 3.1
MEAN_OF = 15  # photographs in a mean image, section 3.1
SHOWN = 6  # photographs beside each facet
CROPS = 4  # views a step


@dataclass(frozen=True)
class Octave:
    """A part of the schedule: ``margin`` is the share of a side that stays still, ``denoise`` and ``rate`` go from the
    first number to the second; the rate is of 255 values, of the gradient over its mean size."""

    steps: int
    denoise: tuple[float, float]
    rate: tuple[float, float]
    scale: float = 1.0
    margin: float = 0.0


SCHEDULE = (
    Octave(190, (0.4, 0.4), (1.0, 2.0)),
    Octave(150, (0.01, 2.0), (1.0, 1.0), scale=1.2),
    Octave(20, (0.1, 2.0), (2.0, 2.0), margin=50 / 227),
    Octave(10, (0.4, 2.0), (2.0, 2.0)),
)


@technique(
    family="synthesize",
    order=2,
    paper="Nguyen, Yosinski & Clune 2016, arXiv:1602.03616, section 3",
    see="Beside each facet the photographs that it stands for: what they share should be what is drawn.",
    caution=(
        "The clusters are of these photographs, and their number is yours: another number cuts them otherwise. Each "
        "picture starts from a mean photograph, so its layout and colours are the photographs', not only the network's."
    ),
    quick={"facets": 1, "steps": 4, "target": 0},
    example={"target": "sunflower", "facets": 6, "steps": 24},
    together=True,
)
def facets(
    network: Network,
    images: Tensor,
    *,
    target: Annotated[
        Target, Field(description="class, an index or a label; the one that most photographs are taken for if left out")
    ] = None,
    layer: Layer = None,
    facets: Annotated[int, Field(ge=1, description="how many kinds of photographs to tell apart")] = 4,
    schedule: Annotated[
        Literal["clear", "published"],
        Field(description="published: the paper's, in pixels; clear: as the default preset of visualize draws"),
    ] = "clear",
    steps: Annotated[int, Field(ge=4, description="steps of each ascent")] = 128,
    seed: Seed = 0,
    resume: Resume = None,
) -> Pictures:
    """A picture of a class for each kind of photograph that the network finds it in.

    Args:
        network: a classifier.
        images: (N, 3, H, W) in [0, 1], photographs of one class; a folder on the command line.
        target: the class; the one that most of the photographs are taken for if left out.
        layer: whose codes tell the photographs apart; the layer before the classifier if left out.
        facets: clusters.
        schedule: ``published``, shared out over the octaves as the paper's 370 steps; or ``clear``, at twice the size.
        steps: of each ascent.
        seed: of clustering, t-SNE and views.
        resume: a state, for the same options and photographs.

    Returns:
        ``values`` (facets, 3, h, w) in [0, 1], twice as large as the photographs where the schedule is clear; beside
        each the photographs nearest to its cluster's centre. The summary lists, for each facet, how many photographs it
        stands for, which, and what the network makes of its picture.

    Raises:
        UnknownTarget, UnknownLayer; OptionError for fewer photographs than facets, or several targets.
    """
    if len(images) < facets:
        raise OptionError(f"{facets} facets need as many photographs, and there are {len(images)}; give more of them")
    where = layer or network.code_layer
    codes, logits = _seen(network, images, where)
    wanted = _one(network, target, logits)
    points = placed(codes, seed)
    groups = clusters(points, facets, seed)
    starts = torch.stack([images[list(group[:MEAN_OF])].float().mean(0) for group in groups])
    task, sitting = _Task(network, wanted, steps, seed), Sitting(resume)
    draw = task.published if schedule == "published" else task.clear
    run = sitting.through(
        batched(
            lambda part: draw(starts[part].to(network.device), sitting),
            len(starts), max(1, network.max_batch // CROPS), "facets",
        )
    )  # fmt: skip
    found = _grid(network, images, groups[: len(run.images)], run.images, wanted, where)
    return replace(found, notes=run.notes, state=run.state)


def _seen(network: Network, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """(N, C) codes and (N, classes) logits."""

    def some(part: slice) -> tuple[Tensor, Tensor]:
        seen = observe(network, images[part], [layer, OUTPUT])
        return network.codes(layer, seen[layer]).float().cpu(), network.check_logits(seen[OUTPUT]).float().cpu()

    codes, logits = zip(*batched(some, len(images), network.max_batch), strict=True)
    return torch.cat(codes), torch.cat(logits)


def _one(network: Network, target: int | str | Sequence[int | str] | None, logits: Tensor) -> int:
    """The class: the one that was given, or that most photographs are taken for."""
    found = network.targets(target, logits).unique()
    if target is not None and len(found) > 1:
        names = ", ".join(network.label(int(each)) for each in found)
        raise OptionError(f"facets are those of one class, and there are {len(found)} targets: {names}; give one")
    return int(found) if target is not None else int(logits.argmax(1).mode().values)


def placed(codes: Tensor, seed: int) -> Points:
    """Codes (N, C) as points: their first 50 principal components, and of these a t-SNE map where there are enough."""
    points, _ = principal(codes.numpy(), min(COMPONENTS, len(codes), codes.shape[1]))
    if len(points) < FEWEST_FOR_TSNE:
        return points
    perplexity = min(30.0, (len(points) - 1) / 3)
    near = affinities(points, perplexity, seed, 1, "facets")
    tsne = require("openTSNE", "facets").TSNE(perplexity=perplexity, random_state=seed, initialization="pca", n_jobs=1)
    return np.asarray(tsne.fit(points, near))


def clusters(points: Points, count: int, seed: int) -> list[list[int]]:
    """The numbers of the points of each cluster, nearest to its centre first; the largest cluster first."""
    found = require("sklearn.cluster", "facets").KMeans(count, random_state=seed, n_init=10).fit(points)
    distance = found.transform(points)
    groups = []
    for cluster in range(count):
        members = np.flatnonzero(found.labels_ == cluster)
        groups.append([int(i) for i in members[np.argsort(distance[members, cluster], kind="stable")]])
    return sorted((group for group in groups if group), key=len, reverse=True)


def shared_out(schedule: Sequence[Octave], steps: int) -> list[Octave]:
    """The octaves with their steps in proportion, at least one each."""
    total = sum(octave.steps for octave in schedule)
    return [
        Octave(max(1, round(o.steps * steps / total)), o.denoise, o.rate, o.scale, o.margin) for o in schedule
    ]  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """What is the same for every facet."""

    network: Network
    target: int
    steps: int
    seed: int

    def published(self, starts: Tensor, sitting: Sitting) -> Run:
        """(F, 3, H, W): every start through all octaves."""
        size = (starts.shape[-2], starts.shape[-1])
        octaves = shared_out(SCHEDULE, self.steps)

        def octave(images: Tensor, number: int) -> Run:
            return sitting.run(partial(self._octave, images, octaves[number], size), total=octaves[number].steps)

        run = _in_turn(starts, octave, len(octaves), sitting)
        return replace(run, images=F.interpolate(run.images, size, mode="bilinear", antialias=True).clamp(0, 1))

    def clear(self, starts: Tensor, sitting: Sitting) -> Run:
        """(F, 3, 2 H, 2 W): first what lies in the middle, then all."""
        size = (starts.shape[-2], starts.shape[-1])
        shares = [(spread, max(1, round(share * self.steps))) for spread, share in ((0.05, 0.3), (0.15, 0.7))]

        def octave(images: Tensor, number: int) -> Run:
            spread, steps = shares[number]
            return sitting.run(partial(self._widened, images, spread, steps, size), total=steps)

        images = F.interpolate(starts, scale_factor=2, mode="bicubic", antialias=True).clamp(0, 1)
        return _in_turn(images, octave, len(shares), sitting)

    def _widened(
        self, images: Tensor, spread: float, steps: int, size: tuple[int, int], begun: State | None
    ) -> Iterator[Step]:  # fmt: skip
        transforms: list[Transform] = [Crops(CROPS, 0.5, 0.75, spread, size), Noise(0.08)]
        return optimize(
            self.network, class_score(self.network, self.target), Fourier.of(images).to(images.device), steps=steps,
            transforms=transforms, view=size, seed=self.seed, resume=begun,
        )  # fmt: skip

    def _octave(self, images: Tensor, octave: Octave, size: tuple[int, int], begun: State | None) -> Iterator[Step]:
        larger = [round(side * octave.scale) for side in size]
        if tuple(larger) != images.shape[-2:]:
            images = F.interpolate(images, larger, mode="bilinear", antialias=True)
        regularizers: list[Regularizer] = [MeanOne(), Ramp(*octave.rate, octave.steps)]
        regularizers += [Frame(octave.margin)] if octave.margin else []
        regularizers += [Denoise(*octave.denoise, octave.steps)]
        crops: list[Transform] = [Jitter(larger[0] - size[0])] if larger[0] > size[0] else []
        return optimize(
            self.network, class_score(self.network, self.target), Pixels(images), steps=octave.steps, optimizer="sgd",
            rate=1 / 255, regularizers=regularizers, transforms=crops, view=size, seed=self.seed, resume=begun,
        )  # fmt: skip


def _in_turn(images: Tensor, octave: Callable[[Tensor, int], Run], count: int, sitting: Sitting) -> Run:
    """Every octave from what the one before has made, up to the one that the user stops."""
    run = None
    try:
        for number in progress.over(count, "octaves"):
            run = octave(images if run is None else run.images.to(images.device), number)
            if run.state is not None:
                break
    except (KeyboardInterrupt, progress.Cancelled):
        if run is None:
            raise
        return sitting.stopped(run, "an octave")
    assert run is not None
    return run


def _grid(
    network: Network, images: Tensor, groups: Sequence[Sequence[int]], made: Tensor, target: int, layer: str
) -> Pictures:
    tiles = torch.ones(len(groups), min(SHOWN, max(map(len, groups))), 3, *images.shape[-2:])
    for row, group in zip(tiles, groups, strict=True):
        row[: len(group)] = images[list(group[: len(row)])].float().cpu()
    shown = torch.stack([fit(picture, (images.shape[-2], images.shape[-1])) for picture in made])
    probabilities = seen_again(network, shown).softmax(1)
    told: list[dict[str, Any]] = []
    for group, shares in zip(groups, probabilities, strict=True):
        best = int(shares.argmax())
        predicted = {"label": network.label(best), "index": best, "probability": float(shares[best])}
        told.append({"photographs": list(group), "count": len(group), "predicted": predicted})
    name = network.label(target)
    return Pictures(
        values=made, tiles=tiles, images=shown, layer=layer, per_picture=False, quantity="photographs of each facet",
        titles=[f"{name}: {len(group)} of {len(images)} photographs" for group in groups],
        summaries=[{"target": {"label": name, "index": target}, "facets": told}],
    )  # fmt: skip
