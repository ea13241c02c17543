from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from convscope.behaviour.responses import Response
from convscope.behaviour.scoring import (
    WITH,
    WITHOUT,
    accuracy,
    by_participant,
    confusion,
    consistency,
    helpfulness,
    mean_consistency,
)


def rows(subj: str, right: Sequence[bool], condition: str = "0") -> list[Response]:
    return [
        Response(subj, 1, n, math.nan, "cat" if ok else "dog", "cat", condition, f"{n}.png")
        for n, ok in enumerate(right)
    ]


def table(both: int, first: int, second: int, neither: int) -> tuple[list[Response], list[Response]]:
    """Two participants, from how many pictures both, only the first, only the second or nobody got right."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return rows("a", a), rows("b", b)


@pytest.mark.parametrize(
    ("counts", "observed", "expected", "kappa"),
    [
        ((45, 15, 25, 15), 0.60, 0.6 * 0.7 + 0.4 * 0.3, 0.06 / 0.46),
        ((25, 35, 5, 35), 0.60, 0.6 * 0.3 + 0.4 * 0.7, 0.14 / 0.54),
        ((50, 0, 0, 50), 1.0, 0.5, 1.0),
        ((0, 50, 50, 0), 0.0, 0.5, -1.0),
        ((81, 9, 9, 1), 0.82, 0.82, 0.0),  # independent, each right on 90 of 100
        ((88, 2, 2, 8), 0.96, 0.82, 0.14 / 0.18),
    ],
)
def test_error_consistency_against_tables_worked_by_hand(
    counts: tuple[int, int, int, int], observed: float, expected: float, kappa: float
) -> None:
    first, second = table(*counts)
    found = consistency(first, second)
    assert (found.count, found.observed, found.expected) == (100, pytest.approx(observed), pytest.approx(expected))
    assert found.kappa.mean == pytest.approx(kappa, abs=1e-12)
    assert found.kappa.low - 1e-12 <= found.kappa.mean <= found.kappa.high + 1e-12
    judged = cohen_kappa_score([row.correct for row in first], [row.correct for row in second])
    assert found.kappa.mean == pytest.approx(judged, abs=1e-12)


def test_only_pictures_that_both_saw_alike_count() -> None:
    first, second = table(4, 3, 2, 1)
    shuffled = [*rows("b", [False] * 10, condition="blurred"), *reversed(second)]
    assert consistency(first, shuffled) == consistency(first, shuffled[10:])
    assert consistency(first, second[:5]).count == 5
    assert consistency(first, rows("b", [True], "blurred")).count == 0


def test_kappa_is_unknown_where_agreement_is_certain() -> None:
    found = consistency(rows("a", [True] * 9), rows("b", [True] * 9))
    assert (found.observed, found.expected) == (1, 1)
    assert math.isnan(found.kappa.mean)
    assert math.isnan(found.kappa.low)


def test_the_interval_narrows_with_pictures_and_holds_what_it_should() -> None:
    few, many = (consistency(*table(9 * k, 3 * k, 5 * k, 3 * k)).kappa for k in (1, 25))
    assert few.high - few.low > 4 * (many.high - many.low)
    assert few.low < 0 < few.high
    assert many.low > 0


def test_kappas_of_conditions_are_averaged() -> None:
    a, b = table(45, 15, 25, 15)
    c, d = table(50, 0, 0, 50)
    more = [
        [Response("x", 1, r.trial, r.rt, r.object_response, r.category, "blurred", r.imagename) for r in s]
        for s in (c, d)
    ]
    assert mean_consistency([*a, *more[0]], [*b, *more[1]]) == pytest.approx((0.06 / 0.46 + 1) / 2)
    assert math.isnan(mean_consistency(a, more[1]))


def test_confusion_by_hand() -> None:
    pairs = ["cat cat", "cat dog", "cat na", "dog dog", "dog dog", "dog bee", "bee cat", "bee bear"]
    told = [
        Response("a", 1, n, 0.1, answer, truth, "", str(n))
        for n, (truth, answer) in enumerate(p.split() for p in pairs)
    ]
    assert confusion(told, ["bee", "cat", "dog"]).tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [1, 0, 2, 0]]
    names = ["bee", "cat", "dog", "other"]
    answers = [row.object_response if row.object_response in names else "other" for row in told]
    judged = confusion_matrix([row.category for row in told], answers, labels=names)
    assert (confusion(told, names[:3]) == judged[:3]).all()
    assert accuracy(told).mean == 3 / 8


def test_participants_stand_apart_by_name() -> None:
    a, b = table(1, 1, 1, 1)
    assert {name: len(own) for name, own in by_participant([*b, *a]).items()} == {"a": 4, "b": 4}
    assert list(by_participant([*b, *a])) == ["a", "b"]


def test_whether_the_explanation_helps() -> None:
    clear = helpfulness([*rows("a", [True] * 18 + [False] * 2, WITH), *rows("a", [True] * 8 + [False] * 12, WITHOUT)])
    assert (clear.with_explanation.mean, clear.without.mean) == (0.9, 0.4)
    assert clear.difference.mean == pytest.approx(0.5)
    assert clear.verdict == "the explanation helps"
    assert clear.counts == {WITH: 20, WITHOUT: 20}
    few = helpfulness([*rows("a", [True, True], WITH), *rows("a", [True, False], WITHOUT)])
    assert few.verdict.startswith("no effect")
    assert helpfulness(rows("a", [True], WITH)).verdict.startswith("not known")
    worse = helpfulness([*rows("a", [False] * 20, WITH), *rows("a", [True] * 20, WITHOUT)])
    assert worse.verdict == "the explanation misleads"
