"""Results below each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from convscope.results import Curve, Heatmap, Parts, Provenance, Table
from convscope.views import figure, html, terminal


@pytest.fixture
def parts(heatmap: Callable[..., Heatmap], provenance: Callable[..., Provenance]) -> Parts:
    curve = Curve(
        values=torch.tensor([[1.0, 2.0]]), summaries=[{}], per_picture=False, series=["rise"], points=["a", "b"],
        panels=[("rise", ["rise"], False)],
    )  # fmt: skip
    table = Table(values=torch.zeros(1, 0), summaries=[{}], columns=["what"], rows=[["thing"]])
    return Parts(
        values=torch.arange(3.0), summaries=[{"answer": 1}], provenance=provenance("linear"), per_picture=False,
        parts=[("First", curve), ("Second", table)], notes=["a remark"],
    )  # fmt: skip


def test_every_part_is_drawn_with_its_title(parts: Parts) -> None:
    drawn = figure(parts)
    words = [text.get_text() for text in drawn.texts]
    assert words[0] == "linear"
    assert {"First", "Second", "A remark."} <= set(words)
    pictures = [np.asarray(axes.images[0].get_array()) for axes in drawn.axes if axes.images]
    assert len(pictures) == 2
    assert all(picture.std() > 0 for picture in pictures)


def test_a_page_and_a_terminal_have_all_parts(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    page = html(parts)
    assert page.count('<section class="part">') == 2
    assert "<td>thing</td>" in page
    terminal(parts)
    said = capsys.readouterr().out
    assert "First" in said
    assert "thing" in said


def test_raw_numbers_of_the_parts_come_along(parts: Parts) -> None:
    arrays = parts.arrays()
    assert arrays["values"].tolist() == [0, 1, 2]
    assert arrays["1.values"].tolist() == [[1, 2]]
    assert list(arrays).count("provenance") == 1
