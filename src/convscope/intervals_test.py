from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm

from convscope.intervals import difference, interval, proportion


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


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (1, 7), (7, 7), (81, 263), (500, 1000)])
def test_a_share_against_scipy(hits: int, total: int) -> None:
    found, expected = proportion(hits, total), binomtest(hits, total).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == hits / total


def test_a_share_of_nothing_is_unknown() -> None:
    assert all(math.isnan(value) for value in (proportion(0, 0).mean, proportion(0, 0).low, proportion(0, 0).high))


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),  # Newcombe 1998, table II, contrasts a, e and f, by his method 10
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ],
)
def test_differences_as_published(first: tuple[int, int], second: tuple[int, int], ends: tuple[float, float]) -> None:
    found = difference(first, second)
    assert (found.low, found.high) == pytest.approx(ends, abs=5e-5)
    assert found.mean == pytest.approx(first[0] / first[1] - second[0] / second[1])
