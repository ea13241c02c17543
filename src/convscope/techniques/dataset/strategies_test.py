"""strategies: the graph against loops, the groups against scikit-learn's, and a planted tag that must be found."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from convscope import example
from convscope.errors import IndexUnusable, OptionError
from convscope.index import Index
from convscope.results import Heatmap
from convscope.techniques.dataset.strategies import (
    FRAME,
    NEIGHBOURS,
    SHARE,
    SPOT,
    _beside,
    _frame,
    hot_spot,
    laplacian,
    small,
    spectral,
    strategies,
)  # fmt: skip


def blobs(sizes: tuple[int, ...], spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    centres = 4 * np.eye(len(sizes), 6)
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    return centres[kinds] + spread * generator.normal(size=(len(kinds), 6)), kinds


def laplacian_by_hand(rows: np.ndarray) -> np.ndarray:
    count = len(rows)
    some = max(NEIGHBOURS, round(SHARE * count))
    joined = np.zeros((count, count))
    for one in range(count):
        others = sorted((float(np.linalg.norm(rows[one] - rows[j])), j) for j in range(count) if j != one)
        for _, other in others[:some]:
            joined[one, other] = joined[other, one] = 1
    degree = joined.sum(1)
    found = np.eye(count)
    for i in range(count):
        for j in range(count):
            found[i, j] -= joined[i, j] / math.sqrt(degree[i] * degree[j])
    return found


def test_the_laplacian_is_that_of_a_loop() -> None:
    rows = np.random.default_rng(0).random((40, 5))
    np.testing.assert_allclose(laplacian(rows), laplacian_by_hand(rows), atol=1e-12)


@pytest.mark.parametrize("sizes", [(60, 40), (40, 30, 20), (30, 30, 30, 30)])
def test_groups_are_found_by_the_gap_and_are_scikit_learns(sizes: tuple[int, ...]) -> None:
    rows, kinds = blobs(sizes)
    found = spectral(rows, None, 0)
    assert adjusted_rand_score(kinds, found.groups) == 1
    assert np.bincount(found.groups).tolist() == sorted(sizes, reverse=True)
    affinity = (laplacian(rows) < 0).astype(float)
    other = SpectralClustering(len(sizes), affinity="precomputed", random_state=0).fit_predict(affinity)
    assert adjusted_rand_score(other, found.groups) == 1
    assert (found.eigenvalues[: len(sizes)] < 0.05).all()
    assert found.gap > 0.2


def test_where_there_is_nothing_the_gap_is_that_of_chance() -> None:
    rows = np.random.default_rng(5).random((120, 9))
    found = spectral(rows, None, 0)
    assert found.gap < 2 * found.gap_by_chance


def test_the_planted_tag_is_found_and_marked(shapes_index: Index) -> None:
    found = strategies(shapes_index, target="disc")
    rows = shapes_index.pictures(["id", "path"]).to_pydict()
    path = dict(zip(rows["id"], rows["path"], strict=True))
    tagged = torch.tensor(["tagged" in path[int(id)] for id in found.ids])
    marked = torch.tensor(found.marks)[found.groups]
    assert tagged.sum() == 40
    shares = torch.stack([tagged[found.groups == group].float().mean() for group in found.groups.unique()])
    assert bool(((shares <= 0.1) | (shares >= 0.9)).all()), "tagged pictures are groups of their own"
    assert float(tagged[marked].float().mean()) >= 0.95
    # Of the tagged pictures a part may keep its class without the tag: the network also knows the disc. How large it is
    # depends on the processor on which the network has learned.
    assert float(marked[tagged].float().mean()) >= 0.4
    top, left = example.TAG
    for group, said in enumerate(found.summaries[0]["groups"]):
        assert said["suspicious"] == (said["lost"] > said["lost_elsewhere"] + 0.1 and said["same_place"] > 0.8)
        assert bool(found.spots[group, top + 3, left + 3]) == bool(shares[group] > 0.5)
    assert found.provenance.index == str(shapes_index.path)


def test_a_class_without_a_tag_has_no_marked_group(shapes_index: Index) -> None:
    found = strategies(shapes_index, target="square")
    assert not any(found.marks)


def test_with_boxes_the_evidence_outside_them_is_measured(shapes_index: Index, tmp_path: Path) -> None:
    given = example.shapes(240, seed=1)
    lines = ["path,top,left,height,width"]
    for path in shapes_index.pictures(["path"])["path"].to_pylist():
        rows, columns = given.masks[int(Path(path).name[:4])].nonzero().T
        top, left = int(rows.min()), int(columns.min())
        lines.append(f"{path},{top},{left},{int(rows.max()) + 1 - top},{int(columns.max()) + 1 - left}")
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join(lines))
    found = strategies(shapes_index, target="disc", boxes=file)
    assert found.summaries[0]["outside_of"] == "boxes"
    groups = found.summaries[0]["groups"]
    outside = {mark: [g["outside"]["share"] for g in groups if g["suspicious"] == mark] for mark in (True, False)}
    assert min(outside[True]) > 0.7
    assert max(outside[False]) < min(outside[True])


def test_maps_are_the_positive_part_of_sum_one() -> None:
    values = torch.tensor([[[1.0, -3.0], [2.0, 1.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    heat = Heatmap(values=torch.zeros(2, 8, 8), cells=values, images=torch.zeros(2, 3, 8, 8), signed=True,
                   quantity="x", summaries=[])  # fmt: skip
    expected = torch.tensor([[[0.25, 0.0], [0.5, 0.25]], [[0.25, 0.25], [0.25, 0.25]]])
    torch.testing.assert_close(small(heat), expected)
    large = Heatmap(values=torch.ones(1, 100, 60), images=torch.zeros(1, 3, 100, 60), signed=False, quantity="x",
                    summaries=[])  # fmt: skip
    assert small(large).shape == (1, 20, 12)


def test_the_frame_is_counted_pixel_by_pixel() -> None:
    found = _frame((4, 6))
    for row in range(4):
        for column in range(6):
            inside = [
                FRAME * 32 <= y + 0.5 < 32 - FRAME * 32 and FRAME * 48 <= x + 0.5 < 48 - FRAME * 48
                for y in range(8 * row, 8 * row + 8)
                for x in range(8 * column, 8 * column + 8)
            ]
            assert float(found[row, column]) == pytest.approx(1 - sum(inside) / 64)


def test_what_lies_beside_a_box_follows_the_preparation(shapes_index: Index) -> None:
    found = _beside(shapes_index.network, (40, 40), (10, 20, 20, 10), (4, 4))
    expected = torch.ones(4, 4)
    expected[1:3, 2] = 0
    torch.testing.assert_close(found, expected)


def test_the_hot_spot_is_where_the_map_is_largest() -> None:
    mean = torch.zeros(8, 8)
    mean[6, 1] = 1
    spot = hot_spot(mean, (64, 64))
    assert 0 < int(spot.sum()) <= round(SPOT * 64 * 64)
    assert bool(spot[52, 12])
    assert not bool(spot[:40].any())
    assert int(hot_spot(torch.rand(8, 8, generator=torch.Generator().manual_seed(0)), (64, 64)).sum()) == 512


def test_bad_questions_get_one_sentence(colour_index: Index, shapes_index: Index) -> None:
    with pytest.raises(IndexUnusable, match="pictures labelled 'green', and groups need 12; choose another --target"):
        strategies(colour_index, target="green")
    with pytest.raises(OptionError, match="'gradcamm' makes no heat maps; did you mean 'gradcam'"):
        strategies(shapes_index, method="gradcamm")
    with pytest.raises(OptionError, match="'filters' makes no heat maps"):
        strategies(shapes_index, method="filters")
