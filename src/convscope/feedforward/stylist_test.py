from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from convscope.feedforward.painting import gathered, held, in_tiles, painted
from convscope.feedforward.stylist import Convolution, Shape, StyleNorm, Stylist, _doubled, grain
from convscope.zoo.options import seeded

SMALL = Shape(styles=2, widths=(4, 6), blocks=2, fine=4)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def stylist(shape: Shape = SMALL) -> Stylist:
    """Random weights, and scales and shifts that differ between styles."""
    with seeded(3):
        made = Stylist(shape).eval().requires_grad_(False)
        for part in made.modules():
            if isinstance(part, StyleNorm):
                nn.init.uniform_(part.scale, 0.5, 1.5)
                nn.init.uniform_(part.shift, -0.5, 0.5)
    return made


def mirrored(index: int, side: int) -> int:
    """The place that a place outside is the mirror image of, the border itself not repeated."""
    index = abs(index)
    return 2 * (side - 1) - index if index >= side else index


def test_convolution_equals_a_loop_over_a_mirrored_picture() -> None:
    with seeded(0):
        layer = Convolution(2, 3, 5, 2, bias=True).requires_grad_(False)
    maps = drawn(1, 2, 8, 6)
    found = layer(maps)
    weight, bias = layer.convolution.weight, layer.convolution.bias
    assert found.shape == (1, 3, 4, 3)
    for out, y, x in [(0, 0, 0), (1, 3, 2), (2, 2, 1), (0, 3, 0)]:
        total = float(bias[out])
        for c in range(2):
            for i in range(5):
                for j in range(5):
                    row, column = mirrored(2 * y + i - 2, 8), mirrored(2 * x + j - 2, 6)
                    total += float(weight[out, c, i, j] * maps[0, c, row, column])
        assert float(found[0, out, y, x]) == pytest.approx(total, abs=1e-5)


def test_style_norm_equals_the_formula_and_torchs_instance_norm() -> None:
    norm = StyleNorm(2, 3).requires_grad_(False)
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]]))
        norm.shift.copy_(torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.25, 7.0]]))
    maps, styles = drawn(2, 3, 4, 5) * 3, torch.tensor([1, 0])
    found = norm(maps, styles)
    for n, style in enumerate(styles.tolist()):
        for c in range(3):
            numbers = maps[n, c].flatten().tolist()
            mean = math.fsum(numbers) / 20
            variance = math.fsum((v - mean) ** 2 for v in numbers) / 20
            scale, shift = float(norm.scale[style, c]), float(norm.shift[style, c])
            expected = [scale * (v - mean) / math.sqrt(variance + 1e-5) + shift for v in numbers]
            assert_close(found[n, c].flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-5)
        own = nn.functional.instance_norm(maps[n : n + 1], weight=norm.scale[style], bias=norm.shift[style], eps=1e-5)
        assert_close(found[n : n + 1], own, rtol=1e-5, atol=1e-5)


