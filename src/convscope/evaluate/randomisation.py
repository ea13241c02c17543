"""Randomisation check: does a map change when the network forgets what it has learned? (Adebayo et al. 2018)

Weights are drawn anew from the last layer to the first, in stages that add up; at each stage the map, of the class
that the trained network saw, is compared with the trained network's map of the same picture:

    rank correlation (Spearman) of the signed maps, and of their sizes;  structural similarity (SSIM) of their sizes

(arXiv:1810.03292, sections 3 and 4.1). A map that stays the same says something about the picture, as an edge
detector does, and little about what the network has learned. The likeness of a method is the mean rank correlation
over pictures and stages, of the signed maps or of their sizes, whichever is larger. A method passes if the 95 %
interval of that mean lies below :data:`THRESHOLD`, fails if it lies above, and is unclear if it holds it.

The paper draws no line; this one was set by looking at the built-in network and SqueezeNet, where it lies between
what the literature agrees on: the plain gradient and Grad-CAM on one side, guided backpropagation and guided Grad-CAM
on the other. The stages matter: with the first layer random, too, every map that shows the picture's edges through
its filters moves, also one that hardly depends on anything behind it.

Departures: five stages at equal distances instead of every layer; layers are drawn by their own ``reset_parameters``
(batch norm becomes the identity), and by a normal distribution of the same mean and spread where they have none. A
map that is constant at a stage, as of a class whose unit has died, has no correlation and is left out there. The
network itself is not touched: copies are, which share the weights that are not drawn anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from convscope import progress
from convscope.errors import NetworkError
from convscope.evaluate.measures import Column, Measure, Scores, each
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample, without_nan
from convscope.intervals import interval
from convscope.network import Network
from convscope.zoo.options import seeded

STAGES = 5
THRESHOLD = 0.4


@dataclass(frozen=True)
class Alike:
    """How alike two maps of one picture are, each in [-1, 1]: NaN where a map is constant."""

    signed: float
    size: float
    ssim: float


# ---- weights


def weighty(network: Network) -> list[str]:
    """The modules with parameters of their own that run, from the last to the first."""
    modules = dict(network.module.named_modules())
    heavy = [name for name, part in modules.items() if any(True for _ in part.parameters(recurse=False))]
    names = [info.name for info in network.layers() if info.name in heavy]
    rest = [name for name in heavy if name not in names]  # of these no pass has told the place
    return [*reversed(names), *reversed(rest)]


def cascade(network: Network, *, stages: int = STAGES, seed: int = 0) -> Iterator[tuple[int, Network]]:
    """(how many layers are random, a copy of the network with them random), from few layers to all.

    Args:
        stages: how many copies; the last one has no trained layer left.
        seed: of the new weights. The generators of torch are left as they were.

    Raises :class:`NetworkError` for a network without weights, or one that cannot be copied.
    """
    names = weighty(network)
    if not names:
        raise NetworkError(f"{network.name} has no weights that could be drawn anew")
    done = 0
    current = network.module
    for number in sorted({max(1, math.ceil(len(names) * stage / stages)) for stage in range(1, stages + 1)}):
        current = _copy(current, names[done:number], network.name)
        modules = dict(current.named_modules())
        with seeded(seed + number), torch.no_grad():
            for name in names[done:number]:
                draw(modules[name])
        done = number
        yield number, replace(network, module=current, weights=f"{network.weights}, {number} layers drawn anew")


def _copy(module: nn.Module, redrawn: Sequence[str], name: str) -> nn.Module:
    """A copy that shares the weights of all layers but those, and of what is inside them."""
    modules = dict(module.named_modules())
    changed = {id(tensor) for layer in redrawn for tensor in _tensors(modules[layer])}
    shared: dict[int, Any] = {id(tensor): tensor for tensor in _tensors(module) if id(tensor) not in changed}
    try:
        return copy.deepcopy(module, shared)
    except (RuntimeError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{name} cannot be copied ({error}), and it is not changed in place: leave the randomisation check out"
        ) from error


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def draw(part: nn.Module) -> None:
    """New weights for one module, and not for those inside it, from torch's generator."""
    again = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
    if callable(again):
        again()
        return
    for parameter in part.parameters(recurse=False):
        if parameter.is_floating_point():
            values = parameter.detach()
            spread = float(values.std()) if values.numel() > 1 else 0.0
            values.normal_(float(values.mean()), spread)


# ---- likeness


def alike(trained: Tensor, other: Tensor) -> list[Alike]:
    """Of each pair of maps, both (N, H, W)."""
    return [_alike(a.double().numpy(), b.double().numpy()) for a, b in zip(trained, other, strict=True)]


