"""integrated_gradients: captum, completeness, an integral by hand, and the nodes."""

from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from convscope.network import Network
from convscope.techniques.attribute._path import baseline_of
from convscope.techniques.attribute.integrated_gradients import integrated_gradients, nodes

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.parametrize("max_batch", [32, 4])
@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
def test_equals_captums(deep: Network, pictures: Tensor, baseline: str, max_batch: int) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = integrated_gradients(deep, pictures, target=[2, 1, 0], baseline=baseline, steps=9)
    starts = baseline_of(deep, pictures, baseline)
    oracle = IntegratedGradients(lambda x: deep.module(deep.normalise(x)))
    expected = oracle.attribute(pictures, starts, torch.tensor([2, 1, 0]), n_steps=9, method="gausslegendre").detach()
    torch.testing.assert_close(found.values, expected.sum(1).float(), rtol=1e-4, atol=1e-5)


def test_midpoints_equal_a_sum_in_a_loop(deep: Network, pictures: Tensor) -> None:
    found = integrated_gradients(deep, pictures[:1], target=1, steps=5, rule="midpoint")
    total = torch.zeros(3, 8, 10)
    for step in range(5):
        point = (pictures[0] * (step + 0.5) / 5).requires_grad_()
        deep.module(deep.normalise(point[None]))[0, 1].backward()
        total += point.grad / 5
    torch.testing.assert_close(found.values[0], (pictures[0] * total).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
def test_the_completeness_error_is_what_it_says_and_falls_with_steps(
    deep: Network, pictures: Tensor, rule: str
) -> None:
    errors = []
    for steps in (2, 400):
        found = integrated_gradients(deep, pictures, target=2, steps=steps, rule=rule)
        black = deep.module(deep.normalise(torch.zeros_like(pictures)))[:, 2]
        wanted = deep.module(deep.normalise(pictures))[:, 2] - black
        for number, summary in enumerate(found.summaries):
            said = summary["completeness"]
            assert summary["baseline_score"] == pytest.approx(float(black[number]), abs=1e-5)
            assert said["wanted"] == pytest.approx(float(wanted[number]), abs=1e-5)
            assert said["sum"] == pytest.approx(float(found.values[number].sum()), abs=1e-5)
            assert said["error"] == pytest.approx(said["sum"] - said["wanted"])
        errors.append(max(abs(s["completeness"]["error"]) for s in found.summaries))
    assert errors[1] < 2e-3
    assert errors[1] < errors[0]


def test_a_cubic_is_integrated_exactly_by_two_gauss_nodes() -> None:
    class Cube(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.pow(3).sum((1, 2, 3))[:, None]

    pictures = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = integrated_gradients(Network(Cube(), input_size=(4, 4)), pictures, target=0, steps=2)
    torch.testing.assert_close(found.values, pictures.pow(3).sum(1))


def test_the_class_is_that_of_the_picture_all_along_the_path(deep: Network, pictures: Tensor) -> None:
    with torch.no_grad():  # biases with which black is of another class than the first picture
        ends = torch.cat([pictures[:1], torch.zeros_like(pictures[:1])])
        deep.module.fc2.bias -= deep.module(deep.normalise(ends)).mean(0)
    free = integrated_gradients(deep, pictures, steps=3)
    chosen = deep.module(deep.normalise(pictures)).argmax(1).tolist()
    held = integrated_gradients(deep, pictures, target=chosen, steps=3)
    assert torch.equal(free.values, held.values)
    assert free.summaries == held.summaries, "the baseline is asked about the picture's class, not its own"


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
def test_nodes_lie_in_the_middle_and_weigh_one(rule: str) -> None:
    places, weights = nodes(7, rule)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float((places * weights).sum()) == pytest.approx(0.5)
    assert float(places.min()) > 0
    assert float(places.max()) < 1
