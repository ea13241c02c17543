from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from convscope.errors import OptionError
from convscope.evaluate.conftest import Fixed
from convscope.evaluate.inside import overlap, points_at, run
from convscope.evaluate.sample import Sample, positive_share
from convscope.zoo.torchvision_models import import_torchvision


def test_pointing_on_the_object_near_it_and_beside_it() -> None:
    mask = torch.zeros(100, 50, dtype=torch.bool)
    mask[10:20, 10:20] = True

    def peak(row: int, column: int) -> torch.Tensor:
        values = torch.full((100, 50), -1.0)
        values[row, column] = 0.5
        return values

    assert points_at(peak(10, 10), mask)
    assert points_at(peak(22, 19), mask)  # three pixels of a hundred
    assert not points_at(peak(23, 19), mask)
    assert not points_at(peak(22, 22), mask)  # across the corner it is farther
    assert points_at(peak(21, 21), mask)
    assert not points_at(peak(10, 10), torch.zeros_like(mask))


def test_the_share_inside_counts_what_is_positive() -> None:
    values = torch.tensor([[3.0, -5.0], [1.0, 0.0]])
    assert positive_share(values, torch.tensor([[True, True], [False, False]])) == 0.75
    assert positive_share(-values.abs(), torch.ones(2, 2, dtype=torch.bool)) == 0.0


def test_overlap_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        values = torch.randn(9, 7, generator=generator)
        mask = torch.rand(9, 7, generator=generator) > 0.6
        highest = values >= values.flatten().sort(descending=True).values[int(mask.sum()) - 1]
        expected = jaccard_score(mask.flatten().numpy(), highest.flatten().numpy())
        assert overlap(values, mask) == pytest.approx(expected)
    assert overlap(mask.float(), mask) == 1.0
    assert overlap(1 - mask.float(), torch.ones(9, 7, dtype=torch.bool)) == 1.0
    assert overlap(mask.float(), torch.zeros(9, 7, dtype=torch.bool)) == 0.0


def test_a_right_map_gets_all_and_a_wrong_one_nothing(given: Sample) -> None:
    assert given.masks is not None
    right, wrong = given.masks.float(), 1 - given.masks.float()
    maps = {"right": right, "wrong": wrong}
    found = run([Fixed(right, "right"), Fixed(wrong, "wrong")], given, maps)
    assert {name: set(values) for name, values in found["right"].values.items()} == {
        "pointing": {1.0}, "inside": {1.0}, "iou": {1.0},
    }  # fmt: skip
    assert max(found["wrong"].values["inside"]) == 0.0
    assert found["right"].more["area"] == [0.25] * 8


def test_pictures_without_a_mask_are_passed_over(given: Sample) -> None:
    assert given.masks is not None
    masks = given.masks.clone()
    masks[:3] = False
    found = run([Fixed(masks.float())], replace(given, masks=masks), {"fixed": masks.float()})
    assert len(found["fixed"].values["inside"]) == 5
    with pytest.raises(OptionError, match="give --masks or --boxes"):
        run([], replace(given, masks=None), {})


def test_equal_quantus_where_it_measures_the_same() -> None:
    """Its pointing game has no tolerance, and its rank accuracy is the share of the object that is found."""
    import_torchvision()  # which it imports, and which may not fit torch
    quantus = pytest.importorskip("quantus")  # not among the tools, since it brings OpenCV with windows
    generator = torch.Generator().manual_seed(4)
    heat, masks = torch.rand(6, 12, 10, generator=generator), torch.zeros(6, 12, 10, dtype=torch.bool)
    for number, mask in enumerate(masks):
        mask[number : number + 5, 2:6] = True
        heat[number] += 0.5 * mask * torch.rand(12, 10, generator=generator)
    given = {
        "model": None, "x_batch": torch.rand(6, 3, 12, 10).numpy(), "y_batch": np.zeros(6, int),
        "a_batch": heat[:, None].double().numpy(), "s_batch": masks[:, None].numpy(), "channel_first": True,
    }  # fmt: skip
    options = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}
    mass = quantus.RelevanceMassAccuracy(**options)(**given)
    found = quantus.RelevanceRankAccuracy(**options)(**given)
    pointed = quantus.PointingGame(**options)(**given)
    for place, (values, mask) in enumerate(zip(heat, masks, strict=True)):
        assert positive_share(values, mask) == pytest.approx(float(mass[place]))
        assert overlap(values, mask) == pytest.approx(float(found[place]) / (2 - float(found[place])))
        assert points_at(values, mask, 0) == bool(pointed[place])
