from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.errors import ImageError, OptionError, UnknownLayer
from convscope.images import resize
from convscope.network import Network
from convscope.registry import load
from convscope.regularizers import Colours
from convscope.results import Synthesis
from convscope.techniques.synthesize._colours import matched, same_spread
from convscope.techniques.synthesize._lbfgs import LBFGS
from convscope.techniques.synthesize.style import recoloured

style = load("style")
DEEP = ["0", "2"]


def picture(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1), nn.ReLU())
    return Network(module.eval(), mean=torch.full((3,), 0.4), std=torch.full((3,), 0.3), input_size=(32, 32))


def pixels() -> Network:
    """Whose one layer is the picture itself."""
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    module[0].weight.data.copy_(torch.eye(3)[:, :, None, None])
    return Network(module.eval(), input_size=(32, 32))


def run(net: Network, content: Tensor, painting: Any, **options: Any) -> Synthesis:
    plain = {"parameters": "pixels", "scales": 1, "steps": 4, "colours": 0.0}
    found: Synthesis = style(net, content, style=painting, **{**plain, **options})
    return found


# ---- the steps, written out


def loss_by_hand(net: Network, picture: Tensor, content: Tensor, painting: Tensor, beta: float, tv: float) -> Tensor:
    """Content in the layer before the last stage and style in both, as Gatys writes them, each in shares."""

    def layers(image: Tensor) -> list[Tensor]:
        shallow = torch.relu(net.module[0]((image - 0.4) / 0.3))
        return [shallow[0], torch.relu(net.module[2](shallow))[0]]

    def gram(maps: Tensor) -> Tensor:
        return torch.einsum("chw,dhw->cd", maps, maps) / (maps.shape[1] * maps.shape[2])

    found, kept, wanted = layers(picture), layers(content), layers(painting)
    loss = (found[0] - kept[0]).pow(2).sum() / kept[0].pow(2).sum()
    for mine, theirs in zip(found, wanted, strict=True):
        loss = loss + beta / 2 * (gram(mine) - gram(theirs)).pow(2).sum() / gram(theirs).pow(2).sum()
    down, right = picture.diff(dim=2).pow(2).sum(), picture.diff(dim=3).pow(2).sum()
    return loss + tv * (down + right) / (picture.shape[2] * picture.shape[3])


def slope_by_hand(net: Network, at: Tensor, *rest: Any) -> tuple[float, Tensor]:
    at = at.detach().requires_grad_()
    loss = loss_by_hand(net, at, *rest)
    return float(loss.detach()), torch.autograd.grad(loss, at)[0]


