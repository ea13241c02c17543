"""Whether a network is well: what its channels did over a whole data set, and what its weights look like.

Four things are asked of every layer.

- **Dead channels**: the share without a value above zero on any picture, and *nearly dead* ones, that are silent on all
  but one picture in a hundred.
- **Noise**: how smooth its filters are, against the same weights with the places within each filter shuffled. Smooth
  filters in the first layer mean that training went well (CS231n, Understanding and visualizing networks).
- **Structure**: its largest singular value, as a matrix of outputs by inputs, over that of the same weights shuffled.
  It is 1 for independent random numbers, whatever their distribution, which is what a network begins with, and rises as
  soon as outputs share what they look at (after Martin & Mahoney 2021, JMLR 22-165, who compare with the law of
  Marchenko and Pastur; shuffling is that law for any distribution and size).
- **Gradient**: the size of the loss's gradient at the layer, relative to the middle of all layers.

And one of the whole: whether accuracy, where the index knows the classes, is above chance. What is out of order is said
with its number, and with what it usually means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from convscope import progress
from convscope.index import Index
from convscope.intervals import proportion
from convscope.network import Network
from convscope.registry import Seed, technique
from convscope.results import Checkup
from convscope.vitals import (
    DEAD,
    NOISY,
    VANISHED,
    Finding,
    dead_channels,
    gradient_flow,
    noisy_filters,
    smoothness,
    together,
)  # fmt: skip

NEARLY = 0.99  # share of pictures on which a nearly dead channel is silent
SHUFFLES = 5
LEARNED = 1.1  # structure from which on a layer has learned something
UNTOUCHED = 0.25  # share of layers with structure below which a network is untrained
FILTERS = 32
COLUMNS = (
    "channels", "dead", "nearly_dead", "zeros", "smoothness", "smoothness_of_noise", "structure", "gradient",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """What is known of one layer; NaN for what it lacks."""

    name: str
    channels: int
    dead: float = math.nan
    nearly_dead: float = math.nan
    zeros: float = math.nan
    smoothness: float = math.nan
    smoothness_of_noise: float = math.nan
    structure: float = math.nan
    gradient: float = math.nan

    @property
    def numbers(self) -> list[float]:
        return [float(getattr(self, name)) for name in COLUMNS]


@technique(
    family="dataset",
    order=6,
    paper="CS231n notes, Neural networks 1 to 3; Martin & Mahoney 2021, JMLR 22-165, for structure",
    see="Bars in the colour of the accent: what is out of order. The findings say what that usually means.",
    caution=(
        "Channels are dead for these pictures; others may wake them. A sound network may still be right for the wrong "
        "reasons: ask `strategies`."
    ),
)
def health(
    index: Index,
    *,
    silent: Annotated[
        float, Field(gt=0.5, le=1, description="share of pictures on which a channel is silent to be nearly dead")
    ] = NEARLY,
    seed: Seed = 0,
) -> Checkup:
    """Whether training went well: dead channels, noisy filters, weights without structure, gradients that are off.

    Args:
        index: of many and various pictures: a channel is only dead if nothing wakes it.
        silent: see ``nearly_dead``.
        seed: of the shuffles.

    Returns:
        ``values`` (layers, 8), a row a layer in the order of the network, columns as in ``numeric``: number of
        channels; shares of dead and of nearly dead ones, and of zeros; smoothness of the filters and of the same
        shuffled; structure; and gradient, NaN for what a layer lacks. The summary holds ``verdict`` (``sound``,
        ``untrained`` or ``ailing``), ``findings`` (``where``, ``sign``, ``meaning``, ``grave``), ``accuracy`` with its
        interval and ``chance``, and ``layers`` with the same by name.
    """
    network = index.network
    layers = [_layer(index, network, name, silent, seed) for name in progress.over(_names(index), "layers")]
    layers = _with_gradients(index, layers)
    accuracy = _accuracy(index)
    untrained = _untrained(layers)
    findings = together([*_of_all(layers, accuracy, untrained), *_of_layers(index, layers)])
    verdict = "untrained" if untrained else "ailing" if any(f.grave for f in findings) else "sound"
    return _result(index, network, layers, findings, verdict, accuracy)


# ---- what is measured


def _names(index: Index) -> list[str]:
    """Layers of the index, and the layers with weights that they do not stand for, in the order of the network."""
    parts = dict(index.network.module.named_modules())
    order = [info.name for info in index.network.layers()]
    carried = {_weights_of(index.network, name) for name in index.layers}
    weighted = [n for n in order if isinstance(parts[n], (nn.Conv2d, nn.Linear)) and n not in carried]
    runs = list(index.network.convolutions)

    def place(name: str) -> tuple[int, int]:
        there = _weights_of(index.network, name) or name.partition(":")[0]
        return order.index(there), runs.index(name) if name in runs else -1

    return sorted({*index.layers, *weighted}, key=place)


def _weights_of(network: Network, layer: str) -> str | None:
    """The layer whose weights made this one: itself, or the convolution that it stands behind."""
    if isinstance(network.module.get_submodule(layer.partition(":")[0]), (nn.Conv2d, nn.Linear)):
        return layer
    return network.convolutions.get(layer)


def _layer(index: Index, network: Network, name: str, silent: float, seed: int) -> Layer:
    measured = _of_weights(network, _weights_of(network, name), seed)
    info = network.layer(name)
    if name not in index.layers:
        return Layer(name, info.channels, **measured)
    told = index.statistics(name)
    zeros = float(np.average(told.zeros))
    if not _rectified(told):
        return Layer(name, info.channels, zeros=zeros, **measured)
    dead = told.silent >= 1
    nearly = (told.silent >= silent) & ~dead
    return Layer(name, info.channels, float(dead.mean()), float(nearly.mean()), zeros, **measured)


def _rectified(told: Any) -> bool:
    """Whether nothing lies below zero and something at it: otherwise a silent channel may well say something."""
    below = told.edges[1:] <= 0
    return not told.histogram[:, below].any() and bool((told.zeros > 0).any())


def _of_weights(network: Network, name: str | None, seed: int) -> dict[str, float]:
    if name is None:
        return {}
    part = network.module.get_submodule(name.partition(":")[0])
    weight: Tensor = part.weight.detach().float().cpu()  # type: ignore[operator]
    found = {"structure": structure(weight, seed)}
    if weight.ndim == 4 and max(weight.shape[2:]) > 1:
        found["smoothness"] = float(smoothness(weight).mean())
        found["smoothness_of_noise"] = float(smoothness(_mixed(weight, seed)).mean())
    return found


def structure(weight: Tensor, seed: int = 0) -> float:
    """The largest singular value of (outputs, inputs) over the mean of those of the same numbers shuffled.

    NaN for a depthwise or other matrix too thin to have any structure, and for zeros.
    """
    matrix = weight.flatten(1)
    if min(matrix.shape) < 3 or not matrix.any():
        return math.nan
    generator = torch.Generator().manual_seed(seed)
    noise = [
        float(torch.linalg.matrix_norm(matrix.flatten()[torch.randperm(matrix.numel(), generator=generator)]
                                       .view_as(matrix), 2))
        for _ in range(SHUFFLES)
    ]  # fmt: skip
    return float(torch.linalg.matrix_norm(matrix, 2)) / (sum(noise) / len(noise))


def _mixed(weight: Tensor, seed: int) -> Tensor:
    """The weights with the places within each kernel shuffled, each kernel by itself."""
    flat = weight.flatten(2)
    order = torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed)).argsort(2)
    return flat.gather(2, order).view_as(weight)


def _with_gradients(index: Index, layers: Sequence[Layer]) -> list[Layer]:
    """The mean size of the loss's gradient at each layer of the index, over the median of the layers'."""
    told = index.gradients()
    if not len(told.classes):
        return list(layers)
    means = np.average(told.layer_mean, axis=0, weights=told.counts)
    middle = float(np.median(means)) or math.nan
    shares = {name: float(mean) / middle for name, mean in zip(told.layers, means, strict=True)}
    return [replace(layer, gradient=shares.get(layer.name, math.nan)) for layer in layers]


@dataclass(frozen=True)
class _Accuracy:
    hits: int
    total: int
    chance: float  # the share of the most common class

    @property
    def at_chance(self) -> bool:
        return self.total > 0 and proportion(self.hits, self.total).low <= self.chance


def _accuracy(index: Index) -> _Accuracy:
    rows = index.pictures(["correct", "label_index"], "error is null and correct is not null").to_pydict()
    labels = np.array(rows["label_index"], int)
    chance = float(np.bincount(labels).max() / len(labels)) if len(labels) else math.nan
    return _Accuracy(sum(map(bool, rows["correct"])), len(labels), chance)


# ---- what it means


def _untrained(layers: Sequence[Layer]) -> bool:
    known = [layer.structure for layer in layers if math.isfinite(layer.structure)]
    return bool(known) and sum(value >= LEARNED for value in known) < UNTOUCHED * len(known)


def _of_all(layers: Sequence[Layer], accuracy: _Accuracy, untrained: bool) -> list[Finding]:
    found = []
    if untrained:
        largest = max(layer.structure for layer in layers if math.isfinite(layer.structure))
        found.append(Finding(
            "all layers", f"the weights have no more structure than shuffled ones (at most {largest:.2f} times)",
            "the network is untrained, or its weights were not loaded: look at the file that they come from", True,
        ))  # fmt: skip
    if accuracy.at_chance:
        share = 100 * accuracy.hits / accuracy.total
        found.append(Finding(
            "scores", f"{share:.1f} % of {accuracy.total:,} pictures are right, and the most common class has "
            f"{100 * accuracy.chance:.1f} %",
            "the network tells nothing apart: it is untrained or its training has diverged, or the folders are not "
            "named like its labels", True,
        ))  # fmt: skip
    return found


def _of_layers(index: Index, layers: Sequence[Layer]) -> list[Finding]:
    pictures = f"{len(index):,} pictures"
    found = [dead_channels(layer.name, layer.dead, pictures) for layer in layers]
    found += [_nearly_dead(layer, pictures) for layer in layers]
    first = next((layer for layer in layers if math.isfinite(layer.smoothness)), None)
    if first is not None:
        found.append(noisy_filters(first.name, first.smoothness, first.smoothness_of_noise))
    sized = [layer for layer in layers if math.isfinite(layer.gradient) and layer.gradient > 0]
    if len(sized) > 1:
        found.append(gradient_flow(sized[0].name, sized[-1].name, sized[0].gradient / sized[-1].gradient))
    return [finding for finding in found if finding is not None]


def _nearly_dead(layer: Layer, pictures: str) -> Finding | None:
    if not layer.nearly_dead >= 2 * DEAD:
        return None
    return Finding(
        layer.name, f"{100 * layer.nearly_dead:.0f} % of the channels answer to next to none of {pictures}",
        "rare things may need such channels; where they are many, the layer is wider than it needs to be, or units "
        "are dying",
    )  # fmt: skip


def _bad(layer: Layer, first: bool, untrained: bool) -> list[bool]:
    """For each bar; a single layer may well have no structure."""
    return [
        layer.dead >= DEAD, layer.nearly_dead >= 2 * DEAD, first and layer.smoothness < NOISY,
        untrained and layer.structure < LEARNED, layer.gradient < VANISHED or layer.gradient > 1 / VANISHED,
    ]  # fmt: skip


# ---- the result


def _result(
    index: Index, network: Network, layers: Sequence[Layer], findings: Sequence[Finding], verdict: str,
    accuracy: _Accuracy,
) -> Checkup:  # fmt: skip
    smooth = [layer.name for layer in layers if math.isfinite(layer.smoothness)]
    rows = [[layer.name, layer.channels, *map(_cell, COLUMNS[1:], layer.numbers[1:])] for layer in layers]
    return Checkup(
        values=torch.tensor([layer.numbers for layer in layers], dtype=torch.float64), rows=rows,
        columns=["layer", "channels", "dead", "nearly dead", "zeros", "smoothness", "of noise", "structure",
                 "gradient"],
        numeric=list(COLUMNS), verdict=verdict, sound=verdict == "sound", per_picture=False,
        findings=[(f.where, f.sign, f.meaning, f.grave) for f in findings],
        bars=[("dead", 1.0), ("nearly_dead", 1.0), ("smoothness", 1.0), ("structure", 0.0), ("gradient", 0.0)],
        bad=torch.tensor([_bad(layer, [layer.name] == smooth[:1], verdict == "untrained") for layer in layers]),
        filters=_filters(network, smooth[0] if smooth else None),
        summaries=[_summary(layers, findings, verdict, accuracy)],
        notes=[f"{verdict}: {_said(accuracy, len(index))}", *map(str, findings)],
    )  # fmt: skip


def _cell(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if name in ("dead", "nearly_dead", "zeros"):
        return f"{100 * value:.0f} %"
    return f"{value:.2f}" if value >= 0.01 or value <= 0 else f"{value:.1e}"


def _filters(network: Network, layer: str | None) -> Tensor:
    name = _weights_of(network, layer) if layer else None
    if name is None:
        return torch.zeros(0, 3, 1, 1)
    weight: Tensor = network.module.get_submodule(name).weight.detach().float().cpu()  # type: ignore[operator]
    return weight[:FILTERS] if weight.shape[1] == 3 else weight[:FILTERS].mean(1, keepdim=True)


def _said(accuracy: _Accuracy, pictures: int) -> str:
    if not accuracy.total:
        return f"{pictures:,} pictures, of classes that are not known"
    share = proportion(accuracy.hits, accuracy.total)
    return (
        f"{accuracy.total:,} pictures, {100 * share.mean:.1f} % right "
        f"({100 * share.low:.1f} to {100 * share.high:.1f}), where the most common class has "
        f"{100 * accuracy.chance:.1f} %"
    )


def _summary(layers: Sequence[Layer], findings: Sequence[Finding], verdict: str, accuracy: _Accuracy) -> dict[str, Any]:
    share = proportion(accuracy.hits, accuracy.total)
    told = {"share": share.mean, "low": share.low, "high": share.high, "pictures": accuracy.total}
    records = [
        {"name": each.name, **{c: None if v != v else v for c, v in zip(COLUMNS, each.numbers, strict=True)}}
        for each in layers
    ]
    return {
        "verdict": verdict, "accuracy": told if accuracy.total else None,
        "chance": accuracy.chance if accuracy.total else None, "layers": records,
        "findings": [{"where": f.where, "sign": f.sign, "meaning": f.meaning, "grave": f.grave} for f in findings],
    }  # fmt: skip
