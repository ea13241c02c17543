"""Inversion against layers that can be inverted by hand, and its priors in the units of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.errors import OptionError, UnknownLayer
from convscope.hooks import observe
from convscope.images import blurred
from convscope.network import Network
from convscope.optimize import save_state
from convscope.progress import Cancelled, Progress, listening
from convscope.results import Pictures, Synthesis
from convscope.techniques.synthesize.invert import Descent, Way, _Task, invert, noise

SIDE = 24


class Net(nn.Module):
    """A layer that hands the picture on, one that shuffles its colours, and one that is always silent."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()
        self.colours = nn.Conv2d(3, 3, 1)
        self.silent = nn.Hardtanh(0.0, 1e-9)
        self.score = nn.Linear(3, 4)
        with torch.no_grad():
            self.colours.weight.copy_(torch.tensor([[0, 1.0, 0.5], [1, 0, 0], [0, 0.3, -1]])[..., None, None])
            self.colours.bias = nn.Parameter(torch.full((3,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        x = self.colours(self.same(x))
        self.silent(-x.abs())
        return self.score(x.mean((2, 3)))


@pytest.fixture
def network() -> Network:
    return Network(Net().eval(), name="net", input_size=(SIDE, SIDE))


def picture(seed: int = 0, count: int = 1) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("optimizer", "parameters", "steps", "tolerance"),
    [("lbfgs", "pixels", 20, 1e-4), ("adam", "pixels", 200, 5e-3), ("lbfgs", "fourier", 120, 1e-2)],
)
@pytest.mark.parametrize("layer", ["same", "colours"])
def test_a_layer_that_loses_nothing_gives_the_picture_back(
    network: Network, layer: str, optimizer: Way, parameters: Literal["pixels", "fourier"], steps: int, tolerance: float
) -> None:
    image = picture() if parameters == "pixels" else (0.5 + blurred(picture() - 0.5, 1.5) * 3).clamp(0.2, 0.8)
    found = invert(
        network, image, layer=layer, optimizer=optimizer, parameters=parameters, steps=steps, tv=0.0, norm=0.0
    )
    assert isinstance(found, Synthesis)
    torch.testing.assert_close(found.values, image, atol=20 * tolerance, rtol=0)
    error = found.summaries[0]["errors"][0]
    assert error["pixels"] < tolerance
    assert error["pixels"] == pytest.approx(float((found.values - image).square().mean().sqrt()), rel=1e-4)


def test_the_published_descent_ends_near_the_picture_too(network: Network) -> None:
    found = invert(network, picture(), layer="same", optimizer="sgd", steps=400, tv=0.0, norm=0.0)
    assert found.summaries[0]["errors"][0]["pixels"] < 0.05


def test_the_priors_are_those_of_the_paper_in_its_own_units() -> None:
    """At 227x227, in [-128, 128] over sigma, with its lambdas: section 5 and the authors' experiments."""
    side, rho = 227, 0.27
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    variation, size = _Task(None, "sgd", True, 1, 0, 5.0, 2.0, 0.12, 6.0).priors((side, side))  # type: ignore[arg-type]
    sigma = rho * 255 * math.sqrt(3 * side * side)
    theirs = ((picture - 0.5) * 255 / sigma).double()
    last_column, last_row = theirs[..., -1:], theirs[..., -1:, :]
    right = torch.cat([theirs[..., 1:], last_column], 3) - theirs
    below = torch.cat([theirs[..., 1:, :], last_row], 2) - theirs
    expected = 5.0 * (right.square() + below.square()).sum()
    assert float(variation(picture)[0]) == pytest.approx(float(expected), rel=1e-4)
    lambda_alpha = 2.16e8
    assert float(size(picture)[0]) == pytest.approx(lambda_alpha * float(theirs.abs().pow(6).sum()), rel=0.05)


def test_the_total_variation_of_another_exponent_by_hand() -> None:
    image = torch.tensor([[0.0, 0.3], [0.4, 0.4]]).expand(1, 3, 2, 2)
    variation = _Task(None, "sgd", True, 1, 0, 2.0, 1.0, 0.0, 6.0).priors((2, 2))[0]  # type: ignore[arg-type]
    lengths = math.hypot(0.3, 0.4) + math.hypot(0.0, 0.1) + 0 + 0
    assert float(variation(image)[0]) == pytest.approx(2.0 / (3 * 4 * 0.27) * 3 * lengths, abs=2e-3)


def test_the_descent_is_the_published_one() -> None:
    """Momentum as in the paper's equations, on a slope of one, with its schedule and its new beginnings."""
    place = torch.zeros(1, requires_grad=True)
    descent = Descent([place], 0.5, steps=8)
    expected, speed, last = 0.0, 0.0, None
    for rate in [0.5] * 2 + [0.05] * 4 + [0.005] * 2:
        speed = 0.0 if rate != last else speed
        last = rate
        speed = 0.9 * speed - rate * 1.0
        expected += speed
        place.grad = torch.ones(1)
        descent.step()
        assert place.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "sgd"])