def test_steps_of_adam_are_those_of_a_loop_by_hand() -> None:
    net, content, painting = network(), picture(1, 3, 24, 20), picture(1, 3, 24, 24, seed=1)
    at, first, second = content.clone(), torch.zeros_like(content), torch.zeros_like(content)
    for number in range(1, 6):
        _, slope = slope_by_hand(net, at, content, painting, 3.0, 0.1)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
        moved = (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        at = (at - 0.01 * moved).clamp(0, 1)
    found = run(net, content, painting, optimizer="adam", rate=0.01, steps=5, beta=3.0, tv=0.1)
    torch.testing.assert_close(found.values, at, rtol=1e-3, atol=1e-4)


def test_steps_of_lbfgs_are_those_of_its_own_module() -> None:
    """Whose own test has the two loops written out."""
    net, content, painting = network(), picture(1, 3, 24, 20), picture(1, 3, 24, 24, seed=1)
    at, trace = content.clone().requires_grad_(), []
    optimizer = LBFGS([at])
    for _ in range(6):

        def evaluated() -> float:
            loss, at.grad = slope_by_hand(net, at, content, painting, 3.0, 0.0)
            trace.append(-loss)
            return loss

        optimizer.step(evaluated)
    found = run(net, content, painting, steps=6, beta=3.0)
    torch.testing.assert_close(found.trace[:, 0], torch.tensor(trace), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.values, at.detach().clamp(0, 1), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adam"}, {"parameters": "pixels"}, {"keep_colours": "luminance"}]
)
def test_the_objective_rises_and_seeds_repeat(options: dict[str, Any]) -> None:
    net, content, painting = network(), picture(1, 3, 48, 48), picture(3, 40, 40, seed=1)
    made = [
        run(net, content, painting, **{"parameters": "fourier", "start": "noise", "steps": 12, "seed": s, **options})
        for s in (1, 1, 2)
    ]
    assert made[0].trace[-1] > 0.6 * made[0].trace[0]
    assert torch.equal(made[0].values, made[1].values)
    assert not torch.allclose(made[0].values, made[2].values, atol=1e-2)


def test_each_photograph_is_worked_on_by_itself_also_from_noise() -> None:
    net, content, painting = network(), picture(2, 3, 24, 20), picture(3, 24, 24, seed=1)
    both = run(net, content, painting, start="noise")
    alone = run(net, content[1:], painting, start="noise")
    torch.testing.assert_close(both.values[1:], alone.values)


# ---- where it ends, when that is known


def products(pixels: Tensor) -> Tensor:
    """(3, 3): the mean of x x' over pixels x."""
    return torch.stack([torch.outer(x, x) for x in pixels.flatten(1).T]).mean(0)


def test_without_content_a_picture_takes_on_the_colour_of_the_painting() -> None:
    red = torch.tensor([0.9, 0.2, 0.1])[:, None, None].expand(3, 16, 16)
    found = run(pixels(), picture(1, 3, 16, 16), red, alpha=0.0, beta=1.0, steps=40, parameters="fourier")
    assert found.trace[-1] > -1e-2
    torch.testing.assert_close(products(found.values[0]), products(red), atol=0.03, rtol=0)


def test_plain_areas_take_on_colours_that_the_network_does_not_see() -> None:
    net = network()
    with torch.no_grad():
        net.module[0].weight -= net.module[0].weight.mean((2, 3), keepdim=True)  # edges alone
    content = picture(1, 3, 32, 32) * 0.1 + 0.5
    paintings = [picture(3, 32, 32, seed=n) * 0.2 + torch.tensor(c).view(3, 1, 1)
                 for n, c in ((1, (0.7, 0.1, 0.1)), (2, (0.1, 0.1, 0.7)))]  # fmt: skip
    away = Colours(1.0, paintings[0][None], coarser=(4, 8, 16))
    plain, held = (run(net, content, paintings[0], steps=20, optimizer="adam", colours=c) for c in (0.0, 5.0))
    assert float(away(held.values)) < 0.2 * float(away(plain.values))
    mixed = run(net, content, paintings, style_weight=[3, 1], steps=20, optimizer="adam", colours=5.0)
    red = mixed.values[0, 0] > mixed.values[0, 2]
    assert 0.65 < float(red.float().mean()) < 0.85  # three quarters of the places, not of each colour


def test_masks_give_each_painting_its_place() -> None:
    red, blue = (torch.tensor(c)[:, None, None].expand(3, 16, 16) for c in ([0.9, 0.2, 0.1], [0.1, 0.2, 0.8]))
    left = torch.zeros(3, 16, 16)
    left[..., :8] = 1
    found = run(
        pixels(), picture(1, 3, 16, 16), [red, blue], mask=[left, 1 - left], alpha=0.0, beta=1.0, steps=60,
        parameters="fourier",
    )  # fmt: skip
    torch.testing.assert_close(products(found.values[0, :, :, :8]), products(red), atol=0.06, rtol=0)
    torch.testing.assert_close(products(found.values[0, :, :, 8:]), products(blue), atol=0.06, rtol=0)


def test_with_content_alone_the_photograph_stays() -> None:
    content = picture(1, 3, 24, 24)
    found = run(network(), content, picture(3, 24, 24, seed=1), beta=1e-9)
    torch.testing.assert_close(found.values, content, atol=1e-3, rtol=0)


def test_two_paintings_are_mixed_by_their_weights() -> None:
    net, content = network(), picture(1, 3, 24, 24)
    one, two = picture(3, 24, 24, seed=1), picture(3, 24, 24, seed=2) * 0.3
    expected = run(net, content, one).values
    torch.testing.assert_close(run(net, content, [one, one], style_weight=[3.0, 1.0]).values, expected)
    torch.testing.assert_close(
        run(net, content, [one, two], style_weight=[1.0, 1e-7]).values, expected, atol=1e-4, rtol=0
    )
    assert not torch.allclose(run(net, content, [one, two]).values, expected, atol=1e-3)


def test_the_size_of_the_paintings_is_independent_of_the_photographs() -> None:
    net, content, painting = network(), picture(1, 3, 24, 32), picture(3, 60, 40, seed=1)
    half = resize(painting, (30, 20))
    expected = run(net, content, half, style_size=30).values
    torch.testing.assert_close(run(net, content, painting, style_size=30).values, expected)
    torch.testing.assert_close(run(net, content, painting, style_scale=30 / 32).values, expected)
    assert not torch.allclose(run(net, content, painting, style_size=60).values, expected, atol=1e-3)


def test_layers_and_weights_can_be_chosen() -> None:
    net, content, painting = network(), picture(1, 3, 24, 32), picture(3, 24, 40, seed=1)
    default = run(net, content, painting)
    assert default.summary["content_layers"] == ["1"]
    assert default.summary["style_layers"] == ["1", "3"]
    same = run(net, content, painting, content_layer="1", style_layer=["1", "3"], layer_weight=[2.0, 2.0])
    torch.testing.assert_close(same.values, default.values)
    other = run(net, content, painting, style_layer=["1"])
    assert not torch.allclose(other.values, default.values, atol=1e-4)


def test_tiles_end_at_the_same_pixels() -> None:
    net, content, painting = network(), picture(1, 3, 150, 140), picture(3, 130, 100, seed=1)
    whole, tiled = (run(net, content, painting, tile=tile, start="content") for tile in (None, 64))
    torch.testing.assert_close(tiled.values, whole.values, atol=1e-4, rtol=0)


# ---- colours


def test_the_luminance_of_a_painting_takes_mean_and_spread_of_the_photographs() -> None:
    found = same_spread(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([10.0, 14.0, 18.0]))
    assert found.tolist() == [10.0, 14.0, 18.0]
    assert same_spread(torch.ones(3), torch.tensor([1.0, 2.0, 3.0])).tolist() == [2.0, 2.0, 2.0]


def test_matched_colours_have_mean_and_covariance_of_the_photographs() -> None:
    mix = torch.tensor([[0.5, 0.2, 0.0], [0.1, 0.6, 0.1], [0.0, 0.3, 0.3]])
    photograph = torch.einsum("rc,chw->rhw", mix, picture(3, 20, 30))
    found = matched(picture(3, 25, 15, seed=1) ** 2, photograph)
    torch.testing.assert_close(found.flatten(1).mean(1), photograph.flatten(1).mean(1), atol=1e-5, rtol=0)
    covariances = [torch.cov(p.flatten(1), correction=0) for p in (found, photograph)]
    torch.testing.assert_close(covariances[0], covariances[1], atol=1e-5, rtol=0)
    itself = picture(3, 9, 9)
    torch.testing.assert_close(matched(itself, itself), itself, atol=1e-5, rtol=0)
    assert bool(matched(torch.full((3, 8, 8), 0.5), photograph).isfinite().all())


def test_luminance_keeps_the_colour_planes_of_the_photograph() -> None:
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    content, painting = 0.4 + 0.2 * picture(1, 3, 24, 24), picture(3, 24, 24, seed=1)
    found = run(network(), content, painting, keep_colours="luminance", steps=3, beta=0.5)
    planes = [torch.einsum("rc,nchw->nrhw", yiq, p) for p in (found.values, content)]
    torch.testing.assert_close(planes[0][:, 1:], planes[1][:, 1:], atol=2e-3, rtol=0)
    assert not torch.allclose(planes[0][:, 0], planes[1][:, 0], atol=1e-3)


def test_recolouring_a_photograph_by_itself_changes_nothing() -> None:
    from convscope.techniques.synthesize._run import Run

    content = picture(1, 3, 8, 8)
    torch.testing.assert_close(recoloured(Run(content, torch.zeros(1, 1)), content).images, content)


# ---- what does not fit


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"style": None}, OptionError, "needs a painting"),
        ({"mask": [torch.ones(3, 8, 8)] * 2}, OptionError, "2 masks for 1 paintings"),
        ({"mask": torch.zeros(3, 8, 8)}, ImageError, "mask 1 is black all over"),
        ({"style_weight": [1.0, 2.0]}, OptionError, "2 style weights for 1 paintings"),
        ({"layer_weight": 1.0}, OptionError, "1 layer weights for 2 style layers"),
        ({"style_layer": "relu9"}, UnknownLayer, "no layer 'relu9'"),
        ({"content_layer": "relu9"}, UnknownLayer, "no layer 'relu9'"),
        ({"style": "nowhere.jpg"}, ImageError, "no such file"),
        ({"resume": "nowhere.state"}, OptionError, "no file"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        style(network(), picture(1, 3, 24, 24), **{"style": picture(3, 24, 24), "steps": 1, **options})
    assert "\n" not in str(caught.value)


def test_a_painting_smaller_than_a_kernel_gets_a_sentence() -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 9), nn.ReLU()).eval(), input_size=(32, 32))
    with pytest.raises(ImageError, match="painting of 16x8 pixels is too small"):
        run(net, picture(1, 3, 32, 32), picture(3, 8, 16))


