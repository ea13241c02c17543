"""xgradcam against its formula in loops, and its two axioms where they hold exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.xgradcam import xgradcam

pytest_plugins = "convscope.techniques.attribute._examples_test"


def test_equals_the_formula_in_loops(deep: Network, pictures: Tensor) -> None:
    found = xgradcam(deep, pictures, target=1, layer="relu2")
    module = deep.module
    maps = F.relu(module[2](F.relu(module[0](deep.normalise(pictures))))).detach().requires_grad_()
    score = module[7](F.relu(module[5](maps.flatten(1))))[:, 1]
    (slopes,) = torch.autograd.grad(score.sum(), maps)
    maps = maps.detach()
    for n in range(3):
        expected = torch.zeros(4, 5)
        for k in range(6):
            total = float(maps[n, k].sum())
            weight = sum(
                float(maps[n, k, i, j]) / total * float(slopes[n, k, i, j]) if total else 0.0
                for i in range(4)
                for j in range(5)
            )
            expected += weight * maps[n, k].detach()
        torch.testing.assert_close(found.cells[n], expected, rtol=1e-4, atol=1e-5)


def test_conservation_the_map_of_a_linear_network_sums_to_the_score(averaging: Network, pictures: Tensor) -> None:
    found = xgradcam(averaging, pictures, target=2)
    for cells, summary in zip(found.cells, found.summaries, strict=True):
        assert float(cells.sum()) + float(averaging.module.fc.bias[2]) == pytest.approx(summary["score"], abs=1e-5)


def test_sensitivity_a_channels_part_of_the_map_is_what_the_score_loses_without_it(
    averaging: Network, pictures: Tensor
) -> None:
    whole = xgradcam(averaging, pictures, target=0)
    for channel in range(5):
        kept = averaging.module.conv.weight.data[channel].clone(), averaging.module.conv.bias.data[channel].clone()
        averaging.module.conv.weight.data[channel] = 0
        averaging.module.conv.bias.data[channel] = 0
        without = xgradcam(averaging, pictures, target=0)
        lost = [a["score"] - b["score"] for a, b in zip(whole.summaries, without.summaries, strict=True)]
        torch.testing.assert_close((whole.cells - without.cells).sum((1, 2)), torch.tensor(lost), rtol=1e-4, atol=1e-5)
        averaging.module.conv.weight.data[channel], averaging.module.conv.bias.data[channel] = kept


def test_a_silent_channel_has_no_weight_and_no_nan(averaging: Network, pictures: Tensor) -> None:
    averaging.module.conv.bias.data.fill_(-100.0)
    found = xgradcam(averaging, pictures[:1], target=0)
    assert found.values.abs().max() == 0
