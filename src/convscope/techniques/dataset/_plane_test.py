"""Places in the plane: components against scikit-learn, assignment against every permutation."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import openTSNE
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from convscope.techniques.dataset._plane import affinities, assigned, lattice_for, principal, snapped, unit_square


@pytest.mark.parametrize("count", [60, 1_100])
def test_affinities_are_those_of_opentsne_which_is_kept_from_importing_what_compiles(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = np.random.default_rng(0).normal(size=(count, 5))
    looked: list[str] = []
    monkeypatch.setattr(openTSNE.affinity, "is_package_installed", looked.append)
    found = affinities(points, 9.0, 3, 1, "index")
    assert looked == []
    theirs = openTSNE.affinity.MultiscaleMixture(points, 9.0, n_jobs=1, random_state=3)
    assert looked == ["pynndescent"]
    assert (found.P != theirs.P).nnz == 0


@pytest.mark.parametrize("shape", [(40, 7), (6, 20)])
def test_components_are_those_of_scikit_learn_up_to_sign(shape: tuple[int, int]) -> None:
    codes = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.linspace(
        1, 3, shape[1], dtype=np.float32
    )
    points, share = principal(codes, 4)
    expected = PCA(4, svd_solver="full").fit(codes.astype(np.float64))
    np.testing.assert_allclose(np.abs(points), np.abs(expected.transform(codes)), atol=1e-5)
    assert share == pytest.approx(float(expected.explained_variance_ratio_.sum()), rel=1e-6)


def test_components_that_are_not_there_are_zero() -> None:
    points, share = principal(np.array([[0.0], [1.0], [2.0]], np.float32), 2)
    assert points.tolist() == [[-1, 0], [0, 0], [1, 0]]
    assert share == 1
    assert principal(np.ones((3, 4), np.float32), 2) == (pytest.approx(np.zeros((3, 2))), 1.0)


def cost(points: np.ndarray, cells: np.ndarray, lattice: tuple[int, int]) -> float:
    return float(((unit_square(points) - (cells + 0.5) / np.array(lattice)) ** 2).sum())


@pytest.mark.parametrize("seed", range(3))
def test_no_other_way_to_fill_three_by_three_costs_less(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(9, 2))
    cells = np.array([(row, column) for row in range(3) for column in range(3)])
    each = ((unit_square(points)[:, None] - (cells + 0.5) / 3) ** 2).sum(2)
    orders = np.array(list(permutations(range(9))))
    least = each[np.arange(9), orders].sum(1).min()
    assert cost(points, assigned(points, (3, 3)), (3, 3)) == pytest.approx(least)


def test_points_on_a_grid_keep_their_places_with_the_upper_ones_above() -> None:
    down, across = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    points = np.stack([across.ravel(), -down.ravel()], 1).astype(float)
    for placed in (assigned(points, (4, 6)), snapped(points, (4, 6))):
        np.testing.assert_array_equal(placed, np.stack([down.ravel(), across.ravel()], 1))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.floats(0.4, 2.5), st.integers(0, 9))
def test_no_two_share_a_cell_and_all_have_one(count: int, shape: float, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 2)).round(1)
    lattice = lattice_for(count, shape)
    assert lattice[0] * lattice[1] >= count
    assert lattice[0] * (lattice[1] - 1) < count  # no column is empty for want of pictures
    for placed in (assigned(points, lattice), snapped(points, lattice)):
        assert len({tuple(cell) for cell in placed.tolist()}) == count
        assert (placed >= 0).all()
        assert (placed < lattice).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(0, 9))
def test_assignment_never_costs_more_than_free_places(count: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 2))
    lattice = lattice_for(2 * count)
    assert cost(points, assigned(points, lattice), lattice) <= cost(points, snapped(points, lattice), lattice) + 1e-9


def test_a_point_takes_the_nearest_cell_that_is_free() -> None:
    """One after the other, from the middle outwards, against a search through all cells."""
    points = np.random.default_rng(3).normal(size=(50, 2))
    lattice, wanted = (9, 9), unit_square(points) * 8
    order = np.argsort(((wanted - np.median(wanted, 0)) ** 2).sum(1), kind="stable")
    free = {(r, c) for r in range(9) for c in range(9)}
    found = snapped(points, lattice)
    for point in order:
        away = {cell: ((np.array(cell) - wanted[point]) ** 2).sum() for cell in free}
        chosen = tuple(found[point].tolist())
        assert away[chosen] == pytest.approx(min(away.values()))
        free.remove(chosen)


def test_a_lattice_of_square_numbers_is_square_and_full() -> None:
    assert lattice_for(2500) == (50, 50)
    assert lattice_for(9) == (3, 3)
    assert lattice_for(1) == (1, 1)
