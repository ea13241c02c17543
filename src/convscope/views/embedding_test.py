from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.errors import OutputError
from convscope.images import read_recipe
from convscope.results import Embedding, Provenance
from convscope.views import figure, html

COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)


def embedding(**more: object) -> Embedding:
    """Three thumbnails of one colour each, of which two have a place."""
    arranged = {"arrangement": "grid", "places": torch.tensor([[0, 1], [1, 0], [-1, -1]]), "lattice": (2, 2)}
    return Embedding(
        values=torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]]), summaries=[{"trustworthiness": 0.9, "layer": "fc"}],
        per_picture=False, thumbnails=COLOURS[:, :, None, None].expand(3, 3, 8, 8).contiguous(),
        groups=torch.tensor([0, 1, -1]), group_names=["ant", "bee"], names=["a.jpg", "b.jpg", "</script>c.jpg"],
        fields={"taken for": ["ant", "bee", "bee"]}, **(arranged | more),
    )  # fmt: skip


def test_the_sheet_holds_each_thumbnail_at_its_place() -> None:
    sheet = embedding().sheet()
    assert sheet.shape == (16, 16, 3)
    assert (sheet[:8, 8:] == [255, 0, 0]).all()
    assert (sheet[8:, :8] == [0, 255, 0]).all()
    assert (sheet[:8, :8] == 255).all()
    assert (sheet[8:, 8:] == 255).all()


def test_the_picture_that_is_saved_is_the_sheet_and_carries_its_recipe(tmp_path: Path) -> None:
    made = Provenance("embed", {}, "net", "random", "fc", 0, "float32", "cpu")
    path = embedding(provenance=made).save(tmp_path / "grid.png")
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), embedding().sheet())
    assert '"embed"' in str(read_recipe(path))


def test_a_figure_of_the_sheet_says_how_many_there_are() -> None:
    assert "2 pictures at 2 × 2 places" in [text.get_text() for text in figure(embedding()).texts]
    assert "thumbnails" in html(embedding())


def test_without_places_it_is_a_scatter() -> None:
    result = embedding(places=None, arrangement="scatter")
    assert {"ant", "bee", "no group"} <= {text.get_text() for text in figure(result).texts}
    with pytest.raises(OutputError, match="arrange it as a grid"):
        result.sheet()


def test_names_of_many_groups_stand_at_their_middles() -> None:
    points = torch.stack([torch.arange(80.0) // 10 * 5, torch.arange(80.0) % 10 / 10], 1)
    result = Embedding(
        values=points, summaries=[{}], thumbnails=torch.zeros(80, 3, 8, 8, dtype=torch.uint8),
        groups=torch.arange(80) // 10, group_names=[f"class {i}" for i in range(8)],
    )  # fmt: skip
    written = {text.get_text(): text.xy for text in figure(result).axes[0].texts}
    np.testing.assert_allclose(written["class 3"], (15.0, 0.45), rtol=1e-6)
    assert len(written) == 8
