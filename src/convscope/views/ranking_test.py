from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convscope.results import Provenance, Ranking
from convscope.views import figure, html


@pytest.fixture
def ranking(provenance: Callable[..., Provenance]) -> Ranking:
    return Ranking(
        values=torch.zeros(2, 3), summaries=[{}, {}], images=torch.rand(2, 3, 16, 16),
        names=[["cat & <mouse>", "dog"], ["cup", "x" * 200]], shares=[[0.75, 0.25], [0.99999, 1e-9]],
        provenance=provenance("classify", ["a/cat.jpg", "b/cup.jpg"]),
    )  # fmt: skip


def test_names_and_percentages_are_written(ranking: Ranking) -> None:
    said = [text.get_text() for text in figure(ranking).texts]
    assert {"cat.jpg", "cat & <mouse>", "75.0 %", "25.0 %", "> 99.9 %", "< 0.1 %"} <= set(said)
    assert any(text.startswith("xxx") and text.endswith("…") for text in said)


def test_bars_are_as_long_as_their_shares(ranking: Ranking) -> None:
    drawn = figure(ranking)
    widths = [patch.get_width() for patch in drawn.patches + drawn.artists]
    track, first = widths[0], widths[1]
    assert first / track == pytest.approx(0.75)


def test_the_page_has_an_ordered_list(ranking: Ranking) -> None:
    fragment = html(ranking)
    assert fragment.count("<li>") == 4
    assert "cat &amp; &lt;mouse&gt;" in fragment
    assert 'style="width: 75.00%"' in fragment
    assert 'alt="Photograph: cup.jpg"' in fragment
