from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from convscope.errors import OptionError
from convscope.hooks import OUTPUT
from convscope.network import Network
from convscope.objectives import class_score
from convscope.perturb import perturbed
from convscope.techniques.attribute.occlusion import boxes, filling, occlusion, positions, spread
from convscope.techniques.contract_test import network, pictures


def by_hand(
    net: Network, image: Tensor, target: int, window: int, stride: int, fill: Tensor, of: Any
) -> tuple[Tensor, Tensor]:
    """One full pass a window; per pixel the mean drop of the windows that cover it."""
    height, width = image.shape[-2:]
    tops = sorted({min(t, height - window) for t in range(0, height, stride)})
    lefts = sorted({min(t, width - window) for t in range(0, width, stride)})

    def ask(picture: Tensor) -> float:
        with torch.no_grad():
            return float(class_score(net, target, of)({OUTPUT: net(picture[None])}))

    sums, counts, drops = torch.zeros(height, width), torch.zeros(height, width), []
    for top in tops:
        for left in lefts:
            hidden = image.clone()
            inside = (slice(top, top + window), slice(left, left + window))
            hidden[:, inside[0], inside[1]] = fill.expand_as(image)[:, inside[0], inside[1]]
            drops.append(ask(image) - ask(hidden))
            sums[inside] += drops[-1]
            counts[inside] += 1
    return sums / counts, torch.tensor(drops).view(len(tops), len(lefts))


@pytest.mark.parametrize("of", ["probability", "score"])
@pytest.mark.parametrize(("window", "stride"), [(8, 5), (16, 16), (32, 7)])
def test_it_is_the_drop_of_one_full_pass_a_window(window: int, stride: int, of: Any) -> None:
    net, images = network(), pictures(1)
    found = occlusion(net, images, target=2, window=window, stride=stride, of=of)
    fill = images[0].mean((1, 2), keepdim=True)
    expected, drops = by_hand(net, images[0], 2, window, stride, fill, of)
    tolerance = 1e-4 * float(drops.abs().max())
    assert found.cells is not None
    assert_close(found.cells[0], drops, rtol=0, atol=tolerance)
    assert_close(found.values[0], expected, rtol=0, atol=tolerance)


def test_the_toy_gives_the_known_numbers(toy: Network, ramp: Tensor) -> None:
    """captum's window (1, 2, 3), stride (1, 2, 1), baseline 0, on its own toy."""
    grid = positions((4, 4), (2, 3), (2, 1))
    outcome = perturbed(toy, ramp[0], boxes(grid, (2, 3)), torch.zeros(1, 1, 1))
    assert outcome.clean.tolist() == [54.0] * 4
    drops = (outcome.clean - outcome.logits)[:, 0].view(2, 2)
    top, low = [13.0, 12.5, 12.5, 12.0], [54.0] * 4
    assert_close(spread(drops, grid, (2, 3), (4, 4)), torch.tensor([top, top, low, low]))


def test_several_windows_are_averaged() -> None:
    net, images = network(), pictures(1)
    both = occlusion(net, images, window=[8, 12], stride=6)
    each = [occlusion(net, images, window=side, stride=6).values for side in (8, 12)]
    assert_close(both.values, (each[0] + each[1]) / 2)
    assert both.cells is None


def test_fills() -> None:
    image = pictures(1)[0]
    assert filling(image, "zero", 8, 0).flatten().tolist() == [0, 0, 0]
    assert filling(image, "grey", 8, 0).flatten().tolist() == [0.5, 0.5, 0.5]
    assert_close(filling(image, "mean", 8, 0)[:, 0, 0], image.flatten(1).mean(1))
    noise = filling(image, "noise", 8, 3)
    assert torch.equal(noise, filling(image, "noise", 8, 3))
    assert not torch.equal(noise, filling(image, "noise", 8, 4))


def test_blur_keeps_a_constant_and_spreads_a_point_like_a_gaussian() -> None:
    constant = torch.full((3, 20, 30), 0.3)
    assert_close(filling(constant, "blur", 8, 0), constant)
    point = torch.zeros(3, 41, 41)
    point[:, 20, 20] = 1
    blurred = filling(point, "blur", 8, 0)[0]
    assert_close(blurred.sum(), torch.tensor(1.0))
    assert_close(blurred[20, 23] / blurred[20, 20], torch.tensor(float(np.exp(-9 / 32))))


@pytest.mark.parametrize("fill", ["zero", "grey", "blur", "noise"])
def test_every_fill_equals_full_passes(fill: Any) -> None:
    net, images = network(), pictures(1)
    found = occlusion(net, images, target=1, window=8, stride=8, fill=fill, seed=5)
    expected, drops = by_hand(net, images[0], 1, 8, 8, filling(images[0], fill, 8, 5), "probability")
    assert_close(found.values[0], expected, rtol=0, atol=1e-4 * float(drops.abs().max()))


def test_the_summary_says_where_and_how() -> None:
    net, images = network(), pictures(1)
    found = occlusion(net, images, window=8, stride=8)
    summary = found.summary
    assert found.cells is not None
    assert not isinstance(summary, list)
    row, column = divmod(int(found.cells[0].argmax()), found.cells.shape[2])
    assert (summary["lowest"]["top"], summary["lowest"]["left"]) == (8 * row, 8 * column)
    assert summary["probability"] - summary["lowest"]["probability"] == pytest.approx(float(found.cells.max()))
    assert summary["engine"] == "incremental"
    assert 0.5 < summary["arithmetic_saved"] < 1


def test_a_target_for_each_picture() -> None:
    net, images = network(), pictures(2)
    both = occlusion(net, images, target=[1, 3], window=16, stride=16)
    alone = occlusion(net, images[1], target=3, window=16, stride=16)
    assert_close(both.values[1], alone.values[0])


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"window": 33}, "give at most 32"),
        ({"window": 8, "stride": 9}, "give at most 8"),
        ({"window": []}, "give the side"),
        ({"window": 0}, "window"),
        ({"window": 8, "stride": 0}, "stride"),
    ],
)
def test_bad_options_get_a_remedy(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        occlusion(network(), pictures(1), **options)
