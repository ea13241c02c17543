"""An explorer with an index: units, the map, neighbours and labels are those of the index."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from convscope.explorer.app import create_app
from convscope.explorer.conftest import ADDRESS
from convscope.explorer.settings import Settings
from convscope.images import read_image, to_uint8
from convscope.index import Index


@pytest.fixture(scope="module")
def asked(
    colour_index: Index, colour_spec: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The application on the small index of blue, green and red squares."""
    cache: Path = tmp_path_factory.mktemp("cache")
    settings = Settings(loaded=colour_spec, index=colour_index.path, cache=cache)
    with TestClient(create_app(settings), base_url=ADDRESS) as client:
        yield client


def test_a_units_patches_and_numbers_are_the_indexs(asked: TestClient, colour_index: Index) -> None:
    layer = colour_index.layers[0]
    unit = asked.get(f"/api/layers/{layer}/units/1").json()
    patches, statistics = colour_index.patches(layer), colour_index.statistics(layer)
    assert unit["scanned"]
    assert [patch["place"] for patch in unit["patches"]] == patches.ids[1][patches.ids[1] >= 0].tolist()
    assert unit["statistics"]["maximum"] == pytest.approx(float(statistics.maximum[1]))
    assert sum(unit["statistics"]["histogram"]) == int(np.asarray(statistics.histogram)[1].sum())
    place = unit["patches"][0]["place"]
    served = read_image(asked.get(f"/api/index/pictures/{place}/prepared.png").content)
    np.testing.assert_array_equal(to_uint8(served), to_uint8(colour_index.prepared(place)))


def test_the_map_holds_every_picture_where_pca_puts_it(asked: TestClient, colour_index: Index) -> None:
    columns = np.frombuffer(asked.get("/api/index/points").content, np.float32).reshape(5, -1)
    np.testing.assert_array_equal(columns[4], colour_index.ids)
    np.testing.assert_array_equal(columns[2], colour_index.labels())
    codes = colour_index.codes().astype(np.float64)
    centred = codes - codes.mean(0)
    _, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.linalg.norm(columns[:2], axis=1), sizes[:2], rtol=1e-4)


def test_a_picture_of_the_index_its_neighbours_and_its_thumbnail(asked: TestClient, colour_index: Index) -> None:
    place = int(colour_index.ids[3])
    told = asked.get(f"/api/index/pictures/{place}").json()
    codes = colour_index.codes()
    distances = np.linalg.norm(codes - codes[3], axis=1)
    order = [int(colour_index.ids[i]) for i in np.argsort(distances, kind="stable") if i != 3]
    assert [each["id"] for each in told["neighbours"]][:3] == order[:3]
    assert Image.open(io.BytesIO(asked.get(f"/api/index/pictures/{place}.webp").content)).format == "WEBP"
    rows = asked.post("/api/index/rows", json={"ids": [place]}).json()["rows"]
    assert rows[0]["label"] == told["label"]
    opened = asked.post(f"/api/index/pictures/{place}").json()
    assert opened["prediction"][0]["label"] == told["predicted"]
    assert asked.get("/api/index/pictures/9999").status_code == 404


def test_labels_are_asked_of_the_index_and_both_scores_stand_beside_each_other(asked: TestClient) -> None:
    told = asked.post("/api/studies", json={"kind": "label", "limit": 6}).json()
    assert told["names"] == ["blue", "green", "red"]
    for number in range(6):
        picture = read_image(asked.get(f"/api/studies/{told['id']}/{number}.png").content)
        middle = picture.flatten(1).amax(1)
        answer = ["red", "green", "blue"][int(middle.argmax())]
        told = asked.post(f"/api/studies/{told['id']}/{number}", json={"answer": answer}).json()
    assert len(told["scores"]) == 3
    assert "of 6 right" in told["scores"][0]
    assert told["scores"][2].startswith("error consistency")


def test_questions_on_the_index_have_forms_here(asked: TestClient) -> None:
    found = asked.get("/api/techniques").json()["techniques"]
    assert all(each["family"] for each in found)
    assert asked.get("/api/index").json()["index"]["pictures"] == 24