def test_the_features_come_nearer(optimizer: Way) -> None:
    network = convscope.load_network("builtin", precision="float32")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    found = invert(network, image, layer="relu2_2", optimizer=optimizer, steps=12)
    assert isinstance(found, Synthesis)
    assert found.trace is not None
    assert found.trace[-1, 0] > found.trace[0, 0] / 2  # minus a distance: towards zero
    seen, target = (observe(network, x, ["relu2_2"])["relu2_2"] for x in (found.values, image))
    error = found.summaries[0]["errors"][0]
    assert error["features"] == pytest.approx(float((seen - target).norm() / target.norm()), rel=1e-4)


def test_a_strip_has_the_pictures_of_its_layers(network: Network) -> None:
    strip = invert(network, picture(count=2), layers=["same", "colours"], steps=4)
    assert isinstance(strip, Pictures)
    assert strip.values.shape == (2, 2, 3, SIDE, SIDE)
    for n in range(2):
        alone = invert(network, picture(count=2)[n], layer="colours", steps=4)
        assert torch.equal(strip.values[n, 1], alone.values[0])
        assert strip.summaries[n]["errors"][1] == alone.summaries[0]["errors"][0]
    assert torch.equal(strip.tiles[:, 0], picture(count=2))
    assert strip.tile_titles[3] == "photograph"
    assert strip.tile_titles[4].startswith("same\nfeatures ")


def test_without_layers_the_strip_goes_from_the_first_resolution_to_the_scores() -> None:
    network = convscope.load_network("builtin")
    strip = invert(network, torch.rand(1, 3, 64, 64), steps=1)
    layers = [e["layer"] for e in strip.summaries[0]["errors"]]
    assert layers == ["relu1", "relu2_2", "relu3_2", "relu4_3", "relu5", "fc6"]


def test_one_seed_gives_one_picture_and_another_another(network: Network) -> None:
    first, again, other = (invert(network, picture(), layer="colours", steps=2, seed=s).values for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_noise_is_as_far_from_grey_as_a_photograph() -> None:
    found = noise((200, 200), 0)
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.std()) == pytest.approx(0.27, abs=0.01)


def interrupt_at(label: str, number: int, **more: int) -> Callable[[Progress], None]:
    def told(now: Progress) -> None:
        done = {loop.label: loop.done for loop in now.loops}
        if done.get(label) == number and all(done.get(k) == v for k, v in more.items()):
            raise Cancelled

    return told


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "sgd"])
def test_a_stopped_inversion_goes_on_to_the_same_pixels(network: Network, tmp_path: Path, optimizer: Way) -> None:
    options: dict[str, Any] = {"layer": "colours", "steps": 8, "optimizer": optimizer}
    whole = invert(network, picture(), **options)
    with listening(interrupt_at("steps", 3)):
        half = invert(network, picture(), **options)
    assert isinstance(half, Synthesis)
    assert half.state is not None
    assert half.notes == ["stopped after 3 of 8 steps"]
    save_state(tmp_path / "state.pt", half.state)
    rest = invert(network, picture(), **options, resume=tmp_path / "state.pt")
    assert torch.equal(rest.values, whole.values)


def test_a_stopped_strip_keeps_what_it_has_and_goes_on(network: Network, tmp_path: Path) -> None:
    with listening(interrupt_at("steps", 2, layers=1)):
        strip = invert(network, picture(), layers=["same", "colours", "score"], steps=4)
    assert [e["layer"] for e in strip.summaries[0]["errors"]] == ["same", "colours"]
    assert strip.notes == ["stopped after 2 of 4 steps"]
    save_state(tmp_path / "strip.state", strip.state or {})
    rest = invert(network, picture(), layers=["same", "colours", "score"], steps=4, resume=tmp_path / "strip.state")
    whole = invert(network, picture(), layers=["same", "colours", "score"], steps=4)
    assert torch.equal(rest.values, whole.values)
    assert rest.summaries == whole.summaries
    with pytest.raises(OptionError, match="another run"):
        invert(network, picture(), layer="same", steps=4, resume=tmp_path / "strip.state")


def test_what_does_not_go_together(network: Network) -> None:
    with pytest.raises(OptionError, match="not both"):
        invert(network, picture(), layer="same", layers=["same"])
    with pytest.raises(OptionError, match="one layer"):
        invert(network, picture(), layers=["same"], every=2)
    with pytest.raises(UnknownLayer, match="nope"):
        invert(network, picture(), layers=["same", "nope"])
    with pytest.raises(OptionError, match="zero everywhere"):
        invert(network, picture(), layer="silent")
