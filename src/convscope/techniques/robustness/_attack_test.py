"""The attack against hand-worked values, foolbox and torchattacks; rounding that stays in the ball; what is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope.errors import OptionError, UnknownTarget
from convscope.hooks import OUTPUT
from convscope.images import read_image, write_image
from convscope.network import Network
from convscope.objectives import Objective
from convscope.optimize import optimize
from convscope.parameterizations import EpsilonBall
from convscope.techniques.robustness._attack import (
    LEVEL,
    attack,
    budget,
    distances,
    exact,
    logits_of,
    on_grid,
    quantised,
    reported,
    searched,
    task,
)
from convscope.techniques.robustness._steepest import Steepest

Make = Callable[..., Tensor]


# ---- hand-worked: captum's BasicModel, out = 1 - relu(1 - x), and its loss, minus the logarithm of the class's output


class Basic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (1 - torch.relu(1 - x)).flatten(1)


VALUES = torch.tensor([2.0, -9.0, 9.0, 1.0, -3.0])
BASIC = Network(Basic(), mean=torch.tensor([0.5]), std=torch.tensor([0.05]), name="basic", input_size=(1, 5))


def as_picture(values: Tensor) -> Tensor:
    """Pictures are in [0, 1]; the network makes -10 to 10 of them."""
    return (values / 20 + 0.5).view(1, 1, 1, 5)


def worked(label: int, radius: float, step: float, count: int) -> list[float]:
    ball = EpsilonBall(as_picture(VALUES), radius / 20)
    loss = Objective(frozenset({OUTPUT}), lambda seen: -seen[OUTPUT][:, label].abs().log())  # abs: captum's is NaN here
    steps = optimize(BASIC, loss, ball, steps=count, optimizer=lambda p, r: Steepest(p, r), rate=step / 20)
    last = list(steps)[-1].images
    return ((last.flatten() - 0.5) * 20).tolist()


def test_one_step_by_hand() -> None:
    assert worked(1, 0.1, 0.1, 1) == pytest.approx([2, -8.9, 9, 1, -3], abs=1e-5)


def test_several_steps_by_hand() -> None:
    assert worked(4, 0.25, 0.1, 2) == pytest.approx([2, -9, 9, 1, -2.8], abs=1e-5)
    assert worked(4, 0.25, 0.1, 4) == pytest.approx([2, -9, 9, 1, -2.75], abs=1e-5)  # the ball ends there


# ---- the same as other libraries


class Bare(nn.Module):
    """What those take: a module on pictures in [0, 1]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module, self._network = network.module, network

    def forward(self, images: Tensor) -> Tensor:
        return self._network(images)


def by_foolbox(network: Network, images: Tensor, goal: Any, name: str, epsilon: float, **options: Any) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(Bare(network).eval(), bounds=(0, 1))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return getattr(foolbox.attacks, name)(**options).run(model, images, goal, epsilon=epsilon)


def foolbox_start(images: Tensor, name: str, epsilon: float) -> Tensor:
    """Where it begins under that seed."""
    foolbox, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        begin = getattr(foolbox.attacks, name)().get_random_start(eagerpy.astensor(images), epsilon)
    return begin.raw.clamp(0, 1)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("name", "norm", "epsilon", "step"),
    [("LinfPGD", "linf", 0.06, 0.013), ("L2PGD", "l2", 1.5, 0.31)],
)
def test_several_steps_equal_foolboxs(
    victim: Network, images: Tensor, classes: Tensor, name: str, norm: Any, epsilon: float, step: float, targeted: bool
) -> None:
    foolbox = pytest.importorskip("foolbox")
    wanted = (classes + 1) % 3 if targeted else classes
    goal = (
        foolbox.criteria.TargetedMisclassification(wanted) if targeted else foolbox.criteria.Misclassification(wanted)
    )
    theirs = by_foolbox(victim, images, goal, name, epsilon, steps=8, abs_stepsize=step)
    ours = attack(
        victim, images, wanted, epsilon=epsilon, norm=norm, steps=8, rate=step, targeted=targeted,
        start=foolbox_start(images, name, epsilon),
    )  # fmt: skip
    assert float((theirs - images).abs().max()) > epsilon / 30  # it did something
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "norm", "epsilon"), [("LinfFastGradientAttack", "linf", 0.05), ("L2FastGradientAttack", "l2", 0.9)]
)
def test_one_step_equals_foolboxs(
    victim: Network, images: Tensor, classes: Tensor, name: str, norm: Any, epsilon: float
) -> None:
    foolbox = pytest.importorskip("foolbox")
    theirs = by_foolbox(victim, images, foolbox.criteria.Misclassification(classes), name, epsilon)
    ours = attack(victim, images, classes, epsilon=epsilon, norm=norm, steps=1, rate=epsilon)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def by_torchattacks(network: Network, images: Tensor, classes: Tensor, name: str, **options: Any) -> Tensor:
    torchattacks = pytest.importorskip("torchattacks")
    made = getattr(torchattacks, name)(Bare(network).eval(), **options)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return made(images, classes)


