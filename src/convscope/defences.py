"""What can stand in front of a network and change each picture before it enters.

    network.defended("jpeg:75")              # a network like any other: every technique runs behind it
    network.defended("noise:0.25:16")        # its probabilities averaged over 16 draws of noise

=====================  ==========================================================  =================================
spec                   what it does to a picture                                   source
=====================  ==========================================================  =================================
``jpeg:QUALITY``       encodes it as JPEG and reads it back, by Pillow             Dziugaite et al. 2016
``bits:DEPTH``         rounds each value to so many bits                           Xu et al. 2018, section III.A
``blur:SIGMA``         Gaussian blur, in pixels                                    Xu et al. 2018, section III.B
``median:SIDE``        the median of a square window                               Xu et al. 2018, section III.B
``noise:SIGMA``        adds Gaussian noise, of values in [0, 1], not clipped       Cohen et al. 2019, equation 1
``resize-pad:SHARE``   scales it to a random size, pads it with zeros at random    Xie et al. 2018, section 3.2
=====================  ==========================================================  =================================

Random ones take a number of draws behind a second colon, over whose answers the network's probabilities are averaged.
Several in a row are joined by ``+``: ``median:3+jpeg:50``.

Each lets gradients through, so that attacks that know it can be tried: a blur, added noise and scaling by their own
derivative; rounding, medians and JPEG, whose derivative is zero nearly everywhere or does not exist, as if they left
the picture as it is (the straight-through estimate: BPDA, Athalye, Carlini and Wagner 2018, arXiv:1802.00420, section
4.1). A random one draws the same for every picture and on every call, from its seed, so that results can be made again;
:meth:`Defence.fresh` draws anew on every call, which an attack over the randomness needs (EOT, the same paper, 4.2).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import OptionError, nearest
from convscope.images import blurred, to_uint8


class Part(Protocol):
    """One thing that is done to pictures."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(N, 3, H, W) to (N, 3, H, W), with a derivative."""
        ...


