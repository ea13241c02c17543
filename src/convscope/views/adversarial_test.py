"""Two pictures, their difference and bars."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from convscope.results import Adversarial, Provenance
from convscope.views import adversarial, figure, html, terminal

Make = Callable[..., Adversarial]


@pytest.fixture
def pairs(provenance: Callable[..., Provenance]) -> Make:
    """Pictures of 64 by 80 pixels; the left half is two levels brighter afterwards, a corner forty darker."""

    def made(count: int = 1) -> Adversarial:
        originals = (torch.rand(count, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 100 + 60).round() / 255
        values = originals.clone()
        values[..., :40] += 2 / 255
        values[:, 0, -8:, -8:] -= 40 / 255
        return Adversarial(
            values=(values * 255).round() / 255, originals=originals, summaries=[{}] * count,
            names=[["cat", "schooner"]] * count, before=[[0.9, 0.001]] * count, after=[[0.02, 0.95]] * count,
            success=[True] * count, titles=["cat → schooner"] * count,
            captions=[["largest change 40/255", "2,624 of 5,120 pixels changed"]] * count,
            provenance=provenance("pgd", ["a.png", "b.png"]),
        )  # fmt: skip

    return made


def shown(drawn: Figure, label: str) -> np.ndarray:
    axes = next(a for a in drawn.axes if a.get_label() == label)
    return np.asarray(axes.images[0].get_array())


def words(drawn: Figure) -> list[str]:
    return [text.get_text() for text in drawn.texts]


def test_both_pictures_and_their_difference_are_drawn(pairs: Make) -> None:
    result = pairs()
    drawn = figure(result)
    change = shown(drawn, "difference, grey is none")
    tenfold = shown(drawn, "difference × 10")
    middle = change.shape[0] // 2
    side = change.shape[1]
    assert (change[middle, -side // 4] == 128).all()
    assert (change[middle, side // 4] == 130).all()
    assert (tenfold[middle, side // 4] == 148).all()
    assert tenfold[-4, -4].tolist() == [0, 128, 128]  # forty levels times ten are more than there are
    assert np.abs(shown(drawn, "original").astype(int).mean() - float(result.originals.mean()) * 255) < 1


def test_what_the_network_says_stands_below(pairs: Make) -> None:
    found = words(figure(pairs()))
    assert found.count("cat") == 2
    assert found.count("schooner") == 2
    assert {"90.0 %", "0.1 %", "2.0 %", "95.0 %", "largest change 40/255"} <= set(found)
    assert any("cat → schooner" in text and "a.png" in text for text in found)


def test_many_are_left_out_and_said(pairs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversarial, "MOST", 2)
    assert any("2 of 5 pictures are drawn" in text for text in words(figure(pairs(5))))


def test_of_pictures_that_share_one_change_some_are_enough(pairs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversarial, "SOME", 2)
    shared = replace(pairs(5), per_picture=False, summaries=[{}])
    assert any("2 of 5 pictures are drawn" in text for text in words(figure(shared)))
    assert html(shared).count("<figure>") == 2
    assert "2 of 5 pictures are drawn" in html(shared)
    assert html(pairs(5)).count("<figure>") == 5


def test_a_page_and_a_terminal_say_the_same(pairs: Make, capsys: pytest.CaptureFixture[str]) -> None:
    page = html(pairs(2))
    assert page.count("<figure>") == 2
    assert page.count("<img") == 8
    assert re.search(r"<li class=best><span>schooner</span><span class=\"share\">95.0 %", page)
    terminal(pairs(1))
    said = capsys.readouterr().out
    assert "90.0 % → 2.0 %" in said
    assert "fooled" in said
