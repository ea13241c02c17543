from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convscope.results import Patch, Provenance
from convscope.views import figure, html
from convscope.views.patches import SIDE, patch_on


@pytest.fixture
def result(provenance: Callable[..., Provenance]) -> Patch:
    inside = torch.zeros(10, 10, dtype=torch.bool)
    inside[2:8, 2:8] = True
    return Patch(
        values=torch.full((1, 3, 10, 10), 1.0) * torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1), summaries=[{}],
        form="circle", target="toaster", shares=[0.1, 0.2], rates=torch.tensor([[0.5, 0.3, 0.7], [1.0, 0.8, 1.0]]),
        controls=torch.tensor([[0.0, 0.0, 0.2], [float("nan")] * 3]), covered=inside,
        examples=torch.rand(3, 3, 20, 30), example_titles=["10% → toaster"] * 3, per_picture=False,
        provenance=provenance("patch"),
    )  # fmt: skip


def test_the_patch_stands_on_paper(result: Patch) -> None:
    drawn = patch_on(result, "#ffffff")
    assert drawn.shape == (SIDE, SIDE, 3)
    assert drawn[0, 0].tolist() == [255, 255, 255]
    assert drawn[SIDE // 2, SIDE // 2].tolist() == [0, 255, 0]
    assert (drawn == (0, 255, 0)).all(2).mean() == pytest.approx(0.36, abs=0.01)


def test_sheet_and_page_say_the_rates(result: Patch) -> None:
    assert figure(result).pixels().shape[1] > 1000
    assert "Patch for toaster: 50% at 10%, 100% at 20%" in html(result)
