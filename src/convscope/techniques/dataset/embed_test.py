"""embed on the index of the fixture: methods against the libraries, labels and thumbnails against the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openTSNE
import pytest
import torch
from PIL import Image
from sklearn import manifold
from sklearn.decomposition import PCA

import convscope
from convscope.errors import OptionError
from convscope.index import Index
from convscope.progress import Cancelled, Progress, listening
from convscope.techniques.dataset.embed import METHODS, embed


def test_pca_is_that_of_scikit_learn(colour_index: Index) -> None:
    found = embed(colour_index, method="pca")
    expected = PCA(2, svd_solver="full").fit(colour_index.codes().astype(np.float64))
    places = expected.transform(colour_index.codes().astype(np.float64))
    np.testing.assert_allclose(found.numpy().__abs__(), np.abs(places), atol=1e-5)
    assert found.summary["variance"] == pytest.approx(float(expected.explained_variance_ratio_.sum()), rel=1e-5)


def test_tsne_leaves_the_divergence_that_it_says() -> None:
    """KL(p || q) worked out from the map, with the affinities of openTSNE and q from its definition."""
    codes = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    codes[:30] += 4
    points, told = METHODS["tsne"](codes, 10.0, 0)
    reduced = PCA(8, svd_solver="full").fit_transform(codes.astype(np.float64))
    p = np.asarray(openTSNE.affinity.PerplexityBasedNN(reduced, perplexity=10.0, random_state=0).P.todense())
    away = ((points[:, None] - points[None]) ** 2).sum(2)
    q = 1 / (1 + away)
    np.fill_diagonal(q, 0)
    q /= q.sum()
    divergence = float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
    assert told["kl_divergence"] == pytest.approx(divergence, rel=0.02)
    apart = np.linalg.norm(points[:30].mean(0) - points[30:].mean(0))
    assert apart > points[:30].std()


@pytest.mark.slow
def test_umap_parts_what_is_apart() -> None:
    pytest.importorskip("umap")
    codes = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    codes[:20] += 8
    points, _ = METHODS["umap"](codes, 8.0, 0)
    assert np.linalg.norm(points[:20].mean(0) - points[20:].mean(0)) > 2 * points[:20].std()


@pytest.mark.parametrize("arrangement", ["scatter", "grid", "poster"])
def test_every_picture_is_there_with_its_class_and_its_thumbnail(colour_index: Index, arrangement: Any) -> None:
    found = embed(colour_index, perplexity=4, arrangement=arrangement, size=16)
    rows = colour_index.pictures(["label", "path"], "error is null").to_pylist()
    assert [found.group_names[g] for g in found.groups] == [row["label"] for row in rows]
    assert found.names[0] == "blue/00.png"
    strongest = found.thumbnails.float().mean((2, 3)).argmax(1)  # the square's colour
    assert [("red", "green", "blue")[int(c)] for c in strongest] == [row["label"] for row in rows]
    if arrangement == "scatter":
        assert found.places is None
        return
    assert found.lattice[0] * found.lattice[1] >= 24
    sheet = found.sheet()
    for picture, (row, column) in enumerate(found.places.tolist()):
        there = sheet[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        np.testing.assert_array_equal(there, found.thumbnails[picture].permute(1, 2, 0).numpy())


def test_the_measures_are_those_of_the_map(colour_index: Index) -> None:
    found = embed(colour_index, method="pca", nearest=5)
    expected = manifold.trustworthiness(colour_index.codes().astype(np.float64), found.numpy(), n_neighbors=5)
    assert found.summary["trustworthiness"] == pytest.approx(float(expected), abs=1e-9)
    assert found.summary["chance"] == pytest.approx(1 / 3)
    assert {"silhouette", "silhouette_of_codes", "neighbour_accuracy", "neighbour_accuracy_of_codes"} <= set(
        found.summary
    )


def test_of_more_pictures_some_are_drawn_by_the_seed_and_that_is_said(colour_index: Index) -> None:
    some, again = (embed(colour_index, method="pca", most=10, seed=3) for _ in range(2))
    other = embed(colour_index, method="pca", most=10, seed=4)
    assert len(some.values) == 10
    assert torch.equal(some.values, again.values)
    assert some.names == again.names != other.names
    assert "10 of 24 pictures, drawn by chance" in some.notes


def test_without_labels_the_predicted_classes_are_used(tmp_path: Path, colour_spec: dict[str, Any]) -> None:
    from convscope.conftest import colour_pictures
    from convscope.scanning import scan

    folder = colour_pictures(tmp_path / "in", each=3)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.rglob("*.png"):
        path.rename(flat / f"{path.parent.name}-{path.name}")
    index = scan(convscope.load_network(**colour_spec), flat, tmp_path / "flat.index", loaded=colour_spec)
    found = embed(index, method="pca")
    predicted = index.pictures(["predicted"], "error is null")["predicted"].to_pylist()
    assert [found.group_names[g] for g in found.groups] == [index.network.label(p) for p in predicted]
    assert any("no labels" in note for note in found.notes)


def test_files(colour_index: Index, tmp_path: Path) -> None:
    found = convscope.embed(colour_index, method="pca", arrangement="grid", size=8)  # by the door that lets it draw
    with Image.open(found.save(tmp_path / "grid.png")) as picture:
        assert picture.size == (found.lattice[1] * 8, found.lattice[0] * 8)
    page = found.save(tmp_path / "map.html").read_text()
    assert page.count("data:image/webp;base64,") >= 24
    assert "blue/00.png" in page


def test_it_can_be_stopped(colour_index: Index) -> None:
    def stops(now: Progress) -> None:
        if now.fraction > 0.1:
            raise Cancelled

    with pytest.raises(Cancelled), listening(stops):
        embed(colour_index, perplexity=4)


def test_bad_options_get_a_sentence(colour_index: Index) -> None:
    with pytest.raises(OptionError, match="has codes of"):
        embed(colour_index, layer="conv9")
    with pytest.raises(OptionError, match="most should be greater than or equal to 5"):
        embed(colour_index, most=2)
