from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from convscope.errors import OptionError
from convscope.robust.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupted


def scene(side: int = 64) -> Tensor:
    """Two pictures with something at every scale: smooth blobs, edges and grain."""
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(2, 3, side, side)
    for cells, weight in ((3, 0.4), (7, 0.25), (13, 0.2), (29, 0.1), (side, 0.05)):
        noise = torch.rand(2, 3, cells, cells, generator=generator)
        found += weight * torch.nn.functional.interpolate(noise, (side, side), mode="bilinear")
    return ((found - 0.5) * 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_worse_than_the_one_before(name: str) -> None:
    images = scene()
    made = [corrupted(images, name, severity) for severity in SEVERITIES]
    apart = [float((each - images).square().mean()) for each in made]
    assert all(each.shape == images.shape for each in made)
    assert all(0 <= float(each.min()) <= float(each.max()) <= 1 for each in made)
    assert apart[0] > 0
    assert apart == sorted(apart), apart


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seeds_decide_and_neighbours_do_not(name: str) -> None:
    images = scene()
    found = corrupted(images, name, 3, seed=1)
    assert torch.equal(found, corrupted(images, name, 3, seed=1))
    assert_close(found[1:], corrupted(images[1:], name, 3, seed=1))
    drawn = CORRUPTIONS[name][2] == "noise" or name in ("motion-blur", "fog", "snow")
    assert torch.equal(found, corrupted(images, name, 3, seed=2)) is not drawn


def test_four_groups_of_three() -> None:
    assert GROUPS == ("noise", "blur", "weather", "digital")
    assert all(sum(group == each for _, _, each in CORRUPTIONS.values()) == 3 for group in GROUPS)
    assert all(len(strengths) == 5 for _, strengths, _ in CORRUPTIONS.values())


def test_noise_has_the_published_size() -> None:
    grey = torch.full((1, 3, 200, 200), 0.5)
    assert float((corrupted(grey, "gaussian-noise", 1) - 0.5).std()) == pytest.approx(0.08, rel=0.02)
    shot = corrupted(grey, "shot-noise", 1)  # of Poisson counts of mean 30
    assert float(shot.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(shot.std()) == pytest.approx(30**0.5 / 60, rel=0.02)
    hit = corrupted(grey, "impulse-noise", 3)
    assert float((hit != 0.5).float().mean()) == pytest.approx(0.09, abs=0.005)
    assert sorted(hit.unique().tolist()) == [0, 0.5, 1]


def test_brightness_is_that_of_hsv() -> None:
    images = scene(8)
    found = corrupted(images, "brightness", 2)
    for row, column in ((0, 0), (3, 5), (7, 7)):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[0, :, row, column].tolist())
        expected = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2)))
        assert_close(found[0, :, row, column], expected, rtol=0, atol=1e-5)


def test_jpeg_is_pillows() -> None:
    images = scene()
    buffer = io.BytesIO()
    Image.fromarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=10)
    expected = np.asarray(Image.open(buffer), np.float32) / 255
    assert_close(corrupted(images, "jpeg", 4)[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("name", ["defocus-blur", "motion-blur", "zoom-blur"])
def test_blurs_leave_what_is_even_and_keep_the_brightness(name: str) -> None:
    even = torch.full((1, 3, 64, 64), 0.3)
    assert_close(corrupted(even, name, 4), even)
    spot = torch.zeros(1, 3, 65, 65)
    spot[..., 32, 32] = 1
    if name != "zoom-blur":
        assert float(corrupted(spot, name, 3).sum()) == pytest.approx(3, rel=1e-4)


def test_contrast_and_pixels_by_hand() -> None:
    ramp = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4) / 15
    assert_close(corrupted(ramp, "contrast", 1), 0.5 + 0.4 * (ramp - 0.5))
    halved = corrupted(ramp, "pixelate", 2)[0, 0] * 15
    assert_close(halved[:2], torch.tensor([[2.5, 2.5, 4.5, 4.5]] * 2))


def test_other_names_and_severities_get_sentences() -> None:
    with pytest.raises(OptionError, match=r"no corruption 'frog'; did you mean 'fog'"):
        corrupted(scene(), "frog", 1)
    with pytest.raises(OptionError, match="severities are 1 to 5, not 6"):
        corrupted(scene(), "fog", 6)
