"""What style transfer and textures share: options, beginnings, and runs from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from convscope import progress
from convscope.errors import OptionError
from convscope.images import resize
from convscope.network import Network
from convscope.objectives import Objective
from convscope.optimize import Optimiser, State, Step, Swept, optimize
from convscope.parameterizations import Fourier, Parameterization, Pixels
from convscope.regularizers import Regularizer, TotalVariation
from convscope.techniques.synthesize._colours import luminance, matched
from convscope.techniques.synthesize._gram import Aim, Tiled
from convscope.techniques.synthesize._lbfgs import LBFGS
from convscope.techniques.synthesize._tiles import Cover, Size, size_of

BEGINNING = 200  # longer side, in pixels, that a run begins at unless it is said otherwise
SMALLEST = 48  # shorter side of the smallest size
STEEP = 1.5  # how fast the scale of noise to begin with falls with frequency; 1 is that of photographs
EDGE = 0.02  # how near to black and white Fourier coefficients begin: behind a sigmoid what is nearer hardly moves
RATES = {"lbfgs": 1.0, "adam": 0.05}
Numbers = Literal["fourier", "pixels"]


# ---- to begin with, and to end


def wide(images: Tensor) -> Tensor:
    """In at least float32 and one order of memory: rounding that differs grows from step to step."""
    return images.to(torch.promote_types(images.dtype, torch.float32)).contiguous()


def noise(like: Tensor, size: Size, seed: int) -> Tensor:
    """(1, 3, H, W) of noise with the colours of a picture (1, 3, h, w), coarse rather than fine.

    Its spectrum falls faster than that of photographs. Fine noise, and colours that the picture lacks, are hardly seen
    by any network, and would stay to the end; so would single pixels that are quite black or white.
    """
    found = Fourier(1, size, seed=seed, decay=STEEP).images().detach().to(like)
    return matched(found[0], like[0])[None].clamp(0, 1)


# ---- options


def style_layers(network: Network, given: str | Sequence[str] | None) -> list[str]:
    """Names that exist, each once."""
    names = [given] if isinstance(given, str) else list(dict.fromkeys(given or []))
    for name in names:
        network.layer(name)
    return names


def weights(given: float | Sequence[float] | None, count: int, what: str, things: str) -> list[float]:
    """One a thing, in proportion to what is given, that sum to 1."""
    found = [given] if isinstance(given, (int, float)) else list(given or [1.0] * count)
    if len(found) != count:
        raise OptionError(f"{len(found)} {what} for {count} {things}; give one each, or none")
    return [weight / sum(found) for weight in found]


def smoothing(weight: float, size: Size) -> list[Regularizer]:
    """Total variation over the number of pixels."""
    return [TotalVariation(weight / (size[0] * size[1]))] if weight else []


# ---- from coarse to fine


def levels(size: Size, scales: int | None) -> list[Size]:
    """Sizes that double up to ``size``, the smallest first.

    As many as ``scales``, but none with a shorter side below 48 pixels; left out, those with a longer side of 200 or
    more.
    """
    found = [size]
    while scales is None or len(found) < scales:
        share = 0.5 ** len(found)
        smaller = (round(size[0] * share), round(size[1] * share))
        if min(smaller) < SMALLEST or (scales is None and max(smaller) < BEGINNING):
            break
        found.append(smaller)
    return found[::-1]


@dataclass(frozen=True)
class Plan:
    """What stays the same all through a run; ``aim`` and ``regularizers`` make what is wanted at a size."""

    network: Network
    sizes: Sequence[Size]
    aim: Callable[[Size], Aim]
    steps: int
    optimizer: Literal["lbfgs", "adam"]
    rate: float
    cover: Cover
    regularizers: Callable[[Size], Sequence[Regularizer]]
    parameters: Numbers = "fourier"
    grey: bool = False

    def moved(self, images: Tensor) -> Parameterization:
        """What makes these pictures to begin with. The pixels of L-BFGS are free: it does not know of clipping."""
        found: Parameterization
        if self.parameters == "fourier":
            found = Fourier.of(images.clamp(EDGE, 1 - EDGE)).to(images.device)
        else:
            found = Pixels(images, bounds=None if self.optimizer == "lbfgs" else (0.0, 1.0))
        return Grey(found) if self.grey else found


OPTIMIZERS: Mapping[str, Optimiser] = {"lbfgs": LBFGS, "adam": "adam"}


class Grey:
    """The luminance of another parameterization's pictures, in all three channels."""

    def __init__(self, coloured: Parameterization) -> None:
        self._coloured = coloured

    def parameters(self) -> list[Tensor]:
        return self._coloured.parameters()

    def images(self) -> Tensor:
        return luminance(self._coloured.images()).expand(-1, 3, -1, -1)

    def project(self) -> None:
        self._coloured.project()


class Pyramid:
    """A run at each size, every one from what the one before has made."""

    def __init__(self, plan: Plan, images: Tensor, state: State | None = None) -> None:
        self.plan, self.images, self.level = plan, images, 0
        self._inner = state
        if state is not None:
            self.level = _level(state, len(plan.sizes))

    def steps(self) -> Iterator[Step]:
        """Every step of every size."""
        for level in progress.over(range(self.level, len(self.plan.sizes)), "sizes"):
            self.level = level
            for step in self._steps_here():
                yield step
                if step.stopped:
                    return

    def _steps_here(self) -> Iterator[Step]:
        plan, size = self.plan, self.plan.sizes[self.level]
        moved = plan.moved(scaled(self.images, size))
        inner, self._inner = self._inner, None
        for step in optimize(
            plan.network, self._aim(size), moved, steps=plan.steps, optimizer=OPTIMIZERS[plan.optimizer],
            rate=plan.rate, regularizers=plan.regularizers(size), resume=inner,
        ):  # fmt: skip
            number = self.level * plan.steps + step.number
            yield Moment(number, step.score, step.penalty, step.stopped, step._loop, step, self.level, plan.sizes[-1])
        self.images = moved.images().detach()

    def _aim(self, size: Size) -> Objective | Swept:
        aim, parts = self.plan.aim(size), self.plan.cover.parts(size)
        return aim.objective() if len(parts) == 1 else Tiled(aim, parts)


def _level(state: State, count: int) -> int:
    level = state.get("level")
    if not isinstance(level, int) or not 0 <= level < count:
        raise OptionError("the saved state belongs to another run; give the same picture and the options of then")
    return level


@dataclass(frozen=True)
class Moment(Step):
    """A step at one size, as one of the whole run."""

    _step: Step
    _level: int
    _size: Size

    @cached_property
    def images(self) -> Tensor:
        """At full size."""
        return scaled(self._step.images, self._size)

    def state(self) -> State:
        """The state of this size's own run, and which size it is."""
        return {**self._step.state(), "level": self._level}


def scaled(images: Tensor, size: Size) -> Tensor:
    """(N, 3, H, W) at another size, by the smoothest filter there is, in [0, 1]."""
    if size_of(images) == tuple(size):
        return images
    return resize(images, size, mode="bicubic")
