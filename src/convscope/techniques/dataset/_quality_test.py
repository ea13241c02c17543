"""Measures of maps, against scikit-learn and against loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import manifold, metrics
from sklearn.neighbors import KNeighborsClassifier

from convscope.techniques.dataset import _quality
from convscope.techniques.dataset._quality import agreement, nearest, silhouette, trustworthiness


@pytest.fixture(params=[512, 17])
def points(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """70 codes and a map of them that is half chance; in one chunk and in several."""
    monkeypatch.setattr(_quality, "CHUNK", request.param)
    chance = np.random.default_rng(0)
    codes = chance.normal(size=(70, 12)).astype(np.float32) + 100
    return codes, codes[:, :2].astype(np.float64) + 0.3 * chance.normal(size=(70, 2))


@pytest.mark.parametrize("count", [1, 5, 12])
def test_trustworthiness_is_that_of_scikit_learn(points: tuple[np.ndarray, np.ndarray], count: int) -> None:
    expected = manifold.trustworthiness(points[0].astype(np.float64), points[1], n_neighbors=count)
    assert trustworthiness(*points, count) == pytest.approx(float(expected), abs=1e-12)


def test_a_perfect_map_is_trusted_and_one_by_chance_is_not(points: tuple[np.ndarray, np.ndarray]) -> None:
    assert trustworthiness(points[1], points[1] * 3 + 1, 5) == 1
    chance = np.random.default_rng(1)
    assert trustworthiness(chance.normal(size=(400, 5)), chance.normal(size=(400, 2)), 5) == pytest.approx(
        0.5, abs=0.05
    )


def test_nearest_are_those_of_a_slow_search(points: tuple[np.ndarray, np.ndarray]) -> None:
    for place, found in enumerate(nearest(points[1], 6)):
        away = np.linalg.norm(points[1] - points[1][place], axis=1)
        away[place] = np.inf
        assert found.tolist() == np.argsort(away)[:6].tolist()


def test_agreement_is_leave_one_out_accuracy(points: tuple[np.ndarray, np.ndarray]) -> None:
    groups = (points[1][:, 0] > points[1][:, 0].mean()).astype(int)
    hits = []
    for place in range(len(groups)):
        others = np.arange(len(groups)) != place
        fitted = KNeighborsClassifier(5).fit(points[1][others], groups[others])
        hits.append(fitted.predict(points[1][place : place + 1])[0] == groups[place])
    assert agreement(points[1], groups, 5) == pytest.approx(np.mean(hits))


def test_of_equal_votes_the_nearer_counts() -> None:
    line = np.array([[0.0, 0], [1, 0], [2.5, 0], [50, 0]])
    assert agreement(line, np.array([0, 0, 1, 1]), 2) == 3 / 4  # the third has two of the other class beside it


def test_silhouette_is_that_of_scikit_learn_and_none_without_two_classes(points: tuple[np.ndarray, np.ndarray]) -> None:
    groups = np.arange(70) % 3
    assert silhouette(points[1], groups) == pytest.approx(float(metrics.silhouette_score(points[1], groups)))
    assert np.isnan(silhouette(points[1], groups * 0))
    assert np.isnan(silhouette(points[1], np.arange(70)))


def test_too_few_pictures_have_no_measure() -> None:
    assert np.isnan(trustworthiness(np.eye(6), np.eye(6)[:, :2], 3))
    assert np.isnan(agreement(np.eye(3), np.arange(3), 3))