def test_tiles_are_refused_where_a_layer_sees_the_whole_picture() -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4)).eval(), input_size=(32, 32))
    with pytest.raises(OptionError, match=r"cannot be gone over in tiles.*sees the whole picture"):
        run(net, picture(1, 3, 80, 80), picture(3, 32, 32), style_layer="1", content_layer="0", tile=64)


def test_a_stopped_run_goes_on_to_the_same_pixels(tmp_path: Path) -> None:
    from convscope import progress
    from convscope.optimize import save_state

    net, content, painting = network(), picture(1, 3, 96, 100), picture(3, 90, 80, seed=1)
    options = {"style": painting, "steps": 4, "scales": 2}
    expected = style(net, content, **options)

    def stop(now: progress.Progress) -> None:
        if now.fraction > 0.7:
            raise progress.Cancelled

    with progress.listening(stop):
        stopped = style(net, content, **options)
    assert stopped.state is not None
    assert "stopped after" in stopped.notes[0]
    assert stopped.values.shape == content.shape
    save_state(tmp_path / "run.state", stopped.state)
    found = style(net, content, **options, resume=tmp_path / "run.state")
    assert torch.equal(found.values, expected.values)
    both = style(net, content.repeat(2, 1, 1, 1), **options, resume=tmp_path / "run.state")
    assert torch.equal(both.values, expected.values.repeat(2, 1, 1, 1))


PAINTINGS = Path(__file__).parents[5] / "shared" / "data" / "paintings"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not PAINTINGS.is_dir(), reason="no paintings beside the project")
def test_a_photograph_of_a_town_becomes_a_painting() -> None:
    """By the numbers: what is looked at is in the gallery."""
    found = convscope.style(
        convscope.load_network("builtin"), resize(convscope.read_image(PAINTINGS / "tubingen.jpg"), (96, 128)),
        style=PAINTINGS / "starry_night.jpg", steps=15,
    )  # fmt: skip
    assert found.trace[-1] > 0.2 * found.trace[0]
