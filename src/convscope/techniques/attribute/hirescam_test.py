"""hirescam: its formula in loops, and completeness where the network behind the layer is linear."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.cam import cam
from convscope.techniques.attribute.hirescam import hirescam

pytest_plugins = "convscope.techniques.attribute._examples_test"


def test_equals_the_formula_in_loops(deep: Network, pictures: Tensor) -> None:
    found = hirescam(deep, pictures, target=1, layer="relu1")
    module = deep.module
    maps = F.relu(module[0](deep.normalise(pictures))).detach().requires_grad_()
    score = module[7](F.relu(module[5](F.relu(module[2](maps)).flatten(1))))[:, 1]
    (slopes,) = torch.autograd.grad(score.sum(), maps)
    maps = maps.detach()
    for n in range(3):
        for i in range(8):
            for j in range(10):
                cell = sum(float(slopes[n, k, i, j] * maps[n, k, i, j]) for k in range(4))
                assert float(found.cells[n, i, j]) == pytest.approx(cell, abs=1e-5)


def test_on_the_toy_network(toy: Network, ramp: Tensor) -> None:
    found = hirescam.function(toy, ramp, target=0, layer="relu1")
    # relu1 is 0 4 31 40 and 0 0 6 15; its slopes +1 +1 +1 +1 and +1 -1 -1 -1
    assert found.cells.tolist() == [[[0.0, 4.0], [25.0, 25.0]]]
    assert float(found.cells.sum()) == found.summary["score"] == 54.0


def test_before_one_linear_layer_its_sum_is_the_score_without_the_bias(pictures: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 8, 3))
    found = hirescam(Network(module, input_size=(8, 10)), pictures, target=[0, 1, 2], layer="1")
    for number, (cells, summary) in enumerate(zip(found.cells, found.summaries, strict=True)):
        assert float(cells.sum() + module[3].bias[number].detach()) == pytest.approx(summary["score"], abs=1e-5)


def test_equals_cam_over_the_number_of_cells_where_there_is_one(averaging: Network, pictures: Tensor) -> None:
    torch.testing.assert_close(hirescam(averaging, pictures).values, cam(averaging, pictures).values / 80)