@dataclass(frozen=True)
class Defence:
    """What stands in front of a network.

    Attributes:
        spec: as it is written.
        parts: what it does, in order.
        random: whether another seed gives another picture.
        straight: whether some part's derivative is the straight-through estimate and not its own.
        views: draws that are averaged over.
        seed: of the draws.
    """

    spec: str
    parts: Sequence[Part] = field(repr=False)
    random: bool = False
    straight: bool = False
    views: int = 1
    seed: int = 0
    _running: torch.Generator | None = field(default=None, repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        """(views * N, 3, H, W): what the network gets to see of (N, 3, H, W), all pictures of one draw together."""
        generator = self._running or torch.Generator().manual_seed(self.seed)
        found = [self._once(images, generator) for _ in range(self.views)]
        return found[0] if self.views == 1 else torch.cat(found)

    def _once(self, images: Tensor, generator: torch.Generator) -> Tensor:
        for part in self.parts:
            images = part(images, generator)
        return images

    def fresh(self, seed: int) -> Defence:
        """The same, with other draws on every call, the first of them by ``seed``."""
        return replace(self, seed=seed, _running=torch.Generator().manual_seed(seed))

    def __str__(self) -> str:
        return self.spec


def defence(given: str | Defence, *, seed: int = 0) -> Defence:
    """The defence of a spec, or several joined by ``+``; :class:`OptionError` says what it may be."""
    if isinstance(given, Defence):
        return given
    if not isinstance(given, str) or not given.strip():
        raise OptionError(f"a defence is {_KNOWN}, not {given!r}")
    made = [_parsed(each.strip()) for each in given.split("+")]
    parts, views = [part for part, _ in made], 1
    for _, each in made:
        views *= each
    random, straight = (any(isinstance(part, kinds) for part in parts) for kinds in (_RANDOM, _STRAIGHT))
    return Defence(given.strip(), parts, random, straight, views, seed)


def _parsed(spec: str) -> tuple[Part, int]:
    """The part of a spec, and how many draws it asks for."""
    name, *numbers = spec.split(":")
    if name not in _MAKERS:
        raise OptionError(f"there is no defence {name!r}{nearest(name, _MAKERS)}; a defence is {_KNOWN}")
    make, default, low, high, whole, unit = _MAKERS[name]
    value = _number(spec, numbers[0] if numbers else "", default, low, high, whole, f"{name} takes {unit}")
    part = make(value)
    draws = 1
    if len(numbers) > 1:
        if len(numbers) > 2 or not isinstance(part, _RANDOM):
            raise OptionError(f"{name} takes one number, {unit}; {spec!r} has {len(numbers)}")
        draws = int(_number(spec, numbers[1], 1, 1, 10_000, True, "behind the second colon stands the number of draws"))
    return part, draws


def _number(spec: str, text: str, default: float, low: float, high: float, whole: bool, what: str) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if not low <= value <= high or (whole and value != int(value)):
        raise OptionError(f"{what}, from {low:g} to {high:g}; {spec!r} says {text!r}")
    return value


# ---- what they do


def _through(images: Tensor, changed: Tensor) -> Tensor:
    """``changed``, with the derivative of leaving ``images`` as they are."""
    if not (images.requires_grad and torch.is_grad_enabled()):
        return changed
    return _Straight.apply(images, changed)  # type: ignore[no-untyped-call]


class _Straight(torch.autograd.Function):
    """Hands on the second on the way there, and the gradient to the first on the way back: exact in both."""

    @staticmethod
    def forward(ctx: object, images: Tensor, changed: Tensor) -> Tensor:
        return changed.clone()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


@dataclass(frozen=True)
class Jpeg:
    """Encoded at a quality and read back, as any program does it."""

    quality: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        found = [self._one(pixels) for pixels in to_uint8(images.detach().clamp(0, 1))]
        return _through(images, torch.stack(found).to(images))

    def _one(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=self.quality)
        with Image.open(buffer) as read:
            raw = torch.frombuffer(bytearray(read.convert("RGB").tobytes()), dtype=torch.uint8)
            return raw.view(read.height, read.width, 3).permute(2, 0, 1) / 255


@dataclass(frozen=True)
class Bits:
    """Each value rounded to one of 2^depth."""

    depth: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        most = 2**self.depth - 1
        return _through(images, (images.detach().clamp(0, 1) * most).round() / most)


@dataclass(frozen=True)
class Blur:
    """A Gaussian of that many pixels."""

    sigma: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return blurred(images, self.sigma)


@dataclass(frozen=True)
class Median:
    """The median of a square around each value; of an even number the upper of the two middle ones, as SciPy has it."""

    side: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            before = self.side // 2
            padded = _mirrored(_mirrored(images.detach(), -1, before, self.side), -2, before, self.side)
            windows = padded.unfold(2, self.side, 1).unfold(3, self.side, 1).flatten(4)
            middle = windows.sort(4).values[..., self.side**2 // 2]
        return _through(images, middle)


def _mirrored(images: Tensor, side: int, before: int, window: int) -> Tensor:
    """Padded along one side for windows, the border's own values first."""
    size = images.shape[side]
    places = torch.arange(-before, size + window - 1 - before)
    places = torch.where(places < 0, -1 - places, places)
    places = torch.where(places >= size, 2 * size - 1 - places, places).clamp(0, size - 1)
    return images.index_select(side, places.to(images.device))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, the same for every picture of a call."""

    sigma: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(images.shape[1:], generator=generator) * self.sigma
        return images + drawn.to(images)


@dataclass(frozen=True)
class ResizePad:
    """Scaled to a random share of its size and padded with zeros at random to its size, the same for every picture.

    Xie et al. enlarge from 299 to between 299 and 330 pixels and pad to 331; here the padded picture has the size that
    the network takes, and the share is drawn from the same 0.9 to 1.
    """

    share: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        height, width = images.shape[-2:]
        drawn, down, right = torch.rand(3, generator=generator).tolist()
        scale = self.share + (1 - self.share) * drawn
        size = max(1, round(height * scale)), max(1, round(width * scale))
        small = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        top, left = int(down * (height - size[0] + 1)), int(right * (width - size[1] + 1))
        return F.pad(small, (left, width - size[1] - left, top, height - size[0] - top))


_RANDOM = (Noise, ResizePad)
_STRAIGHT = (Jpeg, Bits, Median)
_Maker = tuple[Callable[[float], Part], float, float, float, bool, str]
#: name to what makes it, its default, the least and the most of it, whether it is whole, and what it is
_MAKERS: dict[str, _Maker] = {
    "jpeg": (lambda value: Jpeg(int(value)), 75, 1, 95, True, "a quality"),
    "bits": (lambda value: Bits(int(value)), 4, 1, 8, True, "a depth"),
    "blur": (Blur, 1.0, 0.1, 50, False, "a sigma in pixels"),
    "median": (lambda value: Median(int(value)), 3, 2, 15, True, "a side in pixels"),
    "noise": (Noise, 0.1, 0.001, 4, False, "a sigma, of values in [0, 1]"),
    "resize-pad": (ResizePad, 0.9, 0.1, 1, False, "the smallest share of a side"),
}
_KNOWN = "jpeg:QUALITY, bits:DEPTH, blur:SIGMA, median:SIDE, noise:SIGMA or resize-pad:SHARE, several joined by +"
