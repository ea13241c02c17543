from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from convscope.results import Agreement, Provenance
from convscope.views import figure, html
from convscope.views.agreement import MOST, _shown, shares
from convscope.views.colour import colour_map


@pytest.fixture
def result(provenance: Callable[..., Provenance]) -> Agreement:
    names = [f"person {number}" for number in range(20)]
    values = torch.rand(21, 4, generator=torch.Generator().manual_seed(0)).sort(1).values[:, [1, 0, 2, 3]]
    counts = torch.tensor([[[4, 0, 0], [1, 2, 1]], [[0, 4, 0], [0, 0, 0]]])
    return Agreement(
        values=values, columns=("participant",), rows=[[name] for name in [*names, "net"]], summaries=[{}],
        participants=[*names, "net"], names=["cat", "dog"], confusions=counts, per_picture=False,
        kappa_ends=torch.stack([values[:, 3] - 0.3, values[:, 3] + 0.1], 1), provenance=provenance("humans"),
    )  # fmt: skip


def test_confusions_are_shares_of_their_rows(result: Agreement) -> None:
    table = colour_map(False)
    expected = np.array([[1, 0, 0], [0.25, 0.5, 0.25]])
    assert (shares(result, 0) == table[np.rint(expected * 255).astype(int)]).all()
    assert (shares(result, 1)[1] == table[0]).all()  # never shown


def test_of_many_people_some_are_drawn_and_the_network_always(result: Agreement) -> None:
    assert len(_shown(result)) == MOST
    assert _shown(result)[-1] == 20
    assert figure(result).pixels().shape[0] > 800
    assert "Accuracy, error consistency" in html(result)


def test_headings_of_few_categories_are_whole(result: Agreement) -> None:
    said = [text.get_text() for text in figure(result).texts]
    assert "people answered" in said
    assert "net answered" in said