def _alike(trained: Any, other: Any) -> Alike:
    sizes = np.abs(trained), np.abs(other)
    return Alike(spearman(trained, other), spearman(*sizes), _ssim(*sizes))


def spearman(one: Any, other: Any) -> float:
    """Rank correlation of two arrays, equal numbers sharing their mean rank; NaN where one is constant."""
    ranks = [_ranks(np.ravel(each)) for each in (one, other)]
    deviations = [r - r.mean() for r in ranks]
    size = math.sqrt(float((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum() / size) if size else math.nan


def _ranks(values: Any) -> Any:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]


def _ssim(one: Any, other: Any) -> float:
    """Of maps scaled to a largest value of 1."""
    if not one.max() or not other.max():
        return math.nan
    window = min(7, *one.shape)
    window -= 1 - window % 2
    return float(structural_similarity(one / one.max(), other / other.max(), data_range=1.0, win_size=window))


# ---- the measure


def likeness(stages: Sequence[Sequence[Alike]]) -> list[float]:
    """One number a picture: the mean over stages of the correlation, signed or of sizes, that is larger on the whole.

    ``stages`` holds a list of pictures a stage. NaN for a picture whose maps are constant at every stage.
    """
    kinds = [
        [_mean([getattr(alike, kind) for alike in picture]) for picture in zip(*stages, strict=True)]
        for kind in ("signed", "size")
    ]
    return max(kinds, key=lambda values: abs(found) if not math.isnan(found := _mean(values)) else -1.0)


Word = Literal["passes", "fails", "unclear", "–"]


def word(values: Sequence[float]) -> Word:
    """The verdict on a method whose pictures have these likenesses; a dash where nothing is known."""
    found = interval(values)
    if math.isnan(found.mean):
        return "–"
    low, high = (found.low, found.high) if found.mean >= 0 else (-found.high, -found.low)
    return "fails" if low > THRESHOLD else "passes" if high <= THRESHOLD else "unclear"


@dataclass(frozen=True)
class Verdict:
    """What the check says of a method; ``reason`` says why there is nothing."""

    word: Word
    likeness: float = math.nan
    pictures: int = 0
    reason: str = ""


def checked(
    stages: Iterable[Network], method: Maps, images: Tensor, targets: Sequence[int], trained: Tensor
) -> Verdict:
    """The verdict from maps (N, H, W) of the trained network and the networks of :func:`cascade`."""
    found = likeness([alike(trained, method(network, images, targets)) for network in stages])
    return Verdict(word(found), abs(_mean(found)), len(images))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """The likeness, one number a picture; every stage beside it."""
    stages: dict[str, list[tuple[int, list[Alike]]]] = {method.name: [] for method in methods}
    errors: dict[str, str] = {}
    for number, network in progress.over(cascade(sample.network, seed=sample.seed), "random stages", STAGES):
        for name, scores in each(methods, partial(_stage, number, network, sample, maps, stages)).items():
            errors |= {name: scores.error} if scores.error else {}
    return {
        name: Scores(error=errors[name]) if name in errors else Scores(
            {"randomised": likeness([found for _, found in seen])}, {"stages": [_told(*stage) for stage in seen]}
        )
        for name, seen in stages.items()
    }  # fmt: skip


def _stage(
    number: int, network: Network, sample: Sample, maps: Mapping[str, Tensor],
    stages: Mapping[str, list[tuple[int, list[Alike]]]], method: Maps,
) -> Scores:  # fmt: skip
    found = method(network, sample.images, sample.targets)
    stages[method.name].append((number, alike(maps[method.name], found)))
    return Scores()


def _told(number: int, found: Sequence[Alike]) -> dict[str, Any]:
    """A stage in JSON: means over pictures, and every picture."""
    kinds = {"signed": "rank_correlation_signed", "size": "rank_correlation_of_sizes", "ssim": "ssim_of_sizes"}
    columns = {key: [getattr(alike, kind) for alike in found] for kind, key in kinds.items()}
    means = {key: without_nan([_mean(values)])[0] for key, values in columns.items()}
    return {"random_layers": number, **means, "each": {key: without_nan(v) for key, v in columns.items()}}


RANDOMISATION = Measure(
    "randomisation", [Column("randomised", "likeness to random weights", -1)], run,
    "Adebayo et al. 2018, arXiv:1810.03292",
    "rank correlation with the maps of a network whose weights are random, last layers first",
)  # fmt: skip
