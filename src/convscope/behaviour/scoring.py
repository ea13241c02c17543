"""How good answers are, what is taken for what, and whether two participants err on the same pictures.

Two participants who are right on 90 % of the pictures each are both right or both wrong on 82 % by chance alone. Error
consistency is how much more often they agree than that (Geirhos, Meding & Wichmann 2020, arXiv:2006.16736):

    kappa = (c_obs - c_exp) / (1 - c_exp),     c_exp = p1 p2 + (1 - p1) (1 - p2)

with c_obs the share of pictures on which both are right or both wrong, and p1, p2 their accuracies on these. It is
Cohen's kappa of right and wrong: 1 for the same errors, 0 for independent ones, below for opposite ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convscope.behaviour.responses import NO_ANSWER, Response
from convscope.intervals import DRAWS, LEVEL, Interval, difference, proportion


def by_participant(rows: Sequence[Response]) -> dict[str, list[Response]]:
    """The answers of each, in order of their names."""
    found: dict[str, list[Response]] = {name: [] for name in sorted({row.subj for row in rows})}
    for row in rows:
        found[row.subj].append(row)
    return found


def accuracy(rows: Sequence[Response]) -> Interval:
    """The share of right answers, with its 95 % interval."""
    return proportion(sum(row.correct for row in rows), len(rows))


def confusion(rows: Sequence[Response], names: Sequence[str]) -> NDArray[np.int64]:
    """(K, K + 1) counts: a row for what would have been right, a column for each answer; others and none come last."""
    places = {name: place for place, name in enumerate(names)}
    found = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    for row in rows:
        if row.category in places:
            found[places[row.category], places.get(row.object_response, len(names))] += 1
    return found


@dataclass(frozen=True)
class Consistency:
    """Of two participants on ``count`` pictures: shares of agreement, seen and expected, and kappa with its interval.

    ``kappa`` is NaN where agreement is certain by the accuracies alone: both always right, or always wrong.
    """

    count: int
    observed: float
    expected: float
    kappa: Interval


def consistency(first: Sequence[Response], second: Sequence[Response], *, seed: int = 0) -> Consistency:
    """Of two participants, on the pictures that both saw shown alike; see the module for the formula.

    The interval is of kappas of pictures drawn with replacement, by ``seed``.
    """
    right = {row.stimulus: row.correct for row in first}
    pairs = [(right[row.stimulus], row.correct) for row in second if row.stimulus in right]
    if not pairs:
        return Consistency(0, math.nan, math.nan, Interval(math.nan, math.nan, math.nan))
    a, b = np.array(pairs, dtype=float).T
    places = np.random.default_rng(seed).integers(0, len(a), (DRAWS, len(a)))
    drawn = _kappas(a[places], b[places])[2]
    observed, expected, kappa = (float(each) for each in _kappas(a, b))
    known = drawn[np.isfinite(drawn)]
    ends = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if math.isfinite(kappa) else (math.nan, math.nan)
    return Consistency(len(a), observed, expected, Interval(kappa, float(ends[0]), float(ends[1])))


def _kappas(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """c_obs, c_exp and kappa, over the last axis."""
    p, q = a.mean(-1), b.mean(-1)
    observed, expected = (a == b).mean(-1), p * q + (1 - p) * (1 - q)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), math.nan)
    return observed, expected, kappa


def mean_consistency(first: Sequence[Response], second: Sequence[Response]) -> float:
    """Kappa within each condition, averaged over conditions, as the paper does; NaN where none has one."""
    conditions = sorted({row.condition for row in first} & {row.condition for row in second})
    found = []
    for condition in conditions:
        own, other = ([row for row in rows if row.condition == condition] for rows in (first, second))
        found.append(consistency(own, other).kappa.mean)
    known = [kappa for kappa in found if math.isfinite(kappa)]
    return sum(known) / len(known) if known else math.nan


# ---- whether explanations help

WITH, WITHOUT = "explanation", "no explanation"


@dataclass(frozen=True)
class Help:
    """How often a network's answers were guessed with its explanation shown and without, and the difference."""

    with_explanation: Interval
    without: Interval
    difference: Interval
    counts: Mapping[str, int]

    @property
    def verdict(self) -> str:
        """In words, by whether the interval of the difference holds zero."""
        if math.isnan(self.difference.mean):
            return "not known: guesses with and without the explanation are needed"
        if self.difference.low > 0:
            return "the explanation helps"
        return "the explanation misleads" if self.difference.high < 0 else "no effect that so few guesses could show"


def helpfulness(rows: Sequence[Response]) -> Help:
    """Guesses, of which ``category`` is what the network answered, scored by whether its explanation was shown."""
    hits = {}
    for condition in (WITH, WITHOUT):
        own = [row.correct for row in rows if row.condition == condition]
        hits[condition] = (sum(own), len(own))
    counts = {condition: total for condition, (_, total) in hits.items()}
    return Help(proportion(*hits[WITH]), proportion(*hits[WITHOUT]), difference(hits[WITH], hits[WITHOUT]), counts)


def answered(rows: Sequence[Response]) -> int:
    """How many are answers at all."""
    return sum(row.object_response != NO_ANSWER for row in rows)
