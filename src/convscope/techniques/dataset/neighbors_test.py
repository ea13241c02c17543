"""neighbors against a slow search in codes and in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import convscope
from convscope.errors import OptionError
from convscope.images import read_image, resize
from convscope.index import Index
from convscope.techniques.dataset.neighbors import SIDE, neighbors


@pytest.fixture(scope="module")
def queries() -> Tensor:
    """Two pictures that are not in the index: a red square and noise."""
    images = 0.4 + 0.1 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    images[0, 0, 8:20, 8:20] += 0.4
    return images


def by_hand(index: Index, image: Tensor) -> list[tuple[float, str]]:
    """(distance, path) of every picture, nearest first, each asked for by itself."""
    rows = index.pictures(["id", "path"], "error is null").to_pylist()
    code = index.encode(image[None])[0].astype(np.float64)
    found = [(float(np.linalg.norm(index.encode(index.prepared(r["id"])[None])[0] - code)), r["path"]) for r in rows]
    return sorted(found)


def test_they_are_those_of_a_slow_search(colour_index: Index, queries: Tensor) -> None:
    found = neighbors(colour_index, queries, count=5)
    assert found.values.shape == (2, 5)
    for image, distances, summary in zip(queries, found.values, found.summaries, strict=True):
        expected = by_hand(colour_index, image)[:5]
        np.testing.assert_allclose(distances, [d for d, _ in expected], rtol=1e-4, atol=1e-5)
        assert [each["path"] for each in summary["neighbors"]] == [path for _, path in expected]
        assert [each["distance"] for each in summary["neighbors"]] == pytest.approx(distances.tolist())
        assert all(each["path"].split("/")[-2] == each["label"] for each in summary["neighbors"])
    assert {each["label"] for each in found.summaries[0]["neighbors"]} == {"red"}


def test_in_pixel_space_they_are_those_of_a_slow_search(colour_index: Index, queries: Tensor) -> None:
    found = neighbors(colour_index, queries, count=3)
    rows = colour_index.pictures(["id", "path"], "error is null").to_pylist()
    pictures = torch.stack([resize(colour_index.prepared(row["id"]), (SIDE, SIDE)) for row in rows])
    for image, summary in zip(queries, found.summaries, strict=True):
        away = (pictures - resize(image, (SIDE, SIDE))).flatten(1).norm(dim=1)
        order = away.argsort()[:3].tolist()
        assert [each["path"] for each in summary["pixel_neighbors"]] == [rows[i]["path"] for i in order]
        assert [each["distance"] for each in summary["pixel_neighbors"]] == pytest.approx(
            away[order].tolist(), rel=1e-4
        )


@pytest.mark.parametrize("itself", [False, True])
def test_a_picture_of_the_index_is_told_and_is_no_neighbour_of_its_own(colour_index: Index, itself: bool) -> None:
    row = colour_index.pictures(["id", "path"], "error is null").to_pylist()[7]
    image = convscope.open_index(colour_index.path).network.prepare(read_image(row["path"]))
    found = neighbors(colour_index, image, count=4, itself=itself)
    (summary,) = found.summaries
    assert summary["itself"] == [row["path"]]
    for space in ("neighbors", "pixel_neighbors"):
        paths = [each["path"] for each in summary[space]]
        assert len(paths) == 4
        assert (row["path"] in paths) is itself
        if itself:
            assert paths[0] == row["path"]
            assert summary[space][0]["distance"] == pytest.approx(0, abs=1e-4)
    assert any("itself in the index: blue/07.png" in note for note in found.notes)


def test_what_only_looks_alike_is_not_taken_for_itself(colour_index: Index) -> None:
    image = colour_index.prepared(int(colour_index.ids[0])).clone()
    image[:, 3, 3] = 1 - image[:, 3, 3]
    (summary,) = neighbors(colour_index, image, count=2).summaries
    assert summary["itself"] == []


def test_more_than_there_are(colour_index: Index, queries: Tensor) -> None:
    found = neighbors(colour_index, queries[:1], count=30)
    assert found.values.shape == (1, 30)
    assert int(found.values.isfinite().sum()) == 24
    assert len(found.summaries[0]["neighbors"]) == 24


def test_approximate_says_how_many_it_finds(colour_index: Index, queries: Tensor) -> None:
    exact, rough = (neighbors(colour_index, queries, count=5, approximate=a) for a in (False, True))
    assert "recall" not in exact.summaries[0]
    assert rough.summaries[0]["recall"] == 1  # so few pictures have no vector index, and are all compared
    np.testing.assert_allclose(exact.values, rough.values, rtol=1e-3, atol=1e-4)
    assert any("finds 100.0% of the true neighbours" in note for note in rough.notes)


def test_recall_counts_what_is_missed(colour_index: Index, queries: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Index.nearest

    def half(self: Index, codes: Any, count: int, *, layer: str | None = None, exact: bool = True) -> Any:
        ids, distances = whole(self, codes, count * (1 if exact else 2), layer=layer)
        return (ids, distances) if exact else (ids[:, ::2], distances[:, ::2])

    monkeypatch.setattr(Index, "nearest", half)
    assert neighbors(colour_index, queries, count=4, approximate=True).summaries[0]["recall"] == 0.5


def test_the_picture_shows_both_rows(colour_index: Index, queries: Tensor) -> None:
    both, one = (neighbors(colour_index, queries, count=3, pixels=p) for p in (True, False))
    assert [panel.name.split(",")[0] for panel in both.panels] == ["Nearest in code space", "Nearest in pixel space"]
    assert len(one.panels) == 1
    assert "pixel_neighbors" not in one.summaries[0]
    assert both.panels[0].tiles[0].shape[0] == 3
    assert both.panels[0].captions[0][0].split("\n")[0] == both.summaries[0]["neighbors"][0]["label"]


def test_a_layer_without_codes_gets_a_sentence(colour_index: Index, queries: Tensor) -> None:
    with pytest.raises(OptionError, match="has codes of"):
        neighbors(colour_index, queries, layer="0")
