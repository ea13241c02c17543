from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.evaluate.conftest import SIDE, Colours, spots
from convscope.evaluate.grid import localised, mosaics, quarter, quartets, run
from convscope.evaluate.methods import CONTROLS, Method
from convscope.evaluate.sample import Sample, sample
from convscope.network import Network


@dataclass(frozen=True)
class Finds:
    """Marks the pixels of the class's colour, which is the whole truth about these pictures."""

    name: str = "finds"
    control: bool = False

    def __call__(self, network: Network, images: Tensor, targets: Sequence[int]) -> Tensor:
        scores = network.module.conv(images)  # type: ignore[operator]
        picked = scores[torch.arange(len(images)), list(targets)].detach()
        return picked * (scores.argmax(1) == torch.tensor(list(targets))[:, None, None])


def shares_by_hand(maps: Tensor) -> list[float]:
    found = []
    for place in range(4):
        inside = whole = 0.0
        for row in range(maps.shape[1]):
            for column in range(maps.shape[2]):
                value = max(float(maps[place, row, column]), 0.0)
                whole += value
                down, across = row >= maps.shape[1] / 2, column >= maps.shape[2] / 2
                if 2 * down + across == place:
                    inside += value
        found.append(inside / whole)
    return found


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_the_share_in_the_right_quarter(size: tuple[int, int]) -> None:
    maps = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
    assert localised(maps) == pytest.approx(shares_by_hand(maps), abs=1e-6)
    assert localised(torch.zeros(4, *size)) == [0.0] * 4


def test_quarters_cover_a_mosaic_once() -> None:
    whole = sum(quarter(place, (6, 8)).int() for place in range(4))
    assert torch.equal(whole, torch.ones(6, 8, dtype=torch.int))


def test_mosaics_are_of_four_classes_each_picture_once(given: Sample) -> None:
    fours = quartets(given)
    assert len(fours) == 2
    assert sorted(place for four in fours for place in four) == list(range(8))
    assert all(sorted(given.targets[place] for place in four) == [0, 1, 2, 3] for four in fours)
    assert fours == quartets(given) != quartets(replace(given, seed=1))


def test_wrong_and_unsure_pictures_stay_out(given: Sample) -> None:
    wrong = replace(given, labels=[1, *given.labels[1:]])
    assert all(0 not in four for four in quartets(wrong))
    unsure = replace(given, probabilities=[0.4] * 4 + [0.99] * 4)
    assert [sorted(four) for four in quartets(unsure)] == [[4, 5, 6, 7]]
    unknown = replace(given, labels=[None] * 8)
    assert len(quartets(unknown)) == 2
    with pytest.raises(OptionError, match="mosaics need pictures of four classes that colours classifies rightly"):
        quartets(replace(given, probabilities=[0.99] * 3 + [0.4] * 5))


def test_a_method_that_finds_the_class_gets_one_and_a_blind_one_a_quarter(given: Sample) -> None:
    found = run([Finds(), *CONTROLS], given, {})
    assert found["finds"].values["grid"] == [1.0, 1.0]
    assert found["(noise)"].values["grid"] == pytest.approx([0.25, 0.25], abs=0.02)
    assert found["(middle)"].values["grid"] == pytest.approx([0.25, 0.25], abs=1e-6)
    assert found["finds"].more["full_size"] is True


def test_real_techniques_find_the_quarter(given: Sample) -> None:
    found = run([Method("gradcam"), Method("gradient-x-input")], given, {})
    assert min(found["gradcam"].values["grid"]) > 0.5
    assert min(found["gradient-x-input"].values["grid"]) > 0.5


class Strict(nn.Module):
    """Takes pictures of one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Colours()
        self.conv = self.inner.conv

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != SIDE:
            raise RuntimeError("another size")
        return self.inner(x)


def test_a_network_of_one_size_gets_pictures_shrunk_to_half() -> None:
    network = Network(Strict().eval(), name="strict", input_size=(SIDE, SIDE))
    images, _ = spots()
    given = sample(network, images)
    fours = quartets(given)
    pictures, whole = mosaics(given, fours)
    assert not whole
    assert pictures.shape == (len(fours), 3, SIDE, SIDE)
    for place, number in enumerate(fours[0]):
        down, across = (SIDE // 2) * (place // 2), (SIDE // 2) * (place % 2)
        part = pictures[0, :, down : down + SIDE // 2, across : across + SIDE // 2]
        expected = images[number].unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
        assert float((part - expected).abs().mean()) < 0.06  # antialiasing reaches a little farther
    assert run([Finds()], given, {})["finds"].more["full_size"] is False


def test_one_method_that_fails_spares_the_others(given: Sample) -> None:
    found = run([Method("saliency", {"rule": "guided"}), Finds()], given, {})
    assert "found no rectifier" in found["saliency rule=guided"].error
    assert found["finds"].values["grid"]
