"""What a caller may say about a network, checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast, get_args

import torch
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.network import Precision
from convscope.zoo.blueprint import Description


def numbers(name: str, given: float | Sequence[float] | Tensor | None) -> tuple[float, ...] | None:
    """Channel means or deviations: one number, or one each for R, G and B."""
    if given is None:
        return None
    given = given.tolist() if hasattr(given, "tolist") else given
    try:
        values = tuple(float(v) for v in (given if isinstance(given, Sequence) else [given]))
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise OptionError(f"{name} is one number, or one each for red, green and blue in [0, 1], not {given!r}")
    if name == "std" and min(values) <= 0:
        raise OptionError(f"std must be above 0, not {given!r}")
    return values


def side(given: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) in pixels."""
    if given is None:
        return None
    pair = tuple(given) if isinstance(given, Sequence) else (given, given)
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise OptionError(f"input_size is a side or (height, width) in pixels, not {given!r}")
    return pair


def share(given: float | None) -> float | None:
    """The share of a resized picture's side that is kept."""
    if given is not None and not 0 < given <= 1:
        raise OptionError(f"crop is a share of the picture's side, above 0 and at most 1, not {given!r}")
    return given


def precise(given: str) -> Precision | None:
    """The precision asked for, None for ``"auto"``."""
    if given not in get_args(Precision):
        raise OptionError(f"precision is one of {', '.join(get_args(Precision))}, not {given!r}")
    return None if given == "auto" else cast(Precision, given)


def on_device(given: str | torch.device | None) -> torch.device:
    """The device of that name, or the best there is: CUDA, else MPS, else the CPU."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=given or best).device
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise OptionError(f"device {str(given)!r} cannot be used here; {best!r} can") from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws by ``seed``, and leaves the caller's generators as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def input_channels(module: nn.Module) -> int | None:
    """1 or 3: what the first convolution reads; None where there is none."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return 1 if part.in_channels == 1 else 3
    first = next((p for p in module.parameters() if p.ndim == 4), None)
    return None if first is None else 1 if first.shape[1] == 1 else 3


def statistics(asked: Description, known: Description, module: nn.Module) -> tuple[Tensor, Tensor]:
    """(3,) or (1,) mean and standard deviation: those asked for, else those known, else 0 and 1."""
    detected = len(known.mean) if known.mean else input_channels(module)
    given = {len(v) for v in (asked.mean, asked.std) if v is not None}
    channels = 3 if 3 in given else detected or (1 if given else 3)
    found = []
    for name, values in (("mean", asked.mean or known.mean or (0.0,)), ("std", asked.std or known.std or (1.0,))):
        values = values * channels if len(values) == 1 else values
        if len(values) != channels:
            raise OptionError(
                f"{name} has {len(values)} numbers for a network of {channels} channels; give both mean and std"
            )
        found.append(torch.tensor(values))
    return found[0], found[1]
