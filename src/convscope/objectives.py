"""What a technique asks about: one score a picture, of a class, a unit, a channel or a direction.

An objective is always something to maximise. It names the layers that it reads, and composes with ``+``, ``-`` and
``*``: ``class_score(network, 3) - 0.1 * unit(network, "conv2", Unit(5))``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from convscope.errors import OptionError, UnknownTarget
from convscope.hooks import OUTPUT
from convscope.network import Network
from convscope.weights import channels_last

Of = Literal["score", "probability", "loss"]


@dataclass(frozen=True)
class Objective:
    """A score for each picture, read off the activations of ``layers``; pictures never mix."""

    layers: frozenset[str]
    score: Callable[[Mapping[str, Tensor]], Tensor]
    description: str = ""

    def __call__(self, activations: Mapping[str, Tensor]) -> Tensor:
        """(N,), to be maximised."""
        return self.score(activations)

    def __add__(self, other: Objective) -> Objective:
        return Objective(
            self.layers | other.layers, lambda a: self(a) + other(a), f"{self.description} + {other.description}"
        )

    def __mul__(self, weight: float) -> Objective:
        return Objective(self.layers, lambda a: self(a) * weight, f"{weight:g} * ({self.description})")

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: Objective) -> Objective:
        return self + other * -1.0


def class_score(network: Network, targets: Tensor | int, of: Of = "score") -> Objective:
    """The score of one class a picture.

    Args:
        network: whose logits.
        targets: (N,) class indices, or one for all. Of K N views of N pictures each picture's own is taken.
        of: ``score``, the logit before the softmax; ``probability``, behind it, in which pushing the other classes
            down counts as much as pushing this one up (Simonyan 2013, section 3); ``loss``, the cross-entropy.
    """

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        logits = network.check_logits(activations[OUTPUT])
        index = torch.as_tensor(targets, device=logits.device).reshape(-1)
        if len(logits) % len(index):
            raise UnknownTarget(f"{len(index)} targets for {len(logits)} pictures; give one, or one a picture")
        index = index.repeat(len(logits) // len(index))
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # a softmax is too fine for half precision
        if of == "loss":
            return F.cross_entropy(wide, index, reduction="none")
        chosen = logits if of == "score" else wide.softmax(1)
        return chosen.gather(1, index[:, None])[:, 0]

    return Objective(frozenset({OUTPUT}), score, of)


Loss = Literal["cross-entropy", "margin"]


def mistaken(
    network: Network, classes: Tensor | int, *, targeted: bool = False, loss: Loss = "cross-entropy"
) -> Objective:
    """How wrong the network is: what attacks maximise.

    Args:
        network: whose logits.
        classes: (N,) or one for all: the classes that the pictures are of, or with ``targeted`` those that they shall
            be taken for.
        targeted: towards the classes instead of away from them.
        loss: ``cross-entropy``, whose gradient vanishes where the network is all but certain; or ``margin``, by how
            much the best other logit is above the class's (Carlini & Wagner 2017, section IV), which is above zero
            exactly where the network is mistaken.
    """
    found = class_score(network, classes, "loss") if loss == "cross-entropy" else _margin(network, classes)
    return -found if targeted else found


def _margin(network: Network, classes: Tensor | int) -> Objective:
    def score(activations: Mapping[str, Tensor]) -> Tensor:
        logits = network.check_logits(activations[OUTPUT])
        index = torch.as_tensor(classes, device=logits.device).reshape(-1)
        return margins(wide(logits), index.repeat(len(logits) // len(index)))

    return Objective(frozenset({OUTPUT}), score, "margin")


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """(N,): the largest logit of any other class, minus that of the class; above zero where it is taken for another."""
    own = logits.gather(1, classes[:, None])[:, 0]
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return others.amax(1) - own


def each_its_own(objectives: Sequence[Objective]) -> Objective:
    """The i-th objective for the i-th picture; of K N views of N pictures, for each view of it."""
    layers = frozenset().union(*(o.layers for o in objectives))

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        found = torch.stack([wide(objective(activations)) for objective in objectives], 1)
        mine = torch.arange(len(objectives), device=found.device).repeat(len(found) // len(objectives))
        return found.gather(1, mine[:, None])[:, 0]

    return Objective(layers, score, "; ".join(o.description for o in objectives))


@dataclass(frozen=True)
class Unit:
    """A channel of a layer, at one position or, without one, over the whole map."""

    channel: int
    position: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str | int) -> Unit:
        """``"12"`` is channel 12; ``"12,3,4"`` is channel 12 at row 3, column 4."""
        parts = str(text).replace(":", ",").split(",")
        if len(parts) not in (1, 3) or not all(p.strip().isdecimal() for p in parts):
            raise OptionError(f"{text!r} is no unit: give CHANNEL, or CHANNEL,ROW,COLUMN")
        numbers = [int(p) for p in parts]
        return cls(numbers[0], (numbers[1], numbers[2]) if len(numbers) == 3 else None)

    def __str__(self) -> str:
        return ",".join(map(str, (self.channel, *(self.position or ()))))


def unit(network: Network, layer: str, chosen: Unit) -> Objective:
    """The activation of one unit: at its position, or the largest of its channel where none is given."""

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        maps = network.maps(layer, activations[layer])
        if chosen.channel >= maps.shape[1]:
            raise OptionError(f"layer {layer!r} has channels 0 to {maps.shape[1] - 1}, not {chosen.channel}")
        channel = maps[:, chosen.channel]
        if chosen.position is None:
            return channel.flatten(1).amax(1)
        row, column = chosen.position
        if row >= channel.shape[1] or column >= channel.shape[2]:
            rows, columns = channel.shape[1:]
            raise OptionError(f"layer {layer!r} has {rows}x{columns} positions; row {row}, column {column} is outside")
        return channel[:, row, column]

    return Objective(frozenset({layer}), score, f"{layer} unit {chosen}")


def direction(network: Network, layer: str, vector: Tensor) -> Objective:
    """The projection of a layer's channels on ``vector`` (C,), the largest over positions."""

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        maps = network.maps(layer, activations[layer])
        return torch.einsum("nchw,c->nhw", maps, vector.to(maps)).flatten(1).amax(1)

    return Objective(frozenset({layer}), score, f"direction in {layer}")


