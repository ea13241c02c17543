"""expected_gradients against its formula in a loop, and its completeness."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network
from convscope.techniques.attribute.expected_gradients import Draws, expected_gradients

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.parametrize(("max_batch", "kind"), [(32, "blur"), (3, "noise")])
def test_equals_the_formula_in_a_loop(deep: Network, pictures: Tensor, max_batch: int, kind: str) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = expected_gradients(deep, pictures, target=[2, 1, 0], baselines=kind, samples=7, seed=3)
    draws = Draws(7, kind, 3)
    for number, target in enumerate([2, 1, 0]):
        total, base = torch.zeros(3, 8, 10), 0.0
        for start, place in zip(draws.baselines(pictures[number], slice(0, 7)), draws.places.tolist(), strict=True):
            point = (start + place * (pictures[number] - start)).requires_grad_()
            deep.module(deep.normalise(point[None]))[0, target].backward()
            total += (pictures[number] - start) * point.grad / 7
            base += float(deep.module(deep.normalise(start[None]))[0, target]) / 7
        torch.testing.assert_close(found.values[number], total.sum(0), rtol=1e-4, atol=1e-5)
        summary = found.summaries[number]
        assert summary["baseline_score"] == pytest.approx(base, abs=1e-5)
        assert summary["completeness"]["wanted"] == pytest.approx(summary["score"] - base, abs=1e-5)
        assert summary["completeness"]["sum"] == pytest.approx(float(total.sum()), abs=1e-4)


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_for_a_linear_network_the_map_is_complete(pictures: Tensor, kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(240, 4)).requires_grad_(False)
    found = expected_gradients(Network(module, input_size=(8, 10)), pictures, target=1, baselines=kind, samples=4)
    assert all(abs(s["completeness"]["error"]) < 1e-5 for s in found.summaries)


def test_the_error_falls_with_samples(deep: Network, pictures: Tensor) -> None:
    few, many = (
        max(abs(s["completeness"]["error"]) for s in expected_gradients(deep, pictures, samples=n, target=1).summaries)
        for n in (2, 300)
    )
    assert many < few
    assert many < 0.02


def test_places_lie_one_in_each_equal_part_and_the_seed_decides() -> None:
    draws = Draws(9, "noise", 0)
    assert sorted((draws.places * 9).long().tolist()) == list(range(9))
    picture = torch.rand(3, 4, 5)
    assert torch.equal(draws.baselines(picture, slice(2, 4)), Draws(9, "noise", 0).baselines(picture, slice(0, 9))[2:4])
    other = Draws(9, "noise", 1)
    assert not torch.equal(other.places, draws.places)
    assert not torch.equal(other.baselines(picture, slice(0, 1)), draws.baselines(picture, slice(0, 1)))
