"""DeepDream against a slow re-implementation with explicit gradients of the two layers, and its arithmetic by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
from convscope.backward import gradient
from convscope.errors import OptionError, UnknownLayer
from convscope.hooks import observe
from convscope.images import resize
from convscope.network import Network
from convscope.optimize import save_state
from convscope.progress import Cancelled, Progress, listening
from convscope.techniques.synthesize.dream import dream, enlarged, guided, mean_energy, octave_sizes

WEIGHT = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Network:
    first = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    first.weight = nn.Parameter(WEIGHT)
    module = nn.Sequential(first, nn.ReLU(), nn.Conv2d(5, 4, 3, stride=2))
    return Network(module.eval(), name="net", input_size=(32, 32))


def picture(height: int = 40, width: int = 36, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def moves(seed: int, jitter: int, steps: int) -> list[tuple[int, int]]:
    """The rolls of a run: two whole numbers a step from the seed's generator."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (int(torch.randint(-jitter, jitter + 1, (), generator=generator)),
         int(torch.randint(-jitter, jitter + 1, (), generator=generator))) for _ in range(steps)
    ]  # fmt: skip


def step_by_hand(image: Tensor, roll: tuple[int, int], rate: float, hand: Tensor | None = None) -> Tensor:
    """Roll, set the layer's gradient to its activation (or to ``hand``), back through the filters, unroll, clip."""
    rolled = image.roll(roll, (2, 3))
    before = F.conv2d(rolled, WEIGHT, padding=1)
    activation = before.clamp(min=0)
    back = (activation if hand is None else hand.expand_as(activation)) * (before > 0)
    slope = F.conv_transpose2d(back, WEIGHT, padding=1).roll((-roll[0], -roll[1]), (2, 3))
    return (image + rate / 255 / slope.abs().mean() * slope).clamp(0, 1)


def test_the_gradient_of_the_energy_is_the_activation(network: Network) -> None:
    images = picture().requires_grad_()
    seen = observe(network, images, ["1"])
    found = gradient(mean_energy("1")(seen), seen["1"])
    torch.testing.assert_close(found * seen["1"].numel(), seen["1"].detach())


def test_its_objectives_differentiate_as_finite_differences_say(network: Network) -> None:
    generator = torch.Generator().manual_seed(4)
    maps, features = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((2, 5, 2, 3), (5, 4)))
    for objective in (mean_energy("1"), guided(network, "1", features)):
        assert torch.autograd.gradcheck(lambda x, o=objective: o({"1": x}), maps.requires_grad_())


def test_steps_of_one_octave_equal_those_by_hand(network: Network) -> None:
    image = expected = picture()
    for roll in moves(3, 5, 4):
        expected = step_by_hand(expected, roll, 2.0)
    found = dream(network, image, layer="1", octaves=1, steps=4, jitter=5, rate=2.0, seed=3)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-5)
    assert (found.values - image).abs().mean() > 4 / 255  # not by standing still


def test_a_channel_grows_by_its_mean(network: Network) -> None:
    only = torch.zeros(1, 5, 1, 1)
    only[:, 2] = 1.0
    expected = step_by_hand(picture(), moves(0, 3, 1)[0], 1.5, only)
    found = dream(network, picture(), layer="1", channel=2, octaves=1, steps=1, jitter=3)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-5)


def test_detail_goes_from_octave_to_octave(network: Network) -> None:
    """Two octaves by hand: the detail of the small one, enlarged, is where the large one begins."""
    image = picture(56, 42)
    base = resize(image, (40, 30))
    small = base
    for roll in moves(0, 4, 2):
        small = step_by_hand(small, roll, 1.5)
    expected = image + F.interpolate(small - base, (56, 42), mode="bilinear", align_corners=False)
    for roll in moves(2, 4, 2):
        expected = step_by_hand(expected, roll, 1.5)
    found = dream(network, image, layer="1", octaves=2, steps=2, jitter=4)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-5)
    assert found.summaries[0]["octaves"] == ["30x40", "42x56"]


def test_octaves_shrink_by_the_scale_down_to_what_a_network_can_see() -> None:
    assert octave_sizes((512, 384), 4, 1.4) == [(186, 140), (261, 196), (366, 274), (512, 384)]
    assert octave_sizes((60, 100), 9, 2.0) == [(30, 50), (60, 100)]
    assert octave_sizes((8, 8), 4, 1.4) == [(8, 8)]


def test_too_few_octaves_are_said(network: Network) -> None:
    assert "2 of 6 octaves" in dream(network, picture(40, 36), layer="1", octaves=6, steps=1).notes[0]


def test_the_guide_is_the_best_fitting_feature_of_each_position(network: Network) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 3, 4, generator=generator).requires_grad_()
    features = torch.randn(5, 7, generator=generator)
    expected, slopes = torch.zeros(2), torch.zeros_like(maps)
    for n in range(2):
        for row in range(3):
            for column in range(4):
                products = [float((maps.detach()[n, :, row, column] * features[:, j]).sum()) for j in range(7)]
                best = products.index(max(products))
                expected[n] += products[best] / 12
                slopes[n, :, row, column] = features[:, best] / 12
    score = guided(network, "1", features)({"1": maps})
    torch.testing.assert_close(score.detach(), expected)
    torch.testing.assert_close(gradient(score, maps), slopes)


def test_a_guide_pulls_another_way_and_its_own_score_rises(network: Network) -> None:
    plain = dream(network, picture(), layer="1", octaves=1, steps=3)
    led = dream(network, picture(), layer="1", octaves=1, steps=3, jitter=0, guide=picture(seed=5)[0])
    assert (plain.values - led.values).abs().max() > 0.01
    assert led.trace is not None
    assert led.trace[-1] > led.trace[0]


