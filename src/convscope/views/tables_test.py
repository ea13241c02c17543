from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from rich.console import Console

from convscope.results import Curve, Heatmap, Pictures, Provenance, Ranking, Table
from convscope.views import figure, html, needs_picture, terminal
from convscope.views.tables import numeric


@pytest.fixture
def table(provenance: Callable[..., Provenance]) -> Callable[[int], Table]:
    def made(count: int) -> Table:
        rows = [[f"block.{i}.[red]conv" + "x" * 150, "Conv2d", f"{i * 1000:,}", f"{i} × 3"] for i in range(count)]
        columns = ["layer", "kind", "weights", "size"]
        return Table(
            values=torch.zeros(count, 1), summaries=[{}], per_picture=False, columns=columns, rows=rows,
            provenance=provenance("layers"),
        )  # fmt: skip

    return made


def text_of(result: object, **options: object) -> str:
    console = Console(file=io.StringIO(), **options)  # type: ignore[arg-type]
    terminal(result, console)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_columns_of_numbers_are_told_from_words() -> None:
    rows = [["a", "1,234", "3 × 3", "–", "whole"], ["b1", "–", "11 × 11", "–", "7 × 7"]]
    assert [numeric(rows, c) for c in range(5)] == [False, True, True, False, False]


def test_a_file_gets_every_letter_and_no_escape_codes(table: Callable[[int], Table]) -> None:
    text = text_of(table(3), width=40)
    assert "\x1b" not in text
    assert "block.2.[red]conv" + "x" * 150 in text
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["layer", "kind", "weights", "size"]
    assert lines[3].split()[-4:] == ["2,000", "2", "×", "3"]


def test_a_terminal_gets_emphasis(table: Callable[[int], Table]) -> None:
    assert "\x1b[" in text_of(table(3), force_terminal=True, width=200)


def test_rankings_and_maps_and_curves_are_said_in_text(provenance: Callable[..., Provenance]) -> None:
    made = provenance("x", ["a/cat.jpg"])
    image = torch.zeros(1, 3, 4, 4)
    values = torch.zeros(1, 4, 4)
    values[0, 1, 2] = -3
    ranking = Ranking(values=values, summaries=[{}], images=image, names=[["cat"]], shares=[[0.5]], provenance=made)
    assert text_of(ranking).split() == ["cat.jpg", "share", "class", "50.0", "%", "██████████", "cat"]
    heat = Heatmap(
        values=values, summaries=[{}], images=image, signed=True, quantity="score", titles=["cat"], provenance=made
    )
    assert text_of(heat).splitlines()[-1].split() == ["cat.jpg", "cat", "−3", "0", "1,", "2"]
    curve = Curve(values=torch.tensor([[1.0, torch.nan]]), summaries=[{}], series=["a"], points=["p", "q"], panels=[])
    assert text_of(curve).split() == ["a", "p", "1", "q", "–"]
    tiles = Pictures(values=values, summaries=[{}], tiles=torch.zeros(1, 1, 1, 2, 2), titles=["what it is"])
    assert text_of(tiles).strip() == "what it is"
    assert [needs_picture(r) for r in (ranking, heat, curve, tiles)] == [False, True, True, True]


def test_a_long_table_says_what_its_figure_leaves_out(table: Callable[[int], Table]) -> None:
    drawn = figure(table(300))
    said = [text.get_text() for text in drawn.texts]
    assert "… 236 more rows …" in said
    assert "299 × 3" in said
    assert max(drawn.get_size_inches()) < 20
    assert not any("more rows" in text.get_text() for text in figure(table(64)).texts)


def test_the_page_has_a_real_table_with_every_row(table: Callable[[int], Table]) -> None:
    fragment = html(table(300))
    assert fragment.count("<tr>") == 301
    assert fragment.count('<th scope="col"') == 4
    assert '<td class="number">299,000</td>' in fragment


def test_an_empty_table_is_drawn(table: Callable[[int], Table]) -> None:
    assert figure(table(0)).texts
    assert html(table(0)).count("<tr>") == 1
