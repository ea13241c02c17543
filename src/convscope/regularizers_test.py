from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from convscope.regularizers import (
    AXES,
    L2,
    AlphaNorm,
    Blur,
    CentreBias,
    ClipSmallContribution,
    ClipSmallNorm,
    Colours,
    Decay,
    Denoise,
    Frame,
    MeanOne,
    Penalty,
    Ramp,
    Sign,
    Sloped,
    Smooth,
    TotalVariation,
    UnitLength,
    ramp,
)


def images(count: int = 2, size: tuple[int, int] = (5, 6)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


THREE = torch.tensor([[[[0.0, 1.0, 3.0], [2.0, 2.0, 2.0], [5.0, 4.0, 0.0]]]], dtype=torch.float64)


def test_total_variation_of_three_by_three_in_closed_form() -> None:
    right = [1, 2, 0, 0, 0, 0, 1, 4, 0]
    below = [2, 1, 1, 3, 2, 2, 0, 0, 0]
    squares = [r * r + b * b for r, b in zip(right, below, strict=True)]
    assert float(TotalVariation(1.0)(THREE)) == pytest.approx(sum(squares))
    assert float(TotalVariation(2.0, beta=1.0)(THREE)) == pytest.approx(2 * sum(map(math.sqrt, squares)), rel=1e-3)
    assert float(TotalVariation(1.0, beta=3.0)(THREE)) == pytest.approx(sum(s**1.5 for s in squares), rel=1e-6)


def test_norms_by_hand() -> None:
    given = images()
    expected = [sum((float(v) - 0.25) ** 2 for v in image.flatten()) for image in given]
    torch.testing.assert_close(L2(3.0, 0.25)(given), 3 * torch.tensor(expected, dtype=torch.float64))
    colours = L2(1.0, (0.1, 0.2, 0.3))(given)
    by_hand = ((given - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(colours, by_hand)
    sixth = [sum(abs(float(v) - 0.5) ** 6 for v in image.flatten()) for image in given]
    torch.testing.assert_close(AlphaNorm(2.0)(given), 2 * torch.tensor(sixth, dtype=torch.float64))


OTHER = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PENALTIES = [L2(0.5, 0.3), TotalVariation(0.7), TotalVariation(0.7, 1.5), AlphaNorm(0.2), Colours(0.4, OTHER)]


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_differentiate_as_finite_differences_say(penalty: Penalty) -> None:
    assert torch.autograd.gradcheck(penalty, images().requires_grad_())
    assert {type(each) for each in PENALTIES} == {
        kind for kind in Sloped.__subclasses__() if kind.__module__ == Penalty.__module__
    }  # those of techniques are differentiated beside them


def test_colours_are_compared_in_order_on_every_axis_fine_and_coarse() -> None:
    mine, other = images(1, (8, 8)), OTHER[..., :6]
    found = []
    for side in (1, 2, 4):
        squares = []
        for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1),
                     (0, 1, -1), (1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)):  # fmt: skip
            squares += in_order(mine, other, axis, side)
        found.append(sum(squares) / len(squares))
    assert float(Colours(2.0, other)(mine)) == pytest.approx(2 * sum(found) / 3, rel=1e-6)
    shuffled = mine.flatten(2)[..., torch.randperm(64, generator=torch.Generator().manual_seed(0))].view_as(mine)
    assert float(Colours(1.0, mine)(mine)) == 0
    assert float(Colours(1.0, shuffled)(mine)) > 1e-3  # coarser ones differ


def test_of_several_pictures_the_colours_are_a_mixture_by_their_shares() -> None:
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    both = torch.cat([black[..., :2, :], white[..., :6, :]], 2)
    away = Colours(1.0, [black, white], (0.25, 0.75), coarser=(1, 2))
    assert float(away(both)) == 0
    assert float(away(both.flip(2))) == 0
    assert float(away(white)) == pytest.approx(
        0.25 * sum(sum(a) ** 2 / sum(v * v for v in a) for a in AXES) / len(AXES)
    )


def test_of_pictures_smaller_than_every_mean_single_pixels_are_compared() -> None:
    mine, other = images(1, (3, 3)), OTHER[..., :3, :3]
    assert float(Colours(1.0, other, coarser=(4,))(mine)) == float(Colours(1.0, other, coarser=(1,))(mine)) > 0


def in_order(mine: Tensor, other: Tensor, axis: tuple[int, int, int], side: int) -> list[float]:
    """Squared differences of sorted projections of means over squares, of the picture itself every second pixel."""
    length = math.sqrt(sum(v * v for v in axis))
    rows = []
    for picture in (mine[0], other[0]):
        height, width = picture.shape[1:]
        step = 2 if side == 1 else side
        rows.append(sorted(
            sum(v * float(picture[c, y : y + side, x : x + side].mean()) for c, v in enumerate(axis)) / length
            for y in range(0, height - side + 1, step) for x in range(0, width - side + 1, step)
        ))  # fmt: skip
    last = len(rows[1]) - 1
    return [(v - rows[1][round(i * last / (len(rows[0]) - 1))]) ** 2 for i, v in enumerate(rows[0])]


def test_pictures_never_mix() -> None:
    given = images(3)
    for penalty in PENALTIES:
        torch.testing.assert_close(penalty(given)[2:], penalty(given[2:]))


def test_the_four_operations_of_yosinski_by_hand() -> None:
    """Each as the authors' program computes it, in NumPy."""
    pixels, slopes = images() - 0.5, images(2).flip(0) - 0.4
    x, g = pixels.numpy(), slopes.numpy()
    torch.testing.assert_close(Decay(0.1)(pixels, slopes, 0), pixels * 0.9)
    norms = np.sqrt((x**2).sum(1))
    expected = np.stack([a * (n >= np.percentile(n, 40)) for a, n in zip(x, norms, strict=True)])
    np.testing.assert_allclose(ClipSmallNorm(40)(pixels, slopes, 0).numpy(), expected)
    benefit = np.abs((g * -x).sum(1))
    expected = np.stack([a * (b >= np.percentile(b, 30)) for a, b in zip(x, benefit, strict=True)])
    np.testing.assert_allclose(ClipSmallContribution(30)(pixels, slopes, 0).numpy(), expected)
    assert torch.equal(ClipSmallNorm(0)(pixels, slopes, 0), pixels)


def test_blur_equals_scipys_and_comes_every_so_many_steps() -> None:
    pixels = images(1, (12, 14))
    found = Blur(0.8, every=4)(pixels, pixels, 8)
    expected = np.stack([ndimage.gaussian_filter(p, 0.8, mode="nearest", radius=2) for p in pixels[0].numpy()])
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)
    assert torch.equal(Blur(0.8, every=4)(pixels, pixels, 9), pixels)
    np.testing.assert_allclose(Smooth(0.8)(pixels, 3)[0].numpy(), expected, atol=1e-9)