def test_several_layers_add_the_logarithms_of_their_energies(network: Network) -> None:
    found = dream(network, picture(), layer=["1", "2"], octaves=1, steps=1, jitter=0)
    seen = observe(network, picture(), ["1", "2"])
    energies = torch.stack([seen[name].square().mean() / 2 for name in ("1", "2")])
    assert found.trace is not None
    torch.testing.assert_close(found.trace[0, 0], energies.log().sum())
    assert found.summaries[0]["layers"] == ["1", "2"]


def test_the_energy_rises_at_every_octave_of_the_built_in_network() -> None:
    image = picture(64, 64)
    found = dream(convscope.load_network("builtin"), image, octaves=2, steps=6)
    assert found.layer == "relu3_2"
    assert found.trace is not None
    assert found.trace[5, 0] > 1.2 * found.trace[0, 0]
    assert found.trace[11, 0] > found.trace[6, 0]
    assert 0 <= found.values.min() < found.values.max() <= 1


def test_one_seed_gives_one_picture_and_another_another(network: Network) -> None:
    first, again, other = (dream(network, picture(), layer="1", steps=2, seed=s).values for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_film_enlarges_each_dream_to_begin_the_next(network: Network) -> None:
    options: dict[str, Any] = {"layer": "1", "octaves": 2, "steps": 2, "jitter": 4}
    first = dream(network, picture(), **options)
    second = dream(network, enlarged(first.values, 1.2), **options, seed=4)  # seeds go on from step to step
    film = dream(network, picture(), **options, frames=2, zoom=1.2)
    torch.testing.assert_close(film.values, second.values, atol=1e-5, rtol=1e-5)
    assert [number for number, _ in film.frames] == [4, 8]
    torch.testing.assert_close(film.frames[0][1].float() / 255, first.values, atol=0.5 / 255 + 1e-6, rtol=0)


def test_enlarging_takes_the_middle() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 8:24, 8:24] = 1.0
    assert enlarged(image, 2.0)[..., 4:28, 4:28].min() > 0.999
    assert torch.equal(enlarged(image, 1.0), image)
    ramp = torch.linspace(0, 1, 33)[:, None].expand(1, 3, 33, 33)
    torch.testing.assert_close(enlarged(ramp, 2.0)[0, 0, 16, 16], torch.tensor(0.5))
    torch.testing.assert_close(enlarged(ramp, 2.0)[0, 0, 24, 16], torch.tensor(0.5 + 4 / 32))


@pytest.mark.parametrize("stop", [2, 3, 5, 6, 10])
def test_a_stopped_dream_goes_on_to_the_same_pixels(network: Network, tmp_path: Path, stop: int) -> None:
    """Stopped within an octave, between two, and in the second picture of a film."""
    options: dict[str, Any] = {"layer": "1", "octaves": 2, "steps": 3, "jitter": 4, "frames": 2, "zoom": 1.1}
    whole = dream(network, picture(), **options)

    def interrupt(now: Progress) -> None:
        done = {loop.label: loop.done for loop in now.loops}
        if (done.get("frames", 0) * 2 + done.get("octaves", 0)) * 3 + done.get("steps", 0) == stop:
            raise Cancelled

    with listening(interrupt):
        half = dream(network, picture(), **options)
    assert half.state is not None
    assert any("stopped after" in note for note in half.notes)
    assert half.values.shape == whole.values.shape
    save_state(tmp_path / "state.pt", half.state)
    rest = dream(network, picture(), **options, resume=tmp_path / "state.pt")
    assert torch.equal(rest.values, whole.values)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(rest.frames, whole.frames, strict=True))


def test_a_state_of_another_picture_is_refused(network: Network, tmp_path: Path) -> None:
    def interrupt(now: Progress) -> None:
        if any(loop.label == "steps" and loop.done == 1 for loop in now.loops):
            raise Cancelled

    with listening(interrupt):
        half = dream(network, picture(), layer="1", steps=3)
    assert half.state is not None
    save_state(tmp_path / "state.pt", half.state)
    with pytest.raises(OptionError, match="another run"):
        dream(network, picture(50, 50), layer="1", steps=3, resume=tmp_path / "state.pt")


def test_frames_on_the_way_have_the_pictures_size(network: Network) -> None:
    found = dream(network, picture(), layer="1", octaves=2, steps=2, every=1)
    assert [(number, tuple(frame.shape)) for number, frame in found.frames] == [
        (i, (1, 3, 40, 36)) for i in range(1, 5)
    ]


def test_a_large_picture_is_made_smaller(network: Network) -> None:
    found = dream(network, picture(80, 40), layer="1", octaves=1, steps=1, size=40)
    assert found.values.shape == (1, 3, 40, 20)


def test_what_does_not_go_together(network: Network) -> None:
    with pytest.raises(UnknownLayer, match="nope"):
        dream(network, picture(), layer="nope")
    with pytest.raises(OptionError, match="single layer"):
        dream(network, picture(), layer=["0", "1"], channel=1)
    with pytest.raises(OptionError, match="channels 0 to 4"):
        dream(network, picture(), layer="1", channel=9)
    with pytest.raises(OptionError, match="every"):
        dream(network, picture(), layer="1", every=1, frames=2)
    with pytest.raises(OptionError, match="one guide"):
        dream(network, picture(), layer="1", guide=[picture()[0], picture()[0]])