def channel(network: Network, layer: str, index: int) -> Objective:
    """The mean of one channel over its positions: what texture, anywhere, excites it (Olah et al. 2017)."""

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        maps = network.maps(layer, activations[layer])
        if not 0 <= index < maps.shape[1]:
            raise OptionError(f"layer {layer!r} has channels 0 to {maps.shape[1] - 1}, not {index}")
        return maps[:, index].flatten(1).mean(1)

    return Objective(frozenset({layer}), score, f"{layer} channel {index}")


_TERM = re.compile(r"(?:(?P<weight>[0-9]*\.?[0-9]+)\s*\*\s*)?(?P<what>.+)")


def parse_objective(network: Network, text: str) -> Objective:
    """``"sunflower - 0.5*conv4_3:12 + relu5:3"``: a weighted sum of classes and units.

    Terms stand between spaced plus and minus signs, each with a weight and a star in front if it has one. A term is a
    class, by index or label, or LAYER:CHANNEL, LAYER:CHANNEL,ROW,COLUMN or LAYER:all.

    Raises UnknownTarget, UnknownLayer, OptionError.
    """
    words = re.split(
        r"(?:^|\s)([+-])\s+", f"+ {text.strip()}" if text.strip()[:2] not in ("+ ", "- ") else text.strip()
    )
    pairs = list(zip(words[1::2], words[2::2], strict=True))
    terms = [_term(network, part.strip()) * (1.0 if sign == "+" else -1.0) for sign, part in pairs if part.strip()]
    if not terms:
        raise OptionError("the objective is empty; give classes and units, as in 'cat - 0.5*layer3:12'")
    return replace(functools.reduce(lambda a, b: a + b, terms), description=text.strip())