def test_gradients_are_scaled_each_by_its_own() -> None:
    slopes = images(3) - 0.5
    slopes[2] = 0
    for number in range(2):
        torch.testing.assert_close(MeanOne()(slopes, 0)[number], slopes[number] / slopes[number].abs().mean())
        torch.testing.assert_close(UnitLength()(slopes, 0)[number], slopes[number] / slopes[number].norm())
    assert not MeanOne()(slopes, 0)[2].any()
    assert not UnitLength()(slopes, 0)[2].any()
    assert torch.equal(Sign()(slopes, 0), slopes.sign())


def test_the_centre_comes_first_and_the_border_follows() -> None:
    bias = CentreBias(11, start=0.2, end=0.6)
    ones = torch.ones(1, 3, 9, 9)
    for number, share in ((0, 0.2), (5, 0.4), (10, 0.6), (50, 0.6)):
        found = bias(ones, number)
        assert float(found[0, 0, 4, 4]) == pytest.approx(1)
        assert float(found[0, 1, 0, 4]) == pytest.approx(math.exp(-(0.5**2) / (2 * share**2)))
        assert float(found[0, 2, 0, 0]) == pytest.approx(math.exp(-(2 * 0.5**2) / (2 * share**2)))


def test_schedules_and_frames() -> None:
    assert [ramp(1, 2, n, 5) for n in (0, 2, 4, 9)] == [1, 1.5, 2, 2]
    ones = torch.ones(1, 3, 10, 12)
    torch.testing.assert_close(Ramp(2.0, 4.0, 3)(ones, 1), ones * 3)
    found = Frame(0.2)(ones, 0)
    assert int(found.sum()) == 3 * 6 * 8
    assert bool(found[..., 2:8, 2:10].all())


def test_denoising_is_skimages_on_values_up_to_255_and_smooths_as_told() -> None:
    from skimage.restoration import denoise_tv_bregman

    pixels = images(1, (8, 9)).float()
    smooth = denoise_tv_bregman(
        pixels[0].permute(1, 2, 0).double().numpy() * 255, weight=0.5, max_num_iter=100, eps=1e-3, channel_axis=-1
    )
    found = Denoise(0.1, 0.9, 3)(pixels, pixels, 1)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), smooth / 255, atol=1e-5)
    roughness = [float(TotalVariation(1.0)(Denoise(w, w, 1)(pixels, pixels, 0))) for w in (0.01, 0.1, 2.0)]
    assert roughness == sorted(roughness)
