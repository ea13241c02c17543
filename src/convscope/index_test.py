"""Reading an index: columns and conditions, neighbours, and what it says when something is amiss."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convscope.conftest import colour_pictures
from convscope.errors import IndexUnusable, OptionError
from convscope.index import Index, nearest_rows, open_index
from convscope.scanning import scan, store
from convscope.zoo import load_network


def test_columns_and_conditions(colour_index: Index) -> None:
    found = colour_index.pictures(["path", "label"], "label = 'red' and not correct")
    assert found.column_names == ["path", "label"]
    everything = colour_index.pictures()
    assert {"thumbnail", "brightness", "aspect", "loss"} <= set(everything.column_names)
    assert not any(name.startswith("code_") for name in everything.column_names)
    with pytest.raises(OptionError, match="no column 'brightnes'; did you mean 'brightness'"):
        colour_index.pictures(["brightnes"])
    assert colour_index.row(3, ["label"]) == {"label": "blue"}
    with pytest.raises(OptionError, match="pictures 0 to 24, not 99"):
        colour_index.image(99)


def test_layers_that_it_does_not_know(colour_index: Index) -> None:
    with pytest.raises(OptionError, match="knows nothing of layer '2'"):
        colour_index.patches("2")
    with pytest.raises(OptionError, match="not of '1'; scan to another place with --code-layer 1"):
        colour_index.codes("1")


def test_what_cannot_be_read_has_no_thumbnail(colour_index: Index) -> None:
    broken = int(colour_index.pictures(["id"], "error is not null")["id"][0].as_py())
    with pytest.raises(IndexUnusable, match=r"could not be read: .*broken.png"):
        colour_index.thumbnail(broken)


def test_pictures_that_were_moved(tmp_path: Path, colour_spec: dict[str, Any]) -> None:
    folder = colour_pictures(tmp_path / "pictures", each=1)
    scan(load_network(**colour_spec), folder, tmp_path / "i.index", workers=0)
    (folder / "blue" / "00.png").unlink()
    index = open_index(tmp_path / "i.index")
    with pytest.raises(IndexUnusable, match=r"blue/00.png can no longer be read"):
        index.image(0)
    assert index.image(1).shape == (3, 40, 48)
    shutil.rmtree(folder)
    with pytest.raises(IndexUnusable, match=r"are no longer at .*pictures"):
        open_index(tmp_path / "i.index").image(1)
    assert index.thumbnail(0).shape == (3, 40, 48)


def test_gradients_by_class(colour_index: Index) -> None:
    found = colour_index.gradients()
    assert found.classes.tolist() == [0, 1, 2]
    assert found.counts.sum() == 16
    assert found.counts.min() >= 5  # the sample is spread over classes
    assert found.layers == colour_index.layers
    assert found.layer_mean.shape == found.layer_spread.shape == (3, 2)
    assert (found.input_mean > 0).all()


@pytest.mark.parametrize("count", [1, 7, 300])
def test_the_nearest_are_those_of_a_slow_search(count: int) -> None:
    chance = np.random.default_rng(1)
    codes = chance.normal(size=(300, 20)).astype(np.float32) + 1000  # rounding of |a|² - 2ab would decide
    codes[17] = codes[5]
    wanted = np.concatenate([codes[5:6], codes[30:32] + 0.001, chance.normal(size=(2, 20)).astype(np.float32)])
    places, distances = nearest_rows(codes, wanted, count, np.einsum("nc,nc->n", codes, codes))
    for code, place, distance in zip(wanted.astype(np.float64), places, distances, strict=True):
        slow = np.linalg.norm(codes.astype(np.float64) - code, axis=1)
        np.testing.assert_allclose(distance, np.sort(slow)[:count], rtol=1e-9)
        np.testing.assert_array_equal(place, np.argsort(slow, kind="stable")[:count])
    assert places[0, 0] == 5  # and not its copy
    assert distances[0, 0] == 0


def test_the_vector_index_of_the_database_agrees_on_few_pictures(colour_index: Index) -> None:
    codes = colour_index.codes()
    exact, distances = colour_index.nearest(codes[:4], 5)
    found, approximate = colour_index.nearest(codes[:4], 5, exact=False)
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(approximate, distances, rtol=1e-3, atol=1e-5)


def test_the_vector_index_of_many_pictures(
    tmp_path: Path, colour_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MANY", 300)
    chance = np.random.default_rng(2)
    colours = chance.random((400, 1, 1, 3)).repeat(8, 1).repeat(8, 2)
    pairs = [((255 * colour).astype(np.uint8), 0) for colour in colours]
    source = type("Pairs", (), {"__len__": lambda self: 400, "__getitem__": lambda self, place: pairs[place]})()
    index = scan(load_network(**colour_spec), source, tmp_path / "v.index", loaded=colour_spec, workers=0, gradients=0)
    assert [each.columns for each in index._table("pictures").list_indices()] == [["code_0"]]
    exact, _ = index.nearest(index.codes()[::20], 10)
    found, distances = index.nearest(index.codes()[::20], 10, exact=False)
    assert np.mean([len(set(one) & set(other)) / 10 for one, other in zip(exact, found, strict=True)]) > 0.8
    assert (np.diff(distances, axis=1) >= 0).all()
    with pytest.raises(IndexUnusable, match="dataset in Python"):
        index.image(0)
