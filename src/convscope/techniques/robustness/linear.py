"""Why networks are fooled, on the simplest of them: many small changes along the weights add up (Goodfellow 2015).

Softmax regression has a weight for each number of a picture and nothing else. Of two classes, the score of the one is
above that of the other by w . x + b, where w is the difference of their weights. A change of every number by at most
epsilon lowers that by up to

    epsilon * sum of |w| = epsilon * dimension * mean of |w|

which grows with the dimension, however small epsilon is, and a change of length d lowers it by up to d * length of w.
So what is needed is margin / sum of |w| in L-inf and margin / length of w in L2, and since the sum of n numbers is at
most sqrt(n) times their length, the first is at least the second over sqrt(n). Where the distance in L2 stays what it
is while the dimension grows, as with evidence that is spread over ever more pixels, epsilon falls as 1 / sqrt(n). Where
more pixels say the same again, margin and sum of |w| grow alike, and epsilon stays what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy.optimize import minimize
from torch import Tensor, nn

from convscope import progress
from convscope.errors import ImageError, OptionError
from convscope.images import find_images, fit, read_image
from convscope.network import Network
from convscope.parameterizations import drawn
from convscope.registry import Seed, technique
from convscope.results import Curve, Parts, Pictures
from convscope.techniques.robustness._attack import (
    LEVEL,
    Task,
    attack,
    logits_of,
    on_grid,
    quantised,
    reported,
    task,
)

Array = npt.NDArray[np.float64]
HELD_OUT = 0.3  # share of the pictures of each class that is not trained on
SHOWN = 4  # pictures that are attacked on the sheet
SHAPES = ("disc", "ring", "cross", "bars")
CONTRAST, NOISE = 1.1, 0.12  # of generated pictures: length of the shape in each channel, spread of each pixel


@technique(
    family="robustness",
    order=7,
    paper="arXiv:1412.6572, section 3",
    see=(
        "The weights are templates, and the change that fools looks like them. Every number moves by a few levels, and "
        "the scores by that times the sum of |w|. Where evidence is spread over all numbers, as in the generated "
        "pictures, the least epsilon falls with their count; where it does not, more numbers only repeat each other."
    ),
    caution=(
        "The algebra is exact for a linear classifier only, and in the generated pictures the evidence is spread over "
        "all pixels on purpose: with photographs the curve can be flat."
    ),
    quick={"sides": [3, 4], "side": 4, "limit": 8},
)
def linear(
    *,
    folder: Annotated[
        str | Path | None,
        Field(description="folder with a folder of pictures for each class; pictures are generated if left out"),
    ] = None,
    classes: Annotated[Sequence[str] | None, Field(description="folders to take of it; all if left out")] = None,
    side: Annotated[int, Field(ge=2, le=256, description="side of the pictures that are shown, in pixels")] = 32,
    sides: Annotated[
        Sequence[int], Field(min_length=2, description="sides of the pictures of the curve, in pixels; several")
    ] = (4, 8, 16, 32, 64),
    limit: Annotated[int, Field(ge=2, description="pictures of each class at most")] = 100,
    decay: Annotated[float, Field(ge=0, description="weight of the squared length of all weights")] = 1e-3,
    seed: Seed = 0,
) -> Parts:
    """The attack on softmax regression, where algebra explains it: many small changes along the weights add up.

    Trained on the spot on 70 % of the pictures, by L-BFGS, at each of several sizes. For each of the others that it
    gets right, the change that it takes is computed from the weights, and tried on 8-bit pictures of ``side``.

    Args:
        folder: photographs, scaled and cropped to squares. Without it: four faint shapes in noise, of one length at
            every size, so that the more pixels there are, the fainter each is.
        classes: two or more of its folders.
        side: of the templates and of the attacked pictures.
        sides: of the curve.
        limit, decay, seed: of the training; ``seed`` draws which pictures are held out.

    Returns:
        Three parts: the weights of each class as a picture; attacked pictures; curves over the dimension. ``values``
        (5, sides) are, for each side, the dimension, the accuracy on held-out pictures, the median epsilon that is
        needed in linf and in l2, and the median sum of |w|. The summary names them and says of each attacked picture
        the epsilon ``needed`` by algebra, and ``linf`` of the file that fooled.

    Raises:
        OptionError for fewer than two classes; ImageError for a folder without pictures.

    Departures from the paper: it derives the argument for one unit; here it is counted on trained classifiers.
    """
    if min(sides) < 2 or max(sides) > 256:
        raise OptionError(f"sides should lie between 2 and 256, not {min(sides)} to {max(sides)}")
    source = _Generated(limit, seed) if folder is None else _Folder.of(Path(folder), classes, limit, max(*sides, side))
    kept = _split([len(names) for names in source.members], seed)
    every = progress.over(sorted({*sides, side}), "sides")
    models = {each: _Model.trained(source, each, kept, decay) for each in every}
    ordered = sorted(set(sides))
    numbers = [models[each].numbers() for each in ordered]
    shown, needed = _attacked(models[side], seed)
    return Parts(
        values=torch.tensor(numbers, dtype=torch.float64).T, per_picture=False, notes=source.notes,
        summaries=[_summary(ordered, numbers, source.names, shown, needed)],
        parts=[
            (f"What it has learned: the weights of each class at {side} x {side}", _templates(models[side])),
            ("What fools it: the least epsilon along the weights that the 8-bit file needs", shown),
            ("What it takes at each size: the median epsilon is margin / sum of |w|", _curve(ordered, numbers)),
        ],
    )  # fmt: skip


# ---- pictures


@dataclass(frozen=True)
class _Folder:
    """Pictures in folders of classes."""

    names: tuple[str, ...]
    members: list[list[Path]]
    largest: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, classes: Sequence[str] | None, limit: int, largest: int) -> _Folder:
        found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        names = [path.name for path in found]
        unknown = [name for name in classes or () if name not in names]
        if unknown:
            raise OptionError(f"{folder} has no folder {unknown[0]!r}; it has {', '.join(names[:5]) or 'none'}")
        chosen = [path for path in found if not classes or path.name in classes]
        if len(chosen) < 2:
            raise OptionError(f"{folder} should hold a folder of pictures for each of two or more classes")
        members = [find_images(path)[:limit] for path in chosen]
        few = [path.name for path, inside in zip(chosen, members, strict=True) if len(inside) < 2]
        if few:
            raise ImageError(f"{folder / few[0]} holds fewer than two pictures; one is trained on, one is tried on")
        return cls(tuple(path.name for path in chosen), members, largest)

    @cached_property
    def _read(self) -> Tensor:
        """All of them at the largest side."""
        paths = [path for inside in self.members for path in inside]
        size = (self.largest, self.largest)
        return torch.stack([fit(read_image(path), size) for path in progress.over(paths, "pictures")])

    def pictures(self, side: int) -> Tensor:
        """(N, 3, side, side), class after class."""
        return fit(self._read, (side, side))


class _Generated:
    """Faint shapes in noise: at every size of the same length, so that each pixel shows the less the more there are."""

    names = SHAPES
    notes = ("generated pictures: four faint shapes in noise; --folder takes photographs in folders of classes",)

    def __init__(self, limit: int, seed: int) -> None:
        self.members = [list(range(limit))] * len(SHAPES)
        self._limit, self._seed = limit, seed

    def pictures(self, side: int) -> Tensor:
        """(N, 3, side, side), class after class."""
        shapes = torch.stack([_shape(name, side) for name in SHAPES]).repeat_interleave(self._limit, 0)
        noise = drawn((3, side, side), len(shapes), self._seed * 10_000_019 + side * 100_003)
        return (0.5 + CONTRAST * shapes[:, None] + NOISE * noise).clamp(0, 1)


def _shape(name: str, side: int) -> Tensor:
    """(side, side) with mean 0 and length 1."""
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    rows, columns = at[:, None].expand(side, side), at[None, :].expand(side, side)
    radius = (rows.square() + columns.square()).sqrt()
    found = {
        "disc": radius < 0.6, "ring": (radius > 0.5) & (radius < 0.95),
        "cross": (rows.abs() < 0.3) | (columns.abs() < 0.3), "bars": (rows * 2).floor() % 2 == 0,
    }[name].float()  # fmt: skip
    found = found - found.mean()
    return found / found.norm().clamp(min=1e-9)


def _split(counts: Sequence[int], seed: int) -> npt.NDArray[np.bool_]:
    """(N,) true where a picture is trained on; of each class at least one is and one is not."""
    generator = np.random.default_rng(seed)
    found = []
    for count in counts:
        kept = np.ones(count, bool)
        kept[generator.permutation(count)[: max(1, round(HELD_OUT * count))]] = False
        found.append(kept)
    return np.concatenate(found)


# ---- softmax regression


@dataclass(frozen=True)
class _Model:
    """Weights (classes, D) and biases, and the held-out pictures with their labels."""

    weights: Array
    biases: Array
    pictures: Tensor
    labels: npt.NDArray[np.int64]
    names: Sequence[str]

    @classmethod
    def trained(cls, source: Any, side: int, kept: npt.NDArray[np.bool_], decay: float) -> _Model:
        """On the ``kept`` pictures of that side."""
        pictures = on_grid(source.pictures(side))
        labels = np.repeat(np.arange(len(source.members)), [len(inside) for inside in source.members])
        rows = pictures.flatten(1).double().numpy() - 0.5
        weights, biases = regression(rows[kept], labels[kept], len(source.members), decay)
        return cls(weights, biases, pictures[torch.from_numpy(~kept)], labels[~kept], source.names)

    def scores(self) -> Array:
        """(N, classes) of the held-out pictures."""
        scores: Array = (self.pictures.flatten(1).double().numpy() - 0.5) @ self.weights.T + self.biases
        return scores

    def right(self) -> npt.NDArray[np.int64]:
        """The held-out pictures that it gets right."""
        return np.flatnonzero(self.scores().argmax(1) == self.labels)

    def needed(self, order: float) -> tuple[Array, npt.NDArray[np.int64]]:
        """(N,) least change in the norm whose dual has that ``order``, and the class whose plane is that near."""
        scores, own = self.scores(), self.labels
        between = self.weights[own][:, None] - self.weights[None]  # (N, classes, D)
        lengths = np.linalg.norm(between, ord=order, axis=2)
        margins = np.take_along_axis(scores, own[:, None], 1) - scores
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = np.where(lengths > 0, margins / lengths, np.inf)
        nearest = distances.argmin(1)
        return distances[np.arange(len(own)), nearest], nearest

    def numbers(self) -> list[float]:
        """Dimension, accuracy, median epsilon in linf and l2, median sum of |w| of what is got right."""
        right = self.right()
        if not len(right):
            return [self.weights.shape[1], 0.0, math.nan, math.nan, math.nan]
        flat, nearest = self.needed(1)
        straight, _ = self.needed(2)
        sums = np.abs(self.weights[self.labels] - self.weights[nearest]).sum(1)
        medians = [float(np.median(each[right])) for each in (flat, straight, sums)]
        return [self.weights.shape[1], len(right) / len(self.labels), *medians]

    @property
    def side(self) -> int:
        return self.pictures.shape[-1]

    def network(self) -> Network:
        """The same as a network, for the attack."""
        layer = nn.Linear(self.weights.shape[1], self.weights.shape[0])
        layer.weight.data = torch.from_numpy(self.weights).float()
        layer.bias.data = torch.from_numpy(self.biases).float()
        half = torch.full((3,), 0.5)
        return Network(
            nn.Sequential(nn.Flatten(), layer).eval(), mean=half, std=2 * half, labels=tuple(self.names),
            name="softmax regression", input_size=(self.side, self.side), weights="trained on the spot",
        )  # fmt: skip


def regression(
    rows: Array, labels: npt.NDArray[np.int64], classes: int, decay: float
) -> tuple[Array, Array]:  # fmt: skip
    """(classes, D) weights and (classes,) biases of softmax regression.

    The least mean cross-entropy plus ``decay`` / 2 times the squared length of the weights, by L-BFGS from zero.
    """
    count, size = rows.shape
    one_hot = np.eye(classes)[labels]

    def loss(flat: Array) -> tuple[float, Array]:
        weights, biases = flat[: classes * size].reshape(classes, size), flat[classes * size :]
        scores = rows @ weights.T + biases
        scores -= scores.max(1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        missing = (np.exp(logs) - one_hot) / count
        value = -float((one_hot * logs).sum()) / count + decay / 2 * float((weights**2).sum())
        return value, np.concatenate([(missing.T @ rows + decay * weights).ravel(), missing.sum(0)])

    found = minimize(loss, np.zeros(classes * (size + 1)), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return found.x[: classes * size].reshape(classes, size), found.x[classes * size :]


# ---- what is shown


def _templates(model: _Model) -> Pictures:
    tiles = torch.from_numpy(model.weights).float().view(len(model.weights), 3, model.side, model.side)
    return Pictures(
        values=tiles, tiles=tiles[None], summaries=[{}], per_picture=False, signed=True, each=True,
        tile_titles=list(model.names), quantity="weight", columns=min(8, len(model.names)),
    )  # fmt: skip


def _attacked(model: _Model, seed: int) -> tuple[Any, list[float]]:
    """Some of the pictures that it gets right with the smallest epsilon whose file fools; and what algebra says."""
    network, right = model.network(), model.right()
    if not len(right):
        raise OptionError(f"at side {model.side} no held-out picture is classified rightly; give more pictures")
    chosen = _of_each(model.labels, np.random.default_rng(seed).permutation(right))
    needed, nearest = model.needed(1)
    job = task(network, model.pictures[chosen], label=model.labels[chosen].tolist())
    pictures = _least(job, torch.from_numpy(nearest[chosen]))
    said = [float(needed[place]) for place in chosen]
    lines = [f"algebra says {each * 255:.2f}/255" for each in said]
    return reported(job, pictures, norm="linf", more=[{"needed": each} for each in said], lines=lines), said


def _of_each(labels: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> list[int]:
    """Up to :data:`SHOWN` pictures of as many classes as there are, in that order."""
    firsts = list({int(labels[place]): int(place) for place in order[::-1]}.values())[::-1]
    return [*firsts, *(int(place) for place in order if int(place) not in firsts)][:SHOWN]


def _least(job: Task, targets: Tensor) -> Tensor:
    """One step along the weights of the nearest class, of one level more each time, until the file fools."""
    found, left = job.originals.clone(), torch.arange(len(job.originals))
    for level in range(1, 256):
        part, epsilon = job.part(left), level * LEVEL
        made = attack(
            job.network, part.originals, targets[left], epsilon=epsilon, steps=1, rate=epsilon, targeted=True,
            loss="margin",
        )  # fmt: skip
        found[left] = quantised(part.originals, made, epsilon, "linf")
        left = left[part.margins(logits_of(job.network, found[left])) <= 0]
        if not len(left):
            break
    return found


def _curve(sides: Sequence[int], numbers: Sequence[Sequence[float]]) -> Curve:
    table = np.array(numbers)
    flat, spread = table[:, 2] * 255, table[:, 3] * 255 / np.sqrt(table[:, 0])
    series = ["needed in linf", "needed in l2 / √dimension", "sum of |w|", "accuracy"]
    return Curve(
        values=torch.from_numpy(np.stack([flat, spread, table[:, 4], table[:, 1]])), summaries=[{}],
        per_picture=False, series=series, points=[f"{3 * side * side:,} ({side} x {side})" for side in sides],
        panels=[
            ("Median epsilon, in levels of 255", series[:2], True),
            ("What epsilon is multiplied by", series[2:3], True),
            ("Accuracy on held-out pictures", series[3:], False),
        ],
        axis="numbers a picture",
    )  # fmt: skip


def _summary(
    sides: Sequence[int], numbers: Sequence[Sequence[float]], names: Sequence[str], shown: Any, needed: Sequence[float]
) -> dict[str, Any]:  # fmt: skip
    keys = ("dimension", "accuracy", "epsilon_linf", "epsilon_l2", "sum_of_weights")
    rows = [dict(zip(keys, row, strict=True)) for row in numbers]
    return {
        "classes": list(names),
        "sides": [{"side": side, **row} for side, row in zip(sides, rows, strict=True)],
        "attacked": [
            {"label": s["label"], "taken_for": s["adversarial"]["label"], "needed": by_algebra, "linf": s["linf"],
             "success": s["success"]}
            for s, by_algebra in zip(shown.summaries, needed, strict=True)
        ],
    }  # fmt: skip
