from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope import progress
from convscope.errors import OptionError
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import Objective, class_score, energy, features
from convscope.optimize import NotFinite, Step, load_state, optimize, save_state
from convscope.parameterizations import Fourier, Phase, Pixels, start
from convscope.regularizers import L2, Blur, Decay, MeanOne, Sign, TotalVariation
from convscope.transforms import ROBUST, Crops, Noise

SIZE = (12, 12)


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, stride=2), nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )  # fmt: skip
    return Network(module.eval(), input_size=SIZE, name="tiny")


def pixels(count: int = 1, seed: int = 0) -> Pixels:
    return Pixels(start("noise", count, SIZE, seed=seed, spread=0.2))


def last(*args: Any, **options: Any) -> Tensor:
    for step in optimize(*args, **options):
        images = step.images
    return images


def adam_by_hand(net: Network, x: Tensor, weight: float, rate: float, steps: int) -> Tensor:
    """Kingma & Ba's update written out, on minus the objective of one picture."""
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    for number in range(1, steps + 1):
        x = x.detach().requires_grad_()
        loss = -(net(x)[0, 2] - weight * ((x[..., :, 1:] - x[..., :, :-1]) ** 2).sum() - weight * (
            (x[..., 1:, :] - x[..., :-1, :]) ** 2).sum())  # fmt: skip
        (slope,) = torch.autograd.grad(loss, x)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        move = (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        x = (x - rate * move).detach().clamp(0, 1)
    return x


def test_adam_with_a_penalty_equals_the_update_written_out() -> None:
    net = network()
    found = last(
        net, class_score(net, 2), pixels(), steps=6, rate=0.03, regularizers=[TotalVariation(0.01)]
    )  # fmt: skip
    expected = adam_by_hand(net, start("noise", 1, SIZE, seed=0, spread=0.2), 0.01, 0.03, 6)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_plain_ascent_with_yosinskis_operations_equals_a_loop() -> None:
    net = network()
    found = last(
        net, class_score(net, 1), pixels(), steps=5, optimizer="sgd", rate=0.02,
        regularizers=[MeanOne(), Decay(0.01), Blur(0.7, every=2)],
    )  # fmt: skip
    x = start("noise", 1, SIZE, seed=0, spread=0.2)
    for number in range(5):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(net(x)[0, 1], x)
        x = (x + 0.02 * slope / slope.abs().mean()).detach() * 0.99
        x = Blur(0.7)(x, x, 0) if number % 2 == 0 else x
        x = x.clamp(0, 1)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("made", [lambda: pixels(), lambda: Fourier(1, SIZE), lambda: Phase(1, SIZE)])
def test_the_objective_rises(made: Any, optimizer: Any) -> None:
    net = network()
    rate = {"adam": 0.05, "sgd": 0.5, "lbfgs": 0.5}[optimizer]
    steps = list(optimize(net, class_score(net, 0), made(), steps=15, optimizer=optimizer, rate=rate))
    assert float(steps[-1].score) > float(steps[0].score)
    assert [s.number for s in steps] == list(range(1, 16))


def test_penalties_see_the_picture_and_the_objective_its_views() -> None:
    net, seen = network(), []

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        seen.append(activations[OUTPUT].shape[0])
        return activations[OUTPUT][:, 0]

    step = next(
        iter(
            optimize(
                net, Objective(frozenset({OUTPUT}), score), pixels(2), steps=1, regularizers=[L2(1.0)],
                transforms=[Crops(3, 0.5, 0.9), Noise(0.1)], view=SIZE,
            )
        )
    )  # fmt: skip
    assert seen == [6]
    assert step.score.shape == (2,)
    torch.testing.assert_close(step.penalty, start("noise", 2, SIZE, seed=0, spread=0.2).square().sum((1, 2, 3)))


def test_nothing_past_the_deepest_layer_runs_and_no_weight_gets_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    net.layers()  # which runs it once as a whole

    def never(*_: Any) -> Tensor:
        raise AssertionError("ran past the layer")

    monkeypatch.setattr(net.module[2], "forward", never)
    last(net, energy("1"), pixels(), steps=2)
    assert all(p.grad is None for p in net.module.parameters())


def test_a_picture_does_not_depend_on_its_neighbours_and_the_seed_decides() -> None:
    net = network()
    many = last(net, class_score(net, 0), pixels(3), steps=3, transforms=ROBUST, view=SIZE, seed=4)
    alone = last(net, class_score(net, 0), pixels(1, seed=2), steps=3, transforms=ROBUST, view=SIZE, seed=4)
    torch.testing.assert_close(alone[0], many[2])
    again = last(net, class_score(net, 0), pixels(3), steps=3, transforms=ROBUST, view=SIZE, seed=4)
    assert torch.equal(many, again)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
def test_a_run_taken_up_again_ends_at_the_same_pixels(optimizer: Any, tmp_path: Path) -> None:
    net = network()
    options: dict[str, Any] = {"optimizer": optimizer, "rate": 0.05, "transforms": ROBUST, "view": SIZE, "seed": 3}
    whole = last(net, class_score(net, 0), pixels(), steps=7, **options)
    for step in optimize(net, class_score(net, 0), pixels(), steps=7, **options):
        if step.number == 3:
            save_state(tmp_path / "run.state", step.state())
            break
    state = load_state(tmp_path / "run.state")
    steps = list(optimize(net, class_score(net, 0), pixels(), steps=7, resume=state, **options))
    assert [s.number for s in steps] == [4, 5, 6, 7]
    assert torch.equal(steps[-1].images, whole)


def test_an_interrupt_within_a_step_waits_for_its_end() -> None:
    """Or else the generator of the views would be ahead of the picture."""
    net = network()
    whole = last(net, class_score(net, 0), pixels(), steps=4, transforms=ROBUST, view=SIZE)
    inside = class_score(net, 0)
    calls = iter(range(9))

    def pressed(activations: Any) -> Tensor:
        if next(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return inside(activations)

    asked = Objective(inside.layers, pressed, "interrupted")
    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(optimize(net, asked, pixels(), steps=4, transforms=ROBUST, view=SIZE))
    assert [step.number for step in found] == [1, 2]
    options: dict[str, Any] = {"steps": 4, "transforms": ROBUST, "view": SIZE, "resume": found[-1].state()}
    assert torch.equal(last(net, class_score(net, 0), pixels(), **options), whole)


def test_a_state_of_another_run_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    net = network()
    step = next(iter(optimize(net, class_score(net, 0), pixels(), steps=1)))
    with pytest.raises(OptionError, match="another run"):
        list(optimize(net, class_score(net, 0), Fourier(1, SIZE), steps=2, resume=step.state()))
    (tmp_path / "no.state").write_text("hello")
    torch.save([1], tmp_path / "list.state")
    for name in ("no.state", "list.state"):
        with pytest.raises(OptionError, match="no saved state"):
            load_state(tmp_path / name)
    with pytest.raises(OptionError, match="no file"):
        load_state(tmp_path / "absent.state")


class Cliff(nn.Module):
    """Overflows where the picture's mean is above a half; rises towards it."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([-torch.log(0.5 - mean), -mean], 1)


def test_an_overflow_steps_back_halves_the_rate_and_ends_with_the_last_good_picture() -> None:
    net = Network(Cliff(), input_size=SIZE, name="cliff")
    begin = Pixels(torch.full((1, 3, *SIZE), 0.42))
    steps = list(
        optimize(net, class_score(net, 0), begin, steps=200, optimizer="sgd", rate=0.05, regularizers=[Sign()])
    )
    assert "overflowed" in steps[-1].stopped
    assert 0.495 < float(steps[-1].images.mean()) <= 0.5
    assert all(bool(s.score.isfinite().all()) for s in steps)


def test_a_start_that_overflows_is_said() -> None:
    net = Network(Cliff(), input_size=SIZE, name="cliff")
    with pytest.raises(NotFinite, match="starts from"):
        list(optimize(net, class_score(net, 0), Pixels(torch.ones(1, 3, *SIZE)), steps=3))


def test_what_does_not_go_together_is_said() -> None:
    net = network()
    with pytest.raises(OptionError, match="pixel parameterization"):
        list(optimize(net, class_score(net, 0), Fourier(1, SIZE), steps=1, regularizers=[Decay(0.1)]))
    with pytest.raises(OptionError, match="one picture at a time"):
        list(optimize(net, class_score(net, 0), pixels(2), steps=1, optimizer="lbfgs"))


class Tiled:
    """The energy of a layer in two halves of the batch's rows, as a tiled objective computes it."""

    def sweep(self, net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        whole = images.detach().requires_grad_()
        score = energy("0")(observe(net, whole, ["0"]))
        (slope,) = torch.autograd.grad(score.sum(), whole)
        return score.detach(), slope


def test_an_objective_that_sweeps_gives_the_same_steps() -> None:
    net = network()
    options: dict[str, Any] = {"steps": 4, "rate": 0.02, "regularizers": [TotalVariation(0.1)]}
    torch.testing.assert_close(
        last(net, Tiled(), Fourier(2, SIZE), **options), last(net, energy("0"), Fourier(2, SIZE), **options)
    )
    with pytest.raises(OptionError, match="tiles"):
        list(optimize(net, Tiled(), pixels(), steps=1, transforms=[Noise(0.1)]))


def test_inverting_a_layer_that_changes_nothing_returns_the_picture() -> None:
    net = Network(nn.Sequential(nn.Identity()), input_size=SIZE, name="identity")
    wanted = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(9))
    found = last(net, features({"0": wanted}), pixels(), steps=60, optimizer="lbfgs", rate=1.0)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_a_listener_hears_of_every_step() -> None:
    net, heard = network(), []
    with progress.listening(lambda now: heard.append(now.fraction)):
        last(net, class_score(net, 0), pixels(), steps=4)
    assert heard == sorted(heard)
    assert heard[-1] == 1
    assert len(set(heard)) >= 4


def test_a_unit_that_is_silent_at_the_start_is_brought_to_life_only_where_that_is_asked_for() -> None:
    """A rectified unit far below zero has no gradient; through the rectifier it has, until it fires by itself."""
    module = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(0.1)
        module[0].bias.fill_(-2.0)  # needs more than 0.74 in every pixel
    network = Network(module, name="silent", input_size=(8, 8))
    start = torch.full((2, 3, 8, 8), 0.5)
    start[1] = 0.9  # fires already
    asked = Objective(frozenset({"1"}), lambda seen: seen["1"].mean((1, 2, 3)), "unit")

    def last(revive: bool) -> Step:
        moved = Pixels(start.clone())
        *_, step = optimize(network, asked, moved, steps=12, optimizer="sgd", rate=5.0, revive=revive)
        return step

    torch.testing.assert_close(last(False).images[0], start[0])
    assert float(last(False).score[0]) == 0
    assert float(last(True).score[0]) > 0
    torch.testing.assert_close(last(True).images[1], last(False).images[1])