@pytest.mark.parametrize(("name", "options", "ours"), [
    ("FGSM", {"eps": 0.05}, {"epsilon": 0.05, "steps": 1, "rate": 0.05}),
    ("PGD", {"eps": 0.06, "alpha": 0.013, "steps": 8}, {"epsilon": 0.06, "steps": 8, "rate": 0.013}),
    ("MIFGSM", {"eps": 0.06, "alpha": 0.013, "steps": 8, "decay": 0.7},
     {"epsilon": 0.06, "steps": 8, "rate": 0.013, "momentum": 0.7}),
    ("PGDL2", {"eps": 1.5, "alpha": 0.31, "steps": 8}, {"epsilon": 1.5, "norm": "l2", "steps": 8, "rate": 0.31}),
])  # fmt: skip
def test_the_attack_equals_torchattacks(
    victim: Network, images: Tensor, classes: Tensor, name: str, options: dict[str, Any], ours: dict[str, Any]
) -> None:
    theirs = by_torchattacks(victim, images, classes, name, **options)
    start = torchattacks_start(images, name, options["eps"])
    found = attack(victim, images, classes, start=start, **ours)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-9 if name == "PGDL2" else 1e-12)  # it adds 1e-10 there


def torchattacks_start(images: Tensor, name: str, epsilon: float) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if name == "PGD":
            return (images + torch.empty_like(images).uniform_(-epsilon, epsilon)).clamp(0, 1)
        if name == "PGDL2":
            drawn = torch.empty_like(images).normal_()
            length = drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            return (images + drawn * (torch.zeros_like(length).uniform_(0, 1) / length * epsilon)).clamp(0, 1)
    return images


# ---- batches


def test_passes_of_one_picture_and_an_epsilon_of_each_give_the_same(
    victim: Network, images: Tensor, classes: Tensor
) -> None:
    epsilons = torch.tensor([0.01, 0.02, 0.03, 0.04, 0.05], dtype=torch.float64)
    together = attack(victim, images, classes, epsilon=epsilons, steps=3, rate=0.01)
    for number in range(5):
        one = slice(number, number + 1)
        alone = attack(victim, images[one], classes[one], epsilon=float(epsilons[number]), steps=3, rate=0.01)
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-12)


# ---- 8 bits


def test_the_grid_is_what_reading_a_png_gives(tmp_path: Path) -> None:
    every = torch.arange(256).float().view(1, 16, 16).expand(3, 16, 16) / 255
    for picture in (every, torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))):
        write_image(picture, tmp_path / "a.png")
        assert torch.equal(read_image(tmp_path / "a.png"), on_grid(picture[None])[0])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["linf", "l2"]), st.floats(1 / 255, 0.3), st.floats(0.001, 1.0))