def test_upsampling_leaves_no_checkerboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halfway points between neighbours, a quarter off each; and a flat picture stays flat, whatever the weights.

    A transposed convolution would show its stride.
    """
    monkeypatch.setattr("convscope.feedforward.stylist.grain", lambda size, place: torch.zeros(size))
    maps = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).view(1, 1, 2, 2)
    assert _doubled(maps)[0, 0].tolist() == [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    flat = stylist()(torch.full((1, 3, 32, 24), 0.3), 0)
    assert_close(flat, flat[..., :1, :1].expand_as(flat), rtol=0, atol=1e-5)


def test_grain_is_a_sum_of_waves_wherever_it_is_cut_out() -> None:
    whole = grain((400, 300))
    assert float(whole.mean()) == pytest.approx(0, abs=0.05)
    assert float(whole.std()) == pytest.approx(1, abs=0.05)
    assert_close(grain((20, 30), (371, 5)), whole[371:391, 5:35], rtol=0, atol=1e-5)
    spectrum = torch.fft.rfft2(grain((256, 256)) * torch.hann_window(256)[:, None] * torch.hann_window(256)).abs()
    rows, columns = torch.fft.fftfreq(256)[:, None], torch.fft.rfftfreq(256)
    lengths = 1 / (rows.square() + columns.square()).sqrt().clamp(min=1e-9)
    assert float(spectrum[(lengths > 5) & (lengths < 90)].square().sum() / spectrum.square().sum()) > 0.99
    shift = min(float((whole[:-s] - whole[s:]).abs().mean()) for s in range(6, 200))
    assert shift > 0.3  # it does not repeat


def test_a_clear_sky_gets_strokes() -> None:
    painted_sky = stylist()(torch.full((1, 3, 64, 64), 0.6), 0)
    assert float(painted_sky.std((2, 3)).min()) > 1e-3


def test_it_starts_from_the_photograph_with_less_contrast() -> None:
    """Without its maps it is sigmoid(x - 1/2), and each style mixes the colours by its own matrix."""
    with seeded(0):
        made = Stylist(SMALL).requires_grad_(False)
    image = drawn(1, 3, 16, 16)
    for part in (made.coarse, made.middle, made.out):
        part.convolution.weight.zero_()
        part.convolution.bias.zero_()
    assert_close(made(image, 0), torch.sigmoid(image - 0.5))
    made.palette[1] = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    centred = image - 0.5
    swapped = torch.stack([centred[:, 1], 2 * centred[:, 0], 0 * centred[:, 0]], 1)
    assert_close(made(image, 1), torch.sigmoid(swapped))


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 23), (30, 33), (64, 48)])
def test_any_size_keeps_it_and_the_range(size: tuple[int, int]) -> None:
    found = stylist()(drawn(2, 3, *size), torch.tensor([0, 1]))
    assert found.shape == (2, 3, *size)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_whole_steps_are_only_a_continuation() -> None:
    """An odd picture is painted as its continuation to whole steps is."""
    image = drawn(1, 3, 30, 37)
    wide = nn.functional.pad(image, (0, 3, 0, 2), mode="replicate")
    assert_close(stylist()(image, 1), stylist()(wide, 1)[..., :30, :37])


def test_pictures_and_styles_do_not_mix() -> None:
    made, images = stylist(), drawn(3, 3, 24, 20)
    together = made(images, torch.tensor([0, 1, 1]))
    for n, style in enumerate([0, 1, 1]):
        assert_close(made(images[n : n + 1], style)[0], together[n], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(made(images, 0), made(images, 1), atol=1e-3)


def test_the_halo_is_all_that_a_pixel_looks_at() -> None:
    """With fixed moments; and no more than needed: half of it is too little."""
    made, image = stylist(), drawn(1, 3, 160, 160)
    shared = gathered(made, image, 0)
    changed = image.clone()
    changed[..., : 80 - made.halo, :] = 0
    changed[..., 80 + made.halo :, :] = 0
    closer = image.clone()
    closer[..., : 80 - made.halo // 2, :] = 0
    with held(made, shared):
        whole, same, other = (made(each, 0)[..., 80, :] for each in (image, changed, closer))
    assert torch.equal(whole, same)
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("size", [(97, 130), (64, 201)])
def test_tiles_with_the_moments_of_the_whole_equal_one_pass(size: tuple[int, int]) -> None:
    made, image = stylist(), drawn(1, 3, *size)
    assert_close(in_tiles(made, image, 1, tile=32, exact=True), made(image, 1), rtol=1e-5, atol=1e-5)
    assert all(part.watch is None for part in made.modules() if isinstance(part, StyleNorm))


def test_tiles_with_sampled_moments_come_close_and_show_no_seam() -> None:
    made, image = stylist(), drawn(1, 3, 200, 240)
    found, whole = in_tiles(made, image, 0, tile=64), made(image, 0)
    assert float((found - whole).abs().mean()) < 0.02
    steps = (found[..., 1:] - found[..., :-1]).abs().mean((0, 1, 2))
    assert float(steps[63::64].max()) < 1.5 * float(steps.mean())


def test_where_memory_runs_out_it_is_painted_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    made, image = stylist(), drawn(1, 3, 96, 64)
    monkeypatch.setattr("convscope.feedforward.painting.TILE", 16)
    forward = Stylist.forward

    def bounded(self: Stylist, images: Tensor, styles: Tensor | int = 0, place: tuple[int, int] = (0, 0)) -> Tensor:
        if images.shape[2:] == image.shape[2:]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, images, styles, place)

    expected = in_tiles(made, image, 0, tile=16)
    monkeypatch.setattr(Stylist, "forward", bounded)
    assert torch.equal(painted(made, image, 0), expected)


def test_gradients_reach_every_weight() -> None:
    made = stylist().requires_grad_(True)
    made(drawn(2, 3, 16, 16), torch.tensor([0, 1])).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in made.parameters())
