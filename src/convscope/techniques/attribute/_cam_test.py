"""The machinery of the family: layers, fusing, enlarging, and what is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import OptionError, UnknownLayer, UnknownTarget
from convscope.network import Network
from convscope.techniques.attribute._cam import Seen, activation_map, enlarged, enlarged_and_fused

pytest_plugins = "convscope.techniques.attribute._examples_test"


def first_channel(seen: Seen) -> Tensor:
    return seen.maps[:, 0]


def test_a_formula_sees_maps_slopes_scores_and_targets(deep: Network, pictures: Tensor) -> None:
    met: list[Seen] = []
    activation_map(deep, pictures, lambda s: met.append(s) or s.maps[:, 0], target=[2, 0, 1], layer="relu2")
    (seen,) = met
    module = deep.module
    conv2 = module[2](F.relu(module[0](deep.normalise(pictures)))).detach().requires_grad_()
    rectified = F.relu(conv2)
    logits = module[7](F.relu(module[5](rectified.flatten(1))))
    scores = logits[torch.arange(3), torch.tensor([2, 0, 1])]
    (slopes,) = torch.autograd.grad(scores.sum(), rectified)
    torch.testing.assert_close(seen.maps, rectified.detach())
    torch.testing.assert_close(seen.slopes, slopes)
    torch.testing.assert_close(seen.scores, scores.detach())
    assert seen.targets.tolist() == [2, 0, 1]
    assert seen.layer == "relu2"


def test_without_slopes_nothing_is_differentiated(deep: Network, pictures: Tensor) -> None:
    met: list[Seen] = []

    def formula(seen: Seen) -> Tensor:
        met.append(seen)
        return seen.maps[:, 0]

    activation_map(deep, pictures, formula, target=0, layer="relu2", slopes=False)
    assert not met[0].slopes.any()
    assert not met[0].activation.requires_grad


def test_cells_are_the_formulas_and_values_their_bilinear_enlargement(deep: Network, pictures: Tensor) -> None:
    found = activation_map(deep, pictures, first_channel, target=0, layer="conv2")
    module = deep.module
    cells = module[2](F.relu(module[0](deep.normalise(pictures))))[:, 0].detach()
    assert found.cells is not None
    torch.testing.assert_close(found.cells, cells)
    assert float(cells.min()) < 0, "signs are kept"
    top, left = 2, 3  # pixel (3, 4) of a map enlarged by two lies between cells (1, 1.75) and so on
    by_hand = 0.0
    for row, share_row in ((top // 2, 0.75), (top // 2 + 1, 0.25)):
        for column, share_column in ((left // 2, 0.75), (left // 2 + 1, 0.25)):
            by_hand += share_row * share_column * float(cells[0, row, column])
    assert float(found.values[0, 3, 3]) == pytest.approx(by_hand, abs=1e-5)
    assert found.layer == "conv2"


def test_several_layers_are_scaled_to_one_and_averaged(deep: Network, pictures: Tensor) -> None:
    alone = [activation_map(deep, pictures, first_channel, target=0, layer=n).values for n in ("conv1", "conv2")]
    found = activation_map(deep, pictures, first_channel, target=0, layer=["conv1", "conv2", "conv1"])
    for number in range(3):
        one, two = (a[number] / a[number].abs().max() for a in alone)
        torch.testing.assert_close(found.values[number], (one + two) / 2)
    assert found.cells is None
    assert found.layer == "conv1, conv2"
    assert found.quantity.endswith("each layer scaled to 1")


def test_a_map_of_zeros_stays_so_among_several() -> None:
    images = torch.zeros(1, 3, 2, 2)
    found = enlarged_and_fused([torch.zeros(1, 2, 2), torch.tensor([[[1.0, -4.0], [2.0, 0.0]]])], images)
    assert found.tolist() == [[[0.125, -0.5], [0.25, 0.0]]]


def test_a_cell_of_its_own_size_is_not_changed() -> None:
    cells = torch.rand(2, 3, 4)
    assert torch.equal(enlarged(cells, (3, 4)), cells)


def test_an_all_negative_map_is_said(deep: Network, pictures: Tensor) -> None:
    found = activation_map(deep, pictures[:1], lambda s: -s.maps[:, 0].abs() - 1, target="bee", layer="conv2")
    assert found.notes == ["no position speaks for bee: the whole map is negative"]


def test_bad_layers_and_targets_get_a_sentence(deep: Network, pictures: Tensor) -> None:
    with pytest.raises(OptionError, match="'fc1' has no spatial extent, so it has no map; try 'relu2'"):
        activation_map(deep, pictures, first_channel, target=0, layer=["relu1", "fc1"])
    with pytest.raises(UnknownLayer, match="no layer 'relu9'"):
        activation_map(deep, pictures, first_channel, target=0, layer="relu9")
    with pytest.raises(UnknownTarget):
        activation_map(deep, pictures, first_channel, target=3, layer="relu1")
