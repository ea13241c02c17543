from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from captum.metrics import sensitivity_max

from convscope.evaluate.conftest import Fixed
from convscope.evaluate.methods import Method
from convscope.evaluate.sample import Sample
from convscope.evaluate.sensitivity import RADIUS, SAMPLES, run, shaken
from convscope.network import Network
from convscope.techniques.attribute.gradient_x_input import gradient_x_input


def test_the_largest_change_against_captum(given: Sample, network: Network) -> None:
    method = Method("gradient-x-input")
    found = run([method], given, {method.name: method(network, given.images, given.targets)})
    for number in range(4):
        image, target = given.images[number : number + 1], given.targets[number]
        versions = [shaken(image, RADIUS, seed) for seed in range(SAMPLES)]

        def maps(inputs: tuple[torch.Tensor, ...], target: int = target) -> tuple[torch.Tensor, ...]:
            return (torch.stack([gradient_x_input(network, i[None], target=target).values[0] for i in inputs[0]]),)

        prepared = partial(lambda versions, inputs, radius: (torch.cat(versions),), versions)
        expected = sensitivity_max(
            maps, image, perturb_func=prepared, n_perturb_samples=SAMPLES, max_examples_per_batch=64
        )
        assert found[method.name].values["sensitivity"][number] == pytest.approx(float(expected), rel=1e-4)


def test_noise_is_bounded_seeded_and_the_same_for_all_pictures(given: Sample) -> None:
    noisy = shaken(given.images.clamp(0.2, 0.8), 0.05, 1)
    assert float((noisy - given.images.clamp(0.2, 0.8)).abs().max()) <= 0.05
    assert torch.equal(noisy[3:4], shaken(given.images[3:4].clamp(0.2, 0.8), 0.05, 1))
    assert float(shaken(given.images, 0.05, 1).max()) <= 1.0


def test_a_map_that_never_changes_has_none_and_a_zero_map_no_number(given: Sample) -> None:
    same, zero = torch.ones(8, 16, 16), torch.zeros(8, 16, 16)
    found = run([Fixed(same, "same"), Fixed(zero, "zero")], given, {"same": same, "zero": zero})
    assert found["same"].values["sensitivity"] == [0.0] * 8
    assert all(value != value for value in found["zero"].values["sensitivity"])
    assert len(run([], replace(given, seed=3), {})) == 0
