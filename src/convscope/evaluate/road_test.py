from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.evaluate.conftest import Fixed
from convscope.evaluate.methods import CONTROLS
from convscope.evaluate.road import NOISE, filled, removed, run
from convscope.evaluate.sample import Sample


def filled_by_hand(image: Tensor, missing: Tensor) -> Tensor:
    """A dense system, an equation for each missing pixel, its neighbours found one by one."""
    height, width = missing.shape
    holes = [(r, c) for r in range(height) for c in range(width) if missing[r, c]]
    number = {place: i for i, place in enumerate(holes)}
    matrix, right = np.zeros((len(holes), len(holes))), np.zeros((len(holes), image.shape[0]))
    for (row, column), i in number.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                r, c = row + down, column + across
                if (down, across) == (0, 0) or not (0 <= r < height and 0 <= c < width):
                    continue
                weight = 1 / 6 if down == 0 or across == 0 else 1 / 12
                matrix[i, i] += weight
                if (r, c) in number:
                    matrix[i, number[r, c]] -= weight
                else:
                    right[i] += weight * image[:, r, c].numpy()
    found = image.clone()
    for (row, column), values in zip(holes, np.linalg.solve(matrix, right), strict=True):
        found[:, row, column] = torch.from_numpy(values)
    return found


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("size", [(7, 9), (12, 5)])
def test_holes_are_filled_as_a_dense_system_says(size: tuple[int, int], share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *size, generator=generator)
    missing = torch.rand(*size, generator=generator) < share
    torch.testing.assert_close(filled(image, missing), filled_by_hand(image, missing), atol=1e-5, rtol=0)


def test_an_even_picture_stays_even_and_a_border_may_be_missing() -> None:
    missing = torch.ones(6, 6, dtype=torch.bool)
    missing[3, 3] = False
    torch.testing.assert_close(filled(torch.full((3, 6, 6), 0.3), missing), torch.full((3, 6, 6), 0.3))
    whole = torch.rand(3, 6, 6)
    assert torch.equal(filled(whole, torch.zeros(6, 6, dtype=torch.bool)), whole)


def test_noise_is_in_the_hole_alone_and_by_the_seed() -> None:
    image, missing = torch.full((3, 40, 40), 0.5), torch.zeros(40, 40, dtype=torch.bool)
    missing[:20] = True
    found = removed(image, missing, 3)
    assert torch.equal(found[:, 20:], image[:, 20:])
    assert float((found - image)[:, :20].std()) == pytest.approx(NOISE, rel=0.1)
    assert torch.equal(found, removed(image, missing, 3))
    assert not torch.equal(found, removed(image, missing, 4))


def test_a_right_map_is_above_noise_and_a_wrong_one_below(given: Sample) -> None:
    assert given.masks is not None
    right = given.masks.float()
    noise = CONTROLS[0](given.network, given.images, given.targets)
    methods = [Fixed(right, "right"), Fixed(-right, "wrong"), Fixed(noise, "noise")]
    scores = run(methods, given, {m.name: m.maps for m in methods})
    right_score, wrong_score, noise_score = (float(np.mean(scores[m.name].values["road"])) for m in methods)
    assert right_score > 0.2 > abs(noise_score)
    assert wrong_score == pytest.approx(-right_score, abs=0.1)
