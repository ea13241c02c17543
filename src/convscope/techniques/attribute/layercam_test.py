"""layercam against its formula in loops, on the toy network and on a deep one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.layercam import layercam

pytest_plugins = "convscope.techniques.attribute._examples_test"


def test_equals_the_formula_in_loops(deep: Network, pictures: Tensor) -> None:
    found = layercam(deep, pictures, target=[0, 1, 2], layer="relu2")
    module = deep.module
    maps = F.relu(module[2](F.relu(module[0](deep.normalise(pictures))))).detach().requires_grad_()
    logits = module[7](F.relu(module[5](maps.flatten(1))))
    (slopes,) = torch.autograd.grad(logits.diagonal().sum(), maps)
    maps = maps.detach()
    for n in range(3):
        for i in range(4):
            for j in range(5):
                cell = sum(max(float(slopes[n, k, i, j]), 0.0) * float(maps[n, k, i, j]) for k in range(6))
                assert abs(float(found.cells[n, i, j]) - cell) < 1e-5


def test_on_the_toy_network(toy: Network, ramp: Tensor) -> None:
    found = layercam.function(toy, ramp, target=0, layer="relu1")
    # convolutions 45 54 81 90; slope +1 at the first five of eight inputs: relu1 is 0 4 31 40 and 0 0 6 15
    assert found.cells.tolist() == [[[0.0, 4.0], [31.0, 40.0]]]