def _term(network: Network, text: str) -> Objective:
    found = _TERM.fullmatch(text)
    assert found is not None  # anything fits the last group
    weight, what = float(found["weight"] or 1), found["what"].strip()
    layer, colon, which = what.rpartition(":")
    if (colon and layer and which.replace(",", "").strip().isdecimal()) or which.strip() == "all":
        return within(network, layer, which.strip()) * weight
    return class_score(network, network.target(what)) * weight


def within(network: Network, layer: str, which: str | int) -> Objective:
    """A channel's mean, one of its units, or the energy of the layer: ``12``, ``12,3,4`` or ``all``."""
    network.layer(layer)
    if str(which) == "all":
        return energy(layer)
    chosen = Unit.parse(which)
    return channel(network, layer, chosen.channel) if chosen.position is None else unit(network, layer, chosen)


def diversity(network: Network, layer: str, starts: int) -> Objective:
    """Minus how alike the pictures of a group are: the mean cosine between their Gram matrices (Olah et al. 2017).

    The one objective in which pictures meet: those that stand next to each other, ``starts`` at a time.
    """

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        rows = F.normalize(gram(wide(network.maps(layer, activations[layer]))).flatten(1), dim=1)
        groups = rows.view(-1, starts, rows.shape[1])
        alike = groups @ groups.transpose(1, 2)
        return -((alike.sum(2) - 1) / max(1, starts - 1)).flatten()

    return Objective(frozenset({layer}), score, f"diversity in {layer}")


def squared_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """(N,) sums of (found - wanted)^2 over (N, ...) and (N or 1, ...), in the wider type; a function of ``found``."""
    return _Apart.apply(found, wanted)  # type: ignore[no-untyped-call]


