from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.evaluate.conftest import Fixed
from convscope.evaluate.insertion import area, curves, ranks, run
from convscope.evaluate.sample import Sample


def curve_by_hand(given: Sample, number: int, heat: Tensor, before: Tensor, behind: Tensor, steps: int) -> list[float]:
    order = sorted(range(heat.numel()), key=lambda i: -float(heat.flatten()[i]))
    found = []
    for step in range(steps + 1):
        picture = before.clone()
        for place in order[: step * heat.numel() // steps]:
            row, column = divmod(place, heat.shape[1])
            picture[:, row, column] = behind[:, row, column]
        logits = given.network.module(picture[None])[0].detach()
        found.append(float(logits.softmax(0)[given.targets[number]]))
    return found


def test_curves_against_pictures_made_one_by_one(given: Sample) -> None:
    heat = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0))
    heat[:, :4] = 0.0  # equal values go in reading order
    behind = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found = curves(given, heat, given.images, behind, steps=6)
    for number in range(8):
        expected = curve_by_hand(given, number, heat[number], given.images[number], behind[number], 6)
        assert found[number].tolist() == pytest.approx(expected, abs=1e-5)


def test_ranks_and_areas() -> None:
    assert ranks(torch.tensor([[[1.0, 3.0], [3.0, -2.0]]])).tolist() == [[[2, 0], [1, 3]]]
    curve = torch.rand(3, 11, generator=torch.Generator().manual_seed(0))
    assert area(curve).tolist() == pytest.approx(np.trapezoid(curve.numpy(), dx=0.1, axis=1).tolist(), abs=1e-6)
    assert area(torch.ones(1, 5)).tolist() == [1.0]


def test_the_object_first_makes_deletion_small_and_insertion_large(given: Sample) -> None:
    assert given.masks is not None
    right = given.masks.float()
    found = run([Fixed(right, "right"), Fixed(-right, "wrong")], given, {"right": right, "wrong": -right})
    for number in range(8):
        assert found["right"].values["deletion"][number] < found["wrong"].values["deletion"][number] - 0.2
        assert found["right"].values["insertion"][number] > found["wrong"].values["insertion"][number]


def test_a_picture_does_not_depend_on_its_neighbours(given: Sample) -> None:
    heat = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0))
    found = curves(given, heat, given.images, 1 - given.images)
    few = replace(
        given, images=given.images[5:6], targets=given.targets[5:6], probabilities=given.probabilities[5:6],
        labels=given.labels[5:6], names=given.names[5:6], masks=None,
    )  # fmt: skip
    torch.testing.assert_close(curves(few, heat[5:6], few.images, 1 - few.images), found[5:6])
