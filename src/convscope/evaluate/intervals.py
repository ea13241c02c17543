"""How sure a mean over pictures is: percentiles of the means of pictures drawn with replacement (Efron 1979).

The same draws are made for every method, so that methods that saw the same pictures are compared on the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
