"""segment on pictures whose objects are known, its seeds by hand, and everything that leaves it nothing to cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope.errors import MissingExtra, OptionError
from convscope.network import Network
from convscope.techniques.attribute.saliency import saliency
from convscope.techniques.attribute.segment import _Cut, seeds, segment

pytest_plugins = "convscope.techniques.attribute._examples_test"
SIZE = (40, 48)


def disc(row: float, column: float, radius: float) -> Tensor:
    """(H, W), true in the disc."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def around(row: float, column: float) -> Tensor:
    """(H, W): 1 at a place, less and less away from it."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50)


def seeing(values: Tensor) -> Network:
    """A linear network whose saliency is ``values`` (H, W), for each picture."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * values.numel(), 1, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(values.expand(3, *SIZE).flatten())
    return Network(module.eval(), input_size=SIZE)


def photograph(mask: Tensor) -> Tensor:
    """(1, 3, H, W): red and orange objects on green and blue, with noise."""
    noise = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    warm = torch.tensor([0.75, 0.15, 0.1]).view(3, 1, 1) + noise * torch.tensor([0.2, 0.3, 0.1]).view(3, 1, 1)
    cold = torch.tensor([0.1, 0.4, 0.3]).view(3, 1, 1) + noise * torch.tensor([0.1, 0.3, 0.5]).view(3, 1, 1)
    return torch.where(mask, warm, cold)[None]


def overlap(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_the_object_is_found_from_a_spot_on_it() -> None:
    whole = disc(20, 24, 11)
    net = seeing(around(20, 24))
    found = segment(net, photograph(whole), method="saliency", blur=0)
    assert overlap(found.masks[0], whole) > 0.97
    assert found.summary["area"] == pytest.approx(float(found.masks.float().mean()))
    assert found.summary["box"] == {"top": 9, "left": 13, "height": 23, "width": 23}
    assert found.boxes.tolist() == [[[9, 13, 23, 23]]]
    assert torch.equal(found.values, saliency(net, photograph(whole)).values)
    inside = found.values[0][found.masks[0]].sum() / found.values.sum()
    assert found.summary["share"] == pytest.approx(float(inside), abs=1e-5)


@pytest.mark.parametrize("keep", ["largest", "all"])
def test_of_two_objects_the_larger_is_kept_or_both(keep: str) -> None:
    large, small = disc(20, 14, 10), disc(20, 38, 6)
    net = seeing(torch.maximum(around(20, 14), around(20, 38)))
    found = segment(net, photograph(large | small), method="saliency", blur=0, keep=keep)
    assert overlap(found.masks[0], large if keep == "largest" else large | small) > 0.97


def test_the_colours_are_those_of_the_seeds() -> None:
    """The mean of each mixture is the mean of its seeds' pixels, whatever lies between."""
    import cv2

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    heat = rng.random((30, 40))
    fore, back = seeds(heat, 0.9, 0.4)
    for model, side in zip(_Cut(cv2, 0.9, 0.4, 0, 0)._learned(image, fore, back), (back, fore), strict=True):
        weights, means = model[0, :5], model[0, 5:20].reshape(5, 3)
        np.testing.assert_allclose(weights @ means, image[side].mean(0), rtol=1e-6)


def test_seeds_are_quantiles_and_a_map_that_is_mostly_zero_has_some() -> None:
    heat = np.arange(100.0).reshape(10, 10)
    fore, back = seeds(heat, 0.95, 0.30)
    assert fore.sum() == 5
    assert back.sum() == 30
    assert heat[fore].min() == 95
    assert heat[back].max() == 29
    sparse = np.zeros((10, 10))
    sparse[2, 3:5] = (1, 2)
    fore, back = seeds(sparse, 0.95, 0.30)
    assert np.argwhere(fore).tolist() == [[2, 3], [2, 4]]
    assert back.sum() == 98
    assert not seeds(np.ones((10, 10)), 0.95, 0.30)[0].any()


def test_the_colours_depend_on_the_seed_and_on_nothing_before() -> None:
    import cv2

    rng = np.random.default_rng(0)
    image, heat = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), rng.random((30, 40))

    def learned(seed: int) -> np.ndarray:
        return np.stack(_Cut(cv2, 0.9, 0.4, 0, seed)._learned(image, *seeds(heat, 0.9, 0.4)))

    first = learned(3)
    cv2.setRNGSeed(17)
    np.testing.assert_array_equal(learned(3), first)
    assert not np.allclose(learned(4), first)


@pytest.mark.parametrize("steps", [0, 2])
def test_the_seed_alone_decides(steps: int, deep: Network, pictures: Tensor) -> None:
    import cv2

    first = segment(deep, pictures, seed=3, steps=steps)
    cv2.setRNGSeed(17)
    assert torch.equal(segment(deep, pictures, seed=3, steps=steps).masks, first.masks)
    for number in range(3):
        assert torch.equal(segment(deep, pictures[number], seed=3, steps=steps).masks[0], first.masks[number])


def test_nothing_to_cut_gives_an_empty_mask_and_a_note() -> None:
    sentence = "there is no mask: the map or the colours leave too few pixels to tell an object from the rest"
    found = segment(seeing(torch.ones(SIZE)), photograph(disc(20, 24, 9)), method="saliency")
    assert found.notes == ["the map for class 0 is constant (1): no pixel stands out", sentence]
    assert not found.masks.any()
    assert found.summary["box"] is None
    assert (found.summary["area"], found.summary["share"]) == (0, 0)
    assert found.boxes.tolist() == [[[0, 0, 0, 0]]]


def test_a_picture_of_one_colour_ends_well() -> None:
    found = segment(seeing(disc(20, 24, 9).float()), torch.full((1, 3, *SIZE), 0.5), method="saliency", blur=0)
    assert found.masks.shape == (1, *SIZE)


def test_contradictions_and_a_missing_opencv_get_a_sentence(
    deep: Network, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match=r"background 0\.9 must be below foreground 0\.5"):
        segment(deep, pictures, foreground=0.5, background=0.9)
    with pytest.raises(OptionError, match="segment makes no heat map"):
        segment(deep, pictures, method="segment")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"convscope\[segment\]"):
        segment(deep, pictures)