class _Apart(torch.autograd.Function):
    """With its own way back: over maps, each operator that torch would record is a pass over memory."""

    no_rectifier = True

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> Tensor:
        difference = found - wanted
        ctx.save_for_backward(difference)
        ctx.dtype = found.dtype
        return difference.square().sum(tuple(range(1, difference.ndim)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return (difference * (2 * slopes).view(-1, *[1] * (difference.ndim - 1))).to(ctx.dtype), None


def features(targets: Mapping[str, Tensor], weights: Mapping[str, float] | None = None) -> Objective:
    """Minus the squared distance of layers from given outputs, of each layer in shares of the target's own size.

        - sum over layers of weight * sum((activation - target)^2) / sum(target^2)

    That is the loss of Mahendran & Vedaldi 2015, section 2, and of Gatys et al. 2016, equation 1, but for scale.

    Args:
        targets: layer name to (N, ...) or (1, ...), as :func:`convscope.hooks.observe` gives them.
        weights: of layers; 1 each if left out.
    """
    targets = {name: wide(target) for name, target in targets.items()}
    sizes = {name: t.flatten(1).square().sum(1).clamp(min=1e-12) for name, t in targets.items()}

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for name in targets:
            found = activations[name]
            if found.ndim == 4 and channels_last(found):
                targets[name] = targets[name].contiguous(memory_format=torch.channels_last)  # once: as what comes later
            parts.append(-(weights or {}).get(name, 1.0) * squared_distance(found, targets[name]) / sizes[name])
        return torch.stack(parts).sum(0)

    return Objective(frozenset(targets), score, f"features of {', '.join(targets)}")


def gram(maps: Tensor, *, centred: bool = False) -> Tensor:
    """(N, C, C) products of channels, averaged over positions: G = F F' / (h w) (Gatys et al. 2015, equation 1).

    Args:
        maps: (N, C, h, w).
        centred: take each channel's mean out first, which makes it a covariance.
    """
    rows = maps.flatten(2)
    rows = rows - rows.mean(2, keepdim=True) if centred else rows
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def grams(
    network: Network,
    targets: Mapping[str, Tensor],
    weights: Mapping[str, float] | None = None,
    *,
    centred: bool = False,
) -> Objective:
    """Minus the squared distance of layers' Gram matrices from given ones, in shares of the target's own size.

        - sum over layers of weight * sum((G - target)^2) / sum(target^2)

    Gatys et al. (2015, equation 4) divide by 4 C^2 instead and leave the layers at scales that differ by orders of
    magnitude; here a weight of 1 means the same to every layer.

    Args:
        targets: layer name to (N, C, C) or (1, C, C), from :func:`gram`.
        weights: of layers; 1 each if left out.
        centred: as the targets were made.
    """
    targets = {name: wide(target) for name, target in targets.items()}
    sizes = {name: t.flatten(1).square().sum(1).clamp(min=1e-12) for name, t in targets.items()}

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for name, target in targets.items():
            found = gram(wide(network.maps(name, activations[name])), centred=centred)
            weight = (weights or {}).get(name, 1.0)
            parts.append(-weight * (found - target).flatten(1).square().sum(1) / sizes[name])
        return torch.stack(parts).sum(0)

    return Objective(frozenset(targets), score, f"Gram matrices of {', '.join(targets)}")


def wide(values: Tensor) -> Tensor:
    """In at least float32: sums of squares are too fine for half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def energy(layer: str) -> Objective:
    """Half the sum of squares of a layer: its gradient is the activation itself (Mordvintsev 2015)."""
    return Objective(frozenset({layer}), lambda a: wide(a[layer]).flatten(1).square().sum(1) / 2, f"energy of {layer}")


@dataclass(frozen=True)
class Question:
    """Which score a picture is asked about: a class's, by default the predicted one's, or a unit's of a layer."""

    network: Network
    target: Any = None
    of: Of = "score"
    layer: str | None = None
    unit: Unit | None = None

    @property
    def layers(self) -> frozenset[str]:
        """What must be observed to answer it."""
        return frozenset({OUTPUT if self.layer is None else self.layer})

    def of_part(self, part: slice, count: int) -> Question:
        """The question about one pass of ``count`` pictures; :class:`UnknownTarget` for more or fewer targets."""
        target = self.target.flatten().tolist() if isinstance(self.target, Tensor) else self.target
        if isinstance(target, str) or not isinstance(target, Sequence) or len(target) == 1:
            return self
        if len(target) != count:
            raise UnknownTarget(f"{len(target)} targets for {count} pictures; give one, or one a picture")
        return replace(self, target=target[part])

    def scores(self, activations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(N,) scores, to be maximised, and (N,) class indices, -1 where a unit was asked about."""
        if self.layer is not None and self.unit is not None:
            score = unit(self.network, self.layer, self.unit)(activations)
            return score, torch.full((len(score),), -1)
        logits = self.network.check_logits(activations[OUTPUT])
        targets = self.network.targets(self.target, logits)
        return class_score(self.network, targets, self.of)(activations), targets.cpu()

    def answer_name(self, target: int) -> str:
        """How a title calls it."""
        return f"{self.layer} unit {self.unit}" if target < 0 else self.network.label(target)


def ask(
    network: Network, target: Any = None, *, of: Of = "score", layer: str | None = None, unit: str | int | None = None
) -> Question:
    """The question that a technique's options ask; :class:`OptionError` when they contradict each other."""
    if unit is None and layer is None:
        return Question(network, target, of)
    if unit is None:
        raise OptionError("layer needs unit: CHANNEL, or CHANNEL,ROW,COLUMN")
    if target is not None:
        raise OptionError("give a target class or a unit of a layer, not both")
    if of != "score":
        raise OptionError(f"the {of} belongs to a class; a unit is asked about by its activation alone")
    chosen = layer or network.default_layer
    network.layer(chosen)
    return Question(network, None, of, chosen, Unit.parse(unit))
