"""gradients against statistics of tensors differentiated one by one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.look.gradients import SERIES, gradients


def chain() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


PICTURES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = [0, 2, 1, 1, 0]


def by_hand(module: nn.Sequential) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    convolved = module[0](PICTURES)
    rectified = F.relu(convolved)
    pooled = rectified.mean((2, 3), keepdim=True)
    logits = module[4](pooled.flatten(1))
    loss = F.cross_entropy(logits, torch.tensor(LABELS), reduction="sum")
    tensors = {"0": convolved, "1": rectified, "2": pooled, "4": logits}
    slopes = torch.autograd.grad(loss, [*tensors.values(), module[0].weight])
    return tensors, dict(zip(tensors, slopes, strict=False)), slopes[-1]


@pytest.mark.parametrize("max_batch", [32, 2])
def test_statistics_equal_those_of_tensors_differentiated_by_hand(max_batch: int) -> None:
    module = chain()
    tensors, slopes, weight_slope = by_hand(module)
    found = gradients(Network(module, name="chain", input_size=(8, 8), max_batch=max_batch), PICTURES, target=LABELS)
    records = {r["name"]: r for r in found.summaries[0]["layers"]}
    assert list(records) == ["0", "1", "2", "4"]
    for name, tensor in tensors.items():
        for kind, of in (("activation", tensor), ("gradient", slopes[name])):
            of = of.detach().double()
            assert records[name][f"{kind} mean"] == pytest.approx(float(of.mean()), rel=1e-4, abs=1e-9)
            assert records[name][f"{kind} spread"] == pytest.approx(float(of.std(correction=0)), rel=1e-4, abs=1e-9)
            assert records[name][f"{kind} zeros"] == pytest.approx(float((of == 0).double().mean()))
        ratio = float(slopes[name].norm() / slopes["4"].norm())
        assert records[name]["gradient norm ratio"] == pytest.approx(ratio, rel=1e-4)
    expected = float(weight_slope.norm() / 5 / module[0].weight.detach().norm())
    assert records["0"]["weight gradient ratio"] == pytest.approx(expected, rel=1e-4)
    assert records["1"]["weight gradient ratio"] is None
    assert found.series == SERIES
    assert found.values[2, 1] == pytest.approx(records["1"]["activation zeros"])


def test_frozen_weights_have_no_ratio_and_all_else_stays() -> None:
    module = chain()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    found = gradients(Network(module, input_size=(8, 8)), PICTURES, target=LABELS)
    free = gradients(Network(chain(), input_size=(8, 8)), PICTURES, target=LABELS)
    torch.testing.assert_close(found.values[:-1], free.values[:-1])
    assert all(math.isnan(v) for v in found.values[-1].tolist())


def test_a_dead_layer_is_named() -> None:
    module = chain()
    module[0].bias.data.fill_(-100.0)
    found = gradients(Network(module, input_size=(8, 8)), PICTURES, target=LABELS)
    assert found.notes == ["almost all zero for these pictures: 1, 2", "no gradient at all: 0"]
