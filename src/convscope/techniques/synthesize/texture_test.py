from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import ImageError, OptionError, UnknownLayer
from convscope.images import resize
from convscope.network import Network
from convscope.registry import load
from convscope.regularizers import Colours, TotalVariation
from convscope.results import Synthesis
from convscope.techniques.synthesize._style import noise

texture = load("texture")


def picture(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1), nn.ReLU())
    return Network(module.eval(), mean=torch.full((3,), 0.4), std=torch.full((3,), 0.3), input_size=(32, 32))


def run(sample: Tensor, **options: Any) -> Synthesis:
    plain = {"parameters": "pixels", "scales": 1, "steps": 4, "colours": 0.0, "tv": 0.0}
    found: Synthesis = texture(network(), sample, **{**plain, **options})
    return found


def slope_by_hand(net: Network, at: Tensor, sample: Tensor) -> tuple[float, Tensor]:
    """Gatys's loss of two layers, each in shares of the sample's."""

    def grams(image: Tensor) -> list[Tensor]:
        shallow = torch.relu(net.module[0]((image - 0.4) / 0.3))
        maps = [shallow[0], torch.relu(net.module[2](shallow))[0]]
        return [torch.einsum("chw,dhw->cd", m, m) / (m.shape[1] * m.shape[2]) for m in maps]

    at = at.detach().requires_grad_()
    loss = sum(
        0.5 * (mine - theirs).pow(2).sum() / theirs.pow(2).sum()
        for mine, theirs in zip(grams(at), grams(sample), strict=True)
    )
    return float(loss.detach()), torch.autograd.grad(loss, at)[0]


@pytest.mark.parametrize("size", [None, "30,44", "18,20"])
def test_steps_are_those_of_a_loop_by_hand_at_any_size(size: str | None) -> None:
    net, sample = network(), picture(1, 3, 24, 20)
    sides = tuple(map(int, size.split(","))) if size else (24, 20)
    at = noise(sample, sides, 5)
    first, second, trace = torch.zeros_like(at), torch.zeros_like(at), []
    for number in range(1, 6):
        loss, slope = slope_by_hand(net, at, sample)
        trace.append(-loss)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
        at = at - 0.02 * (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        at = at.clamp(0, 1)
    found = run(sample, size=size, optimizer="adam", rate=0.02, steps=5, seed=5)
    assert found.values.shape == at.shape
    torch.testing.assert_close(found.trace[:, 0], torch.tensor(trace), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.values, at, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}, {"centred": True}, {"parameters": "pixels"}])
def test_the_objective_rises_and_seeds_repeat(options: dict[str, Any]) -> None:
    sample = picture(1, 3, 48, 48) ** 3
    made = [run(sample, **{"parameters": "fourier", "steps": 12, "seed": s, **options}) for s in (1, 1, 2)]
    assert made[0].trace[-1] > 0.5 * made[0].trace[0]
    assert torch.equal(made[0].values, made[1].values)
    assert not torch.allclose(made[0].values, made[2].values, atol=1e-2)


def test_the_colours_of_the_sample_are_kept_and_variation_is_held_down() -> None:
    sample = picture(1, 3, 32, 32) * torch.tensor([0.9, 0.3, 0.1]).view(1, 3, 1, 1)
    away = Colours(1.0, sample)
    plain, held = (run(sample, steps=20, optimizer="adam", colours=c) for c in (0.0, 100.0))
    assert float(away(held.values)) < 0.5 * float(away(plain.values))
    smooth = run(sample, steps=20, optimizer="adam", tv=50.0)
    assert float(TotalVariation(1.0)(smooth.values)) < 0.5 * float(TotalVariation(1.0)(plain.values))


def test_samples_are_worked_on_by_themselves() -> None:
    samples = picture(2, 3, 24, 20)
    torch.testing.assert_close(run(samples).values[1:], run(samples[1:]).values)


def test_a_strip_is_the_textures_of_ever_more_layers() -> None:
    samples = picture(2, 3, 24, 20)
    found = run(samples, strip=True)
    assert list(found.titles) == ["up to 1", "up to 3"] * 2
    assert [s["layers"] for s in found.summaries] == [["1"], ["1", "3"]] * 2
    torch.testing.assert_close(found.values[0], run(samples[:1], layers="1").values[0])
    torch.testing.assert_close(found.values[3], run(samples[1:], layers=["3", "1"]).values[0])


def test_layers_have_weights() -> None:
    sample = picture(1, 3, 24, 20)
    heavy, alone = run(sample, layer_weight=[1.0, 1e-7]), run(sample, layers="1")
    torch.testing.assert_close(heavy.values, alone.values, atol=1e-3, rtol=0)


def test_samples_are_made_smaller() -> None:
    sample = picture(1, 3, 48, 40)
    expected = run(resize(sample, (24, 20)), size=20).values
    torch.testing.assert_close(run(sample, sample_size=24, size=20).values, expected)


def test_tiles_end_at_the_same_pixels() -> None:
    sample = picture(1, 3, 40, 40)
    whole, tiled = (run(sample, size="140,100", tile=tile) for tile in (None, 64))
    torch.testing.assert_close(tiled.values, whole.values, atol=1e-4, rtol=0)


def test_neighbour_has_only_pixels_of_the_sample() -> None:
    pytest.importorskip("numba")
    samples = picture(2, 3, 16, 16)
    found = run(samples, method="neighbour", size="20,24", window=5, seed=3)
    assert found.values.shape == (2, 3, 20, 24)
    for sample, made in zip(samples, found.values, strict=True):
        known = {tuple(pixel) for pixel in sample.flatten(1).T.tolist()}
        assert {tuple(pixel) for pixel in made.flatten(1).T.tolist()} <= known
    alone = run(samples[1:], method="neighbour", size="20,24", window=5, seed=3)
    assert torch.equal(found.values[1], alone.values[0])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"size": "big"}, OptionError, "'big' is no size"),
        ({"size": "1,2,3"}, OptionError, "'1,2,3' is no size"),
        ({"size": 8}, OptionError, "8 is no size"),
        ({"layers": "relu9"}, UnknownLayer, "no layer 'relu9'"),
        ({"layer_weight": [1.0]}, OptionError, "1 layer weights for 2 layers"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        run(picture(1, 3, 24, 24), **options)
    assert "\n" not in str(caught.value)


def test_a_sample_smaller_than_a_kernel_gets_a_sentence() -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 9), nn.ReLU()).eval(), input_size=(32, 32))
    with pytest.raises(ImageError, match="sample of 16x8 pixels is too small"):
        texture(net, picture(1, 3, 8, 16), size=32, steps=1)
