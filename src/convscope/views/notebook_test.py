"""What a notebook shows: with looks of its own, which reach nothing else on the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import pytest
import torch
from PIL import Image

from convscope import views
from convscope.results import Heatmap, Scatter, Synthesis
from convscope.views import notebook


def selectors(css: str) -> list[str]:
    """Of every rule, also within @media."""
    found = [" ".join(each.split()) for each in re.findall(r"([^{}]+)\{", css)]
    return [part.strip() for each in found if not each.startswith("@") for part in re.split(r",(?![^(]*\))", each)]


def test_no_rule_reaches_beyond_the_result() -> None:
    found = selectors(notebook.style())
    assert len(found) > 100
    assert all(".convscope" in each.split("::")[0] for each in found)
    assert not re.search(r"@(?!media)|url\(", notebook.style())


def test_rules_within_a_media_query_are_scoped_and_the_query_is_kept() -> None:
    css = "/* a, b { */ a, b c { x: min(1px, 2px); } @media print { th { y: 1; } }"
    scoped = " ".join(notebook.scoped(css).split())
    assert scoped == ".convscope a, .convscope b c { x: min(1px, 2px); }@media print {.convscope th { y: 1; } }"


def test_a_cell_has_its_name_its_notes_and_no_script(heatmap: Callable[..., Heatmap]) -> None:
    cell = heatmap(torch.rand(2, 8, 8), notes=["picture <1> is constant"])._repr_html_()
    assert cell.count("<figure>") == 2
    assert "<strong>saliency</strong> toy" in cell
    assert "<li>Picture &lt;1&gt; is constant.</li>" in cell
    assert "<script" not in cell


def test_a_drawing_is_there_for_light_and_for_dark_notebooks() -> None:
    cell = views.cell(Scatter(values=torch.rand(9, 2), summaries=[{}], per_picture=False))
    light, dark = (re.search(rf'class="drawing {theme}".*? src="([^"]*)"', cell) for theme in ("light", "dark"))
    assert light is not None
    assert dark is not None
    assert light[1] != dark[1]
    assert "<picture>" not in cell


def test_what_would_be_too_large_is_one_picture(
    heatmap: Callable[..., Heatmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "LARGEST", 10)
    cell = heatmap(torch.rand(2, 8, 8))._repr_html_()
    assert cell.count("<img") == 1


def test_a_run_that_kept_frames_shows_how_it_came_about() -> None:
    frames = [(step, torch.full((1, 3, 300, 400), 20 * step, dtype=torch.uint8)) for step in range(3)]
    made = Synthesis(values=torch.ones(1, 3, 300, 400), summaries=[{}], frames=frames)
    film = base64.b64decode(
        views.cell(made).partition('class="film"><img src="data:image/webp;base64,')[2].partition('"')[0]
    )
    with Image.open(io.BytesIO(film)) as opened:
        assert (opened.n_frames, opened.size) == (4, (224, 168))
