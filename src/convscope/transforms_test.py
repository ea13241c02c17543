from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from convscope.transforms import ROBUST, Crops, Jitter, Noise, Pad, Roll, Rotate, Scale, Shift, Transform, viewed


def images(count: int = 2, size: tuple[int, int] = (12, 16)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def look(given: Tensor, *transforms: Transform, seed: int = 0, size: tuple[int, int] | None = None) -> Tensor:
    return viewed(given, transforms, torch.Generator().manual_seed(seed), size=size)


def test_padding_is_grey_and_the_middle_of_it_is_the_picture() -> None:
    found = look(images(), Pad(3))
    expected = np.pad(images().numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), constant_values=0.5)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert torch.equal(look(images(), Pad(3), size=(12, 16)), images())


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_jitter_reads_every_window_and_nothing_else(pixels: int) -> None:
    given, seen = images(1, (6, 7)), set()
    windows = {
        (y, x): given[..., y : y + 6 - pixels, x : x + 7 - pixels] for y in range(pixels + 1) for x in range(pixels + 1)
    }
    for seed in range(200):
        found = look(given, Jitter(pixels), seed=seed)
        places = [place for place, window in windows.items() if torch.equal(window, found)]
        assert len(places) == 1
        seen.add(places[0])
    assert seen == set(windows)


def test_a_shift_stays_in_its_frame_and_brings_in_grey() -> None:
    for seed in range(20):
        found = look(images(1), Shift(3), seed=seed)[0, 0]
        moves = {
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(
                ndimage.shift(images(1)[0, 0].numpy(), (-down, -right), order=0, cval=0.5, prefilter=False), found
            )
        }
        assert len(moves) == 1


@pytest.mark.parametrize("size", [(12, 16), (15, 15)])
def test_rotation_and_scaling_equal_scipys_resampling(size: tuple[int, int]) -> None:
    """One resampling of the joined maps, against ``ndimage.affine_transform`` with the same angle and zoom."""
    given = images(1, size)
    generator = torch.Generator().manual_seed(7)
    zoom = 0.8 + 0.6 * float(torch.rand((), generator=generator, dtype=torch.float64))
    angle = math.radians(-30 + 60 * float(torch.rand((), generator=generator, dtype=torch.float64)))
    found = look(given, Scale(0.8, 1.4), Rotate(30), seed=7)[0].numpy()
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = turn / zoom
    middle = (np.array(size) - 1) / 2
    for plane, got in zip(given[0].numpy(), found, strict=True):
        padded = np.pad(plane, 20, constant_values=0.5)
        offset = middle + 20 - matrix @ middle
        expected = ndimage.affine_transform(padded, matrix, offset, output_shape=size, order=1, cval=0.5)
        inside = slice(1, -1)  # where the border itself is blended with grey they agree, too, but for rounding
        np.testing.assert_allclose(got[inside, inside], expected[inside, inside], atol=1e-6)


def test_views_that_follow_each_other_are_joined_in_their_order() -> None:
    """Turning by a right angle twice is turning by two: no second resampling softens the picture."""
    given = images(1, (9, 9))

    class Quarter:
        def __call__(self, view: object, generator: torch.Generator) -> object:
            turned = Rotate(90.0)
            generator.manual_seed(0)
            return turned(view, generator)

    angle = -90 + 180 * float(torch.rand((), generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    twice = look(given, Quarter(), Quarter())
    generator = torch.Generator().manual_seed(0)

    class Once:
        def __call__(self, view: object, generator: torch.Generator) -> object:
            fixed = Rotate(abs(2 * angle))
            for seed in range(10_000):
                generator.manual_seed(seed)
                drawn = -abs(2 * angle) + 2 * abs(2 * angle) * float(
                    torch.rand((), generator=generator, dtype=torch.float64)
                )
                if abs(drawn - 2 * angle) < 0.02:
                    generator.manual_seed(seed)
                    return fixed(view, generator)
            raise AssertionError

    once = viewed(given, [Once()], generator)
    torch.testing.assert_close(twice, once, atol=5e-3, rtol=0)


def test_a_still_share_of_rotations_leaves_the_picture() -> None:
    still = sum(torch.equal(look(images(1), Rotate(20, still=0.5), seed=s), images(1)) for s in range(200))
    assert 70 < still < 130


def test_crops_come_one_after_the_other_for_all_pictures() -> None:
    given = images(2, (16, 16))
    found = look(given, Crops(3, 0.5, 0.8, size=(8, 8)), seed=3)
    assert found.shape == (6, 3, 8, 8)
    alone = look(given[1:], Crops(3, 0.5, 0.8, size=(8, 8)), seed=3)
    torch.testing.assert_close(found[1::2], alone)
    assert not torch.equal(found[0], found[2])


def test_a_crop_of_half_the_picture_reads_half_of_it() -> None:
    """On a ramp the spread of what is read says how much of the picture it was, and where."""
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 3, 64, 64)
    for seed in range(10):
        found = look(ramp, Crops(1, 0.5, 0.5, spread=0.3), seed=seed)
        assert found.shape == ramp.shape
        low, high = float(found.min()), float(found.max())
        assert high - low == pytest.approx(0.5, abs=0.02)
        assert low >= -1e-9
        assert high <= 1 + 1e-9


def test_noise_has_its_spread_and_is_the_same_for_every_picture() -> None:
    given = torch.full((2, 3, 64, 64), 0.5)
    found = look(given, Noise(0.1)) - given
    assert float(found.std()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(found[0], found[1])


def test_pictures_do_not_depend_on_their_neighbours_and_the_seed_decides() -> None:
    both = look(images(2), *ROBUST, seed=5)
    torch.testing.assert_close(both[1:], look(images(2)[1:], *ROBUST, seed=5))
    assert torch.equal(both, look(images(2), *ROBUST, seed=5))
    assert not torch.equal(both, look(images(2), *ROBUST, seed=6))


def test_views_are_differentiable() -> None:
    given = images(1, (6, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: look(x, Pad(2), Jitter(1), Scale(0.9, 1.1), Rotate(10)), given)


def test_a_roll_comes_in_again_on_the_other_side_and_its_gradient_goes_back() -> None:
    given = images(2, (5, 7))
    moves = torch.Generator().manual_seed(4)
    down, right = (int(torch.randint(-3, 4, (), generator=moves)) for _ in range(2))
    expected = torch.empty_like(given)
    for row in range(5):
        for column in range(7):
            expected[:, :, (row + down) % 5, (column + right) % 7] = given[:, :, row, column]
    assert torch.equal(look(given, Roll(3), seed=4), expected)
    assert (down, right) != (0, 0)
    assert torch.equal(look(given, Roll(0)), given)
