from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from convscope.evaluate.intervals import interval


def test_the_interval_against_scipy_and_theory() -> None:
    values = np.random.default_rng(1).normal(5, 2, 200)
    found = interval(values.tolist())
    ends = bootstrap((values,), np.mean, method="percentile", n_resamples=5000, random_state=0).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.05)
    assert found.half == pytest.approx(norm.ppf(0.975) * values.std() / math.sqrt(200), rel=0.1)


def test_the_same_seed_gives_the_same_ends_and_nan_is_left_out() -> None:
    values = [0.1, 0.9, 0.4, 0.7]
    assert interval(values) == interval([0.1, math.nan, 0.9, 0.4, 0.7])
    assert interval(values, seed=1) != interval(values)
    assert math.isnan(interval([math.nan]).mean)
    alone = interval([0.3])
    assert (alone.mean, alone.half) == (0.3, 0.0)