def test_rounding_never_leaves_the_ball(seed: int, norm: Any, epsilon: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    originals = on_grid(torch.rand(2, 3, 5, 6, generator=generator))
    wild = originals + spread * torch.randn(originals.shape, generator=generator)
    pictures = EpsilonBall(originals, epsilon, norm=norm, start=wild).images().detach()
    found = quantised(originals, pictures, epsilon, norm)
    assert torch.equal(found, on_grid(found))
    for picture, original in zip(found, originals, strict=True):
        assert distances(original, picture)[norm] <= epsilon * (1 + 2e-5)


def test_changes_below_half_a_level_do_not_vanish_in_l2() -> None:
    originals = on_grid(torch.full((1, 3, 20, 20), 0.5))
    change = torch.zeros_like(originals)
    change[0, 0] = torch.linspace(0.1, 0.3, 400).view(20, 20) / 255
    found = quantised(originals, originals + change, 1.0, "l2")
    length, expected = distances(originals[0], found[0])["l2"], float(change.norm())
    assert 0.9 * expected < length <= expected * (1 + 2e-5)
    moved = (found - originals)[0, 0].flatten()
    assert bool((moved[-10:] > 0).all())  # those that stand out most
    assert not moved[:300].any()


def test_distances_are_counted_on_the_levels() -> None:
    original = torch.zeros(3, 2, 2)
    picture = original.clone()
    picture[0, 0, 0], picture[1, 0, 0], picture[2, 1, 1] = 3 / 255, 4 / 255, 12 / 255
    found = distances(original, picture)
    assert found == {"linf": 12 / 255, "l2": pytest.approx(13 / 255), "l0": 2, "pixels": 4}


# ---- tries, and what is said of them


def test_the_best_of_several_tries_is_kept(victim: Network, images: Tensor) -> None:
    job = task(victim, images)
    asked: list[int] = []

    def make(part: Any, number: int) -> Tensor:
        asked.append(len(part.originals))
        found = part.originals.clone()
        if number == 1:  # the second try fools with the first two of those that are left
            found[:2] = 1 - found[:2]
        return found

    found = searched(job, make, epsilon=1.0, norm="linf", restarts=3)
    margins = job.margins(logits_of(victim, found))
    fooled = int((margins > 0).sum())
    assert asked == [5, 5, 5 - fooled]
    assert torch.equal(found[2:], job.originals[2:])
    assert bool((margins >= job.margins(job.clean)).all())


def test_what_is_said_is_what_the_network_says_of_the_file(victim: Network, images: Tensor, tmp_path: Path) -> None:
    job = task(victim, images, label=[0, 1, 2, 0, 1])
    made = on_grid(1 - job.originals)
    result = reported(job, made, epsilon=1.0, norm="linf")
    for path, summary, original in zip(
        result.write_pictures(tmp_path / "a.png"), result.summaries, job.originals, strict=True
    ):
        read = read_image(path)
        shares = {}
        for when, picture in (("before", original), ("after", read)):
            with torch.no_grad():
                shares[when] = victim(picture[None].double())[0].softmax(0).tolist()
        labels = ["ant", "bee", "cat"]
        best = int(np.argmax(shares["after"]))
        assert summary["adversarial"]["label"] == labels[best]
        assert summary["adversarial"]["probability"] == pytest.approx(shares["after"][best])
        assert summary["success"] == (labels[best] != summary["label"])
        assert summary["clean"]["correct"] == (labels[int(np.argmax(shares["before"]))] == summary["label"])
        for each in summary["probabilities"]:
            place = labels.index(each["label"])
            assert each["before"] == pytest.approx(shares["before"][place])
            assert each["after"] == pytest.approx(shares["after"][place])
        change = ((read - original) * 255).round().numpy()
        assert summary["linf"] == pytest.approx(np.abs(change).max() / 255)
        assert summary["l2"] == pytest.approx(math.sqrt((change.astype(float) ** 2).sum()) / 255)
        assert summary["l0"] == int((change != 0).any(0).sum())


def test_mistakes_before_the_attack_are_said(victim: Network, images: Tensor, classes: Tensor) -> None:
    wrong = classes.clone()
    wrong[3] = (wrong[3] + 1) % 3
    job = task(victim, images, label=wrong)
    assert (
        "1 of 5 pictures are taken for another class before any attack"
        in reported(job, job.originals, epsilon=1.0, norm="linf").notes[0]
    )
    assert not reported(task(victim, images), job.originals, epsilon=1.0, norm="linf").notes


def test_bad_goals_get_one_sentence(victim: Network, images: Tensor, classes: Tensor) -> None:
    with pytest.raises(OptionError, match="picture 1 of 5 is already taken for the target"):
        task(victim, images, target=int(classes[0]))
    with pytest.raises(OptionError, match="the picture is already of the target 'bee'; choose another"):
        task(victim, images[:1], label="bee", target=1)
    with pytest.raises(UnknownTarget):
        task(victim, images, target="dog")
    with pytest.raises(OptionError, match="less than one level"):
        budget(0.5 * LEVEL, "linf", images)
    with pytest.raises(OptionError, match="at most at 1"):
        budget(8, "linf", images)
    assert budget(None, "linf", images) == 4 / 255
    assert budget(None, "l2", images) == 1.0


def test_judgement_is_never_in_bfloat16(victim: Network) -> None:
    from dataclasses import replace

    assert exact(replace(victim, precision="bfloat16")).precision == "float32"
    assert exact(victim) is victim
