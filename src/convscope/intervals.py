"""How sure a number is that comes from few pictures: means, shares, and differences between shares.

Of means these are percentiles of the means of pictures drawn with replacement (Efron 1979); the same draws are made for
every method, so that methods that saw the same pictures are compared on the same. Of shares, where drawing again says
nothing at 0 and at 1, it is Wilson's score interval (1927), and of the difference between two shares Newcombe's of it
(1998, Statistics in Medicine 17, 873-890, method 10).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its interval, all NaN where there was no number."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Mean and 95 % interval of numbers, one a picture; those that are NaN are left out."""
    numbers = np.array([value for value in values if not math.isnan(value)])
    if not len(numbers):
        return Interval(math.nan, math.nan, math.nan)
    places = np.random.default_rng(seed).integers(0, len(numbers), (DRAWS, len(numbers)))
    means = numbers[places].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(numbers.mean()), float(low), float(high))


def proportion(hits: int, total: int) -> Interval:
    """The share ``hits / total`` with its 95 % interval, which has a width also where all or none hit."""
    if not total:
        return Interval(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, weight = hits / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, 0.0 if hits == 0 else low, 1.0 if hits == total else high)


def difference(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """The share of the first (hits, total) minus that of the second, which other pictures gave, with its interval."""
    a, b = proportion(*first), proportion(*second)
    low = math.hypot(a.mean - a.low, b.high - b.mean)
    high = math.hypot(a.high - a.mean, b.mean - b.low)
    return Interval(a.mean - b.mean, a.mean - b.mean - low, a.mean - b.mean + high)
