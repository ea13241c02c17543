"""A whole scan, on the index of the fixture: every number against the network asked picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import convscope
from convscope.hooks import OUTPUT, observe
from convscope.index import EDGES, EVERY, Index


@pytest.fixture(scope="module")
def apart(colour_index: Index) -> dict[str, torch.Tensor]:
    """What the network puts out for each picture alone."""
    images = torch.stack([colour_index.prepared(int(id)) for id in colour_index.ids])
    seen = observe(colour_index._scanning, images, [*colour_index.layers, *colour_index.code_layers, OUTPUT])
    return {name: tensor.float() for name, tensor in seen.items()}


def test_every_picture_has_a_row_in_the_order_of_the_source(colour_index: Index) -> None:
    rows = colour_index.pictures()
    assert rows["id"].to_pylist() == list(range(25))
    assert [path.split("/")[-2] for path in rows["path"].to_pylist()] == ["blue"] * 8 + ["green"] * 9 + ["red"] * 8
    assert rows["label"].to_pylist() == ["blue"] * 8 + ["green"] * 9 + ["red"] * 8
    broken = colour_index.pictures(["path", "error", "predicted"], "error is not null").to_pylist()
    assert len(broken) == 1
    assert broken[0]["path"].endswith("green/broken.png")
    assert "cannot be read" in broken[0]["error"]
    assert broken[0]["predicted"] is None
    assert len(colour_index) == 24


def test_codes_predictions_and_losses_are_the_networks(colour_index: Index, apart: dict[str, torch.Tensor]) -> None:
    layer = colour_index.code_layers[0]
    codes = colour_index.network.codes(layer, apart[layer]).numpy()
    np.testing.assert_allclose(colour_index.codes(), codes, atol=1e-5)
    rows = colour_index.pictures(["predicted", "probability", "loss", "correct", "label_index"], "error is null")
    chances = apart[OUTPUT].softmax(1)
    assert rows["predicted"].to_pylist() == chances.argmax(1).tolist()
    np.testing.assert_allclose(rows["probability"].to_numpy(), chances.amax(1), rtol=1e-4)
    labels = torch.from_numpy(colour_index.labels()).long()
    loss = torch.nn.functional.cross_entropy(apart[OUTPUT], labels, reduction="none")
    np.testing.assert_allclose(rows["loss"].to_numpy(), loss, rtol=1e-4, atol=1e-6)
    assert rows["correct"].to_pylist() == (chances.argmax(1) == labels).tolist()


def test_patches_and_statistics_are_those_of_a_slow_search(colour_index: Index, apart: dict[str, torch.Tensor]) -> None:
    assert colour_index.layers == ("1", "4")
    for layer in colour_index.layers:
        found, told = colour_index.patches(layer), colour_index.statistics(layer)
        for channel, maps in enumerate(apart[layer].transpose(0, 1)):
            best = sorted(((-float(m.max()), int(id)) for m, id in zip(maps, colour_index.ids, strict=True) if m.any()))
            best = best[:9]
            np.testing.assert_allclose(found.values[channel][: len(best)], [-v for v, _ in best], rtol=1e-5)
            assert found.ids[channel].tolist() == [id for _, id in best] + [-1] * (9 - len(best))
            parts = (found.values, found.ids, found.rows, found.columns)
            for value, id, row, column in zip(*(part[channel] for part in parts), strict=True):
                if id >= 0:
                    picture = maps[colour_index.ids.tolist().index(id)]
                    assert float(picture[row, column]) == pytest.approx(float(value), rel=1e-5)
            values = maps.double().flatten()
            assert told.zeros[channel] == pytest.approx(float((values == 0).double().mean()))
            assert told.silent[channel] == pytest.approx(float((maps.amax((1, 2)) <= 0).double().mean()))
            assert told.mean[channel] == pytest.approx(float(values.mean()), rel=1e-5)
            assert told.spread[channel] == pytest.approx(float(values.std(correction=0)), rel=1e-4)
            assert told.maximum[channel] == pytest.approx(float(values.max()), rel=1e-5)
            some = maps[torch.from_numpy(colour_index.ids % EVERY == 0)].double().numpy()
            assert told.histogram[channel].tolist() == np.histogram(some, EDGES)[0].tolist()


def test_the_index_opens_with_its_network(colour_index: Index) -> None:
    again = convscope.open_index(colour_index.path)
    assert again.network.name == colour_index.network.name
    some = torch.stack([again.prepared(int(id)) for id in again.ids[:5]])
    np.testing.assert_allclose(again.encode(some), again.codes()[:5], atol=1e-5)
    ids, distances = again.nearest(again.codes()[3], 4)
    by_hand = np.linalg.norm(again.codes() - again.codes()[3], axis=1)
    np.testing.assert_allclose(distances[0], np.sort(by_hand)[:4], rtol=1e-5, atol=1e-6)
    assert ids[0, 0] == again.ids[3]
    assert again.thumbnail(3).shape == (3, 40, 48)
