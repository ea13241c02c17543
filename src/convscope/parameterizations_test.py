from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from convscope.errors import OptionError
from convscope.parameterizations import (
    EpsilonBall,
    Fourier,
    Phase,
    Pixels,
    SharedChange,
    colour_matrix,
    correlated,
    decorrelated,
    drawn,
    frequencies,
    near,
    start,
)

SIZES = [(8, 8), (9, 12), (7, 5), (6, 11)]


def photographs(count: int = 2, size: tuple[int, int] = (8, 12)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(5)) * 0.9 + 0.05


def fourier_by_hand(coefficients: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture as a plain double sum over frequencies, colours mixed and squashed one pixel at a time."""
    height, width = size
    planes = np.zeros((3, height, width))
    for c in range(3):
        for u in range(height):
            for v in range(width // 2 + 1):
                down, right = (u if u <= (height - 1) // 2 else u - height) / height, v / width
                scale = 1 / max(math.hypot(down, right), 1 / max(size)) / 4
                value = complex(*coefficients[c, u, v]) * scale
                twice = 1 if v == 0 or (width % 2 == 0 and v == width // 2) else 2
                for y in range(height):
                    for x in range(width):
                        wave = np.exp(2j * np.pi * (u * y / height + v * x / width))
                        planes[c, y, x] += twice * (value * wave).real
    planes /= math.sqrt(height * width)
    matrix = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    matrix /= np.sqrt((matrix**2).sum(0)).max()
    mixed = np.tensordot(matrix, planes, 1)
    return 1 / (1 + np.exp(-mixed))


def hermitian(size: tuple[int, int], seed: int) -> Tensor:
    """Coefficients that belong to a real picture, as the double sum needs them."""
    noise = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.view_as_real(torch.fft.rfft2(noise))


@pytest.mark.parametrize("size", [(4, 4), (5, 6), (4, 5)])
def test_fourier_pictures_equal_a_double_sum_over_frequencies(size: tuple[int, int]) -> None:
    made = Fourier(1, size, seed=3)
    scale = 1 / frequencies(size).clamp(min=1 / max(size))
    made.coefficients = (hermitian(size, 3) / scale[..., None])[None].float().requires_grad_()
    expected = fourier_by_hand(made.coefficients[0].detach().numpy(), size)
    np.testing.assert_allclose(made.images()[0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("correlate", [True, False])
def test_fourier_makes_a_photograph_of_its_own_coefficients(size: tuple[int, int], correlate: bool) -> None:
    images = photographs(size=size)
    torch.testing.assert_close(Fourier.of(images, correlate=correlate).images(), images, atol=1e-4, rtol=0)


def test_black_and_white_survive_the_sigmoid_almost() -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[..., :2] = 1
    torch.testing.assert_close(Fourier.of(images).images(), images, atol=1 / 256, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_any_phase_keeps_the_magnitude_of_photographs(size: tuple[int, int]) -> None:
    made = Phase(2, size, seed=1)
    expected = 1 / frequencies(size).clamp(min=1e-9)
    expected[0, 0] = 0
    for _ in range(3):
        torch.testing.assert_close(made.spectrum().abs(), expected.expand(2, 3, -1, -1), atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            made.phase += torch.randn(made.phase.shape)


def test_phase_takes_the_mean_magnitude_of_given_photographs() -> None:
    images = photographs(3, (8, 8))
    planes = decorrelated(torch.logit(images))
    planes = planes - planes.mean((2, 3), keepdim=True)
    expected = sum(np.abs(np.fft.rfft2(p.numpy(), norm="ortho")) for p in planes) / 3
    np.testing.assert_allclose(Phase(1, (8, 8), photographs=images).magnitude.numpy(), expected, atol=1e-4)
    with pytest.raises(OptionError, match="one colour"):
        Phase(1, (8, 8), photographs=torch.full((1, 3, 8, 8), 0.5))


def test_phase_pictures_are_standardised_before_the_sigmoid() -> None:
    planes = decorrelated(torch.logit(Phase(2, (16, 16), seed=2).images()))
    torch.testing.assert_close(planes.mean((1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(planes.std((1, 2, 3)), torch.ones(2), atol=1e-2, rtol=0)


def test_colours_are_mixed_by_the_published_matrix_and_back() -> None:
    longest = math.sqrt(0.26**2 + 0.27**2 + 0.27**2)
    torch.testing.assert_close(colour_matrix()[0], torch.tensor([0.26, 0.09, 0.02]) / longest)
    planes = photographs()
    torch.testing.assert_close(decorrelated(correlated(planes)), planes, atol=1e-4, rtol=0)


@pytest.mark.parametrize("made", [Fourier, Phase])
def test_a_picture_does_not_depend_on_how_many_stand_beside_it(made: type) -> None:
    three = made(3, (8, 8), seed=4).images()
    for number in range(3):
        torch.testing.assert_close(made(1, (8, 8), seed=4 + number).images()[0], three[number])
    assert torch.equal(drawn((2,), 3, 4)[2], drawn((2,), 1, 6)[0])


def test_pixels_are_held_to_their_bounds_around_their_centre() -> None:
    centre = torch.tensor([0.5, 0.4, 0.3])
    made = Pixels(photographs(), centre=centre)
    torch.testing.assert_close(made.images(), photographs())
    with torch.no_grad():
        made.pixels += 3 * torch.randn(made.pixels.shape, generator=torch.Generator().manual_seed(0))
    wild = made.images().detach().clone()
    made.project()
    torch.testing.assert_close(made.images(), wild.clamp(0, 1))
    free = Pixels(wild, bounds=None)
    free.project()
    torch.testing.assert_close(free.images(), wild)


def test_where_a_picture_starts() -> None:
    assert not start("zeros", 2, (4, 4), seed=0).any()
    mean = torch.tensor([0.2, 0.5, 0.7])
    torch.testing.assert_close(start("mean", 1, (4, 4), seed=0, mean=mean)[0, :, 0, 0], mean)
    noise = start("noise", 1, (64, 64), seed=0, mean=mean, spread=0.05)
    torch.testing.assert_close(noise.mean((0, 2, 3)), mean, atol=5e-3, rtol=0)
    torch.testing.assert_close(noise.std((0, 2, 3)), torch.full((3,), 0.05), atol=2e-3, rtol=0)


# ---- the epsilon ball


def lengths(change: Tensor, norm: str) -> Tensor:
    return change.flatten(1).norm(dim=1, p=2 if norm == "l2" else torch.inf)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.sampled_from(["linf", "l2"]), st.floats(0.004, 1.0), st.floats(0.0, 3.0))
def test_projections_end_in_the_ball_and_in_the_range_and_leave_what_is_there(
    seed: int, norm: str, epsilon: float, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(3, 3, 4, 5, generator=generator).mul(1.2).sub(0.1).clamp(0, 1)  # some at the very ends
    ball = EpsilonBall(centres, epsilon, norm=norm)
    with torch.no_grad():
        ball.pixels += spread * torch.randn(centres.shape, generator=generator)
    wild = ball.images().detach().clone()
    ball.project()
    found = ball.images().detach().clone()
    assert bool((lengths(found - centres, norm) <= epsilon * (1 + 1e-5)).all())
    assert bool(((found >= 0) & (found <= 1)).all())
    inside = (lengths(wild - centres, norm) < epsilon * (1 - 1e-5)) & ((wild >= 0) & (wild <= 1)).flatten(1).all(1)
    torch.testing.assert_close(found[inside], wild[inside])
    ball.project()
    torch.testing.assert_close(ball.images().detach(), found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.5))
def test_the_projection_in_linf_is_the_nearest_point(seed: int, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    centre, wild = (torch.rand(1, 3, 2, 2, generator=generator) for _ in range(2))
    found = EpsilonBall(centre, epsilon, start=2 * wild - 0.5).images().detach()
    for c, w, f in zip(centre.flatten(), (2 * wild - 0.5).flatten(), found.flatten(), strict=True):
        low, high = max(float(c) - epsilon, 0.0), min(float(c) + epsilon, 1.0)
        assert float(f) == pytest.approx(min(max(float(w), low), high), abs=1e-6)


def test_every_picture_of_a_ball_can_have_its_own_epsilon() -> None:
    centres = torch.full((2, 3, 2, 2), 0.5)
    ball = EpsilonBall(centres, torch.tensor([0.1, 0.2]), start=torch.ones(1, 3, 2, 2))
    assert [p.unique().tolist() for p in ball.images()] == [[pytest.approx(0.6)], [pytest.approx(0.7)]]


@pytest.mark.parametrize(("norm", "epsilon", "said"), [
    ("linf", 0.0, "above 0"), ("linf", 8.0, "say 8/255"), ("linf", -1.0, "above 0"), ("linf", math.nan, "above 0"),
    ("l2", 6.1, "at most at 6"),
])  # fmt: skip
def test_an_epsilon_out_of_range_is_said(norm: str, epsilon: float, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        EpsilonBall(torch.zeros(1, 3, 3, 4), epsilon, norm=norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_places_fill_the_ball(norm: str) -> None:
    found = torch.cat([near((1, 2), 0.5, norm=norm, seed=seed) for seed in range(400)])
    sizes = lengths(found, norm)
    assert bool((sizes <= 0.5).all())
    # of a uniform place in six dimensions, the length has the distribution (r / epsilon)^6
    assert float((sizes / 0.5).pow(6).mean()) == pytest.approx(0.5, abs=0.05)
    assert found.mean((0,)).abs().max() < 0.06
    assert torch.equal(near((1, 2), 0.5, norm=norm, seed=3), near((1, 2), 0.5, norm=norm, seed=3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_shared_change_is_one_for_all_and_sees_each_picture_once_before_any_again(norm: str) -> None:
    originals = photographs(5)
    shared = SharedChange(originals, 0.3, norm=norm, batch=2, seed=1)
    seen = []
    for _ in range(5):
        before, chosen = shared.images(), shared.chosen
        seen += chosen.tolist()
        torch.testing.assert_close(before, (originals[chosen] + shared.change).clamp(0, 1))
        with torch.no_grad():
            shared.change += 0.2
        shared.project()
        assert float(lengths(shared.change.detach(), norm)) <= 0.3 * (1 + 1e-6)
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5))
    again = SharedChange(originals, 0.3, norm=norm, batch=2, seed=1)
    assert again.chosen.tolist() == seen[:2]
