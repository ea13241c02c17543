from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope.errors import OptionError, UnknownTarget
from convscope.network import Network
from convscope.techniques.synthesize.visualize import PRESETS, visualize
from convscope.zoo import load_network

SIZE = (24, 24)


def network(classes: int = 5) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
        )  # fmt: skip
    mean = torch.tensor([0.45, 0.5, 0.4])
    return Network(module.eval(), mean=mean, labels=tuple("abcde"), input_size=SIZE, name="tiny")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_objective_rises_under_every_preset(preset: Any) -> None:
    result = visualize(network(), target=["a", "c"], preset=preset, steps=25, seed=1)
    assert result.trace is not None
    assert result.values.shape[:2] == (2, 3)
    assert bool((result.trace[-3:].mean(0) > result.trace[:3].mean(0)).all())
    assert 0 <= float(result.values.min()) <= float(result.values.max()) <= 1


def test_simonyans_ascent_by_hand() -> None:
    """Steps of the gradient of score - l2 * |picture - mean|^2 over its mean size, from the mean colour."""
    net = network()
    result = visualize(net, target=1, preset="simonyan", steps=4, l2=0.3, decay=0.0, rate=0.01)
    mean = net.mean.view(1, 3, 1, 1)
    x = mean.expand(1, 3, *SIZE).clone()
    for _ in range(4):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(net(x)[0, 1] - 0.3 * ((x - mean) ** 2).sum(), x)
        x = (x + 0.01 * slope / slope.abs().mean()).detach().clamp(0, 1)
    torch.testing.assert_close(result.values, x, atol=1e-5, rtol=0)


def test_yosinskis_steps_by_hand() -> None:
    """Step, decay, blur, small norms, small contributions: the published order, all about the mean colour."""
    from scipy import ndimage

    net = network()
    options: dict[str, Any] = {"decay": 0.1, "blur": 0.6, "blur_every": 2, "clip_norm": 20, "clip_contribution": 30}
    result = visualize(net, target=2, preset="yosinski", start="mean", steps=4, rate=0.05, **options)
    mean = net.mean.view(1, 3, 1, 1)
    x = torch.zeros(1, 3, *SIZE)
    for number in range(4):
        shown = (x + mean).requires_grad_()
        (slope,) = torch.autograd.grad(net(shown)[0, 2], shown)
        slope = slope / slope.abs().mean()
        p, g = (x + 0.05 * slope).detach().numpy()[0] * 0.9, slope.numpy()[0]
        if number % 2 == 0:
            p = np.stack([ndimage.gaussian_filter(plane, 0.6, mode="nearest", radius=2) for plane in p])
        norms = np.sqrt((p**2).sum(0))
        p = p * (norms >= np.percentile(norms, 20))
        benefit = np.abs((g * -p).sum(0))
        p = p * (benefit >= np.percentile(benefit, 30))
        x = (torch.from_numpy(p.astype(np.float32))[None] + mean).clamp(0, 1) - mean
    torch.testing.assert_close(result.values, x + mean, atol=1e-4, rtol=0)


def test_the_published_schedules() -> None:
    """Yosinski et al. 2015, third combination; lucid's padding, scale and rotation; MACO's rate and noise."""
    yosinski, lucid, maco = PRESETS["yosinski"], PRESETS["lucid"], PRESETS["maco"]
    assert (yosinski.decay, yosinski.blur, yosinski.blur_every) == (0.0001, 1.0, 4)
    assert (yosinski.clip_norm, yosinski.clip_contribution) == (0, 0)
    assert (lucid.pad, lucid.jitter, lucid.scale, lucid.rotate, lucid.rate) == (12, 12, 0.1, 10, 0.05)
    assert (maco.parameters, maco.rate, maco.noise, maco.crops) == ("phase", 1.0, 0.08, 6)
    assert PRESETS["simonyan"].decay > 0


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        ({"layer": "2", "unit": [3, "4,1,1", "all"]}, ["2 3", "2 4,1,1", "2 all"]),
        ({"objective": "a - 0.5*2:1"}, ["a - 0.5*2:1"]),
        ({"layer": "2", "direction": np.arange(12.0)}, ["direction in 2"]),
        ({}, ["a", "b", "c", "d", "e"]),
    ],
)
def test_what_can_be_asked(options: dict[str, Any], titles: list[str]) -> None:
    result = visualize(network(), steps=1, size=24, preset="lucid", **options)
    assert list(result.titles) == titles
    assert result.values.shape == (len(titles), 3, 24, 24)


def test_a_direction_is_read_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.eye(12)[4])
    options: dict[str, Any] = {"layer": "2", "preset": "lucid", "steps": 3}
    from_file = visualize(network(), direction=tmp_path / "d.npy", **options)
    assert torch.equal(from_file.values, visualize(network(), direction=torch.eye(12)[4], **options).values)
    with pytest.raises(OptionError, match="12 channels"):
        visualize(network(), layer="2", direction=torch.ones(3))
    (tmp_path / "no.npy").write_text("x")
    with pytest.raises(OptionError, match=r"no \.npy file"):
        visualize(network(), direction=tmp_path / "no.npy")


def unlike(images: Tensor) -> float:
    return float((images[0] - images[1]).abs().mean())


def test_several_starts_differ_and_diversity_drives_their_textures_apart() -> None:
    net = network()
    options: dict[str, Any] = {"target": 0, "starts": 2, "preset": "lucid", "steps": 30, "layer": None}
    plain = visualize(net, **options)
    pushed = visualize(net, diversity=20.0, **options)
    assert plain.values.shape[0] == 2
    assert unlike(plain.values) > 0.01

    def alike(images: Tensor) -> float:
        from convscope.hooks import observe
        from convscope.objectives import diversity

        with torch.no_grad():
            layer = net.default_layer
            return -float(diversity(net, layer, 2)(observe(net, images, [layer])).mean())

    assert alike(pushed.values) < alike(plain.values)


def test_a_picture_does_not_depend_on_what_else_is_asked_for() -> None:
    both = visualize(network(), target=["a", "b"], preset="lucid", steps=3, seed=5)
    alone = visualize(network(), target="a", preset="lucid", steps=3, seed=5)
    torch.testing.assert_close(both.values[0], alone.values[0], atol=1e-6, rtol=0)


def test_a_photograph_to_begin_with() -> None:
    photograph = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    for preset in ("lucid", "yosinski"):
        result = visualize(network(), target=0, photograph=photograph, preset=preset, steps=1, rate=1e-6, blur=0)
        from convscope.images import fit

        torch.testing.assert_close(result.values[0], fit(photograph, SIZE), atol=2e-3, rtol=0)
    with pytest.raises(OptionError, match="phases only"):
        visualize(network(), target=0, photograph=photograph, preset="maco")


def test_frames_are_kept_and_a_run_is_resumed(tmp_path: Path) -> None:
    from convscope.optimize import save_state

    net = network()
    options: dict[str, Any] = {"target": ["a", "b"], "preset": "lucid", "seed": 2}
    whole = visualize(net, steps=6, every=2, **options)
    assert [step for step, _ in whole.frames] == [2, 4, 6]
    assert torch.equal(whole.frames[-1][1], (whole.values * 255).round().to(torch.uint8))

    ticks = iter(range(100))

    def stop(_: Any) -> None:
        from convscope.progress import Cancelled

        if next(ticks) > 5:
            raise Cancelled

    from convscope import progress

    with progress.listening(stop), pytest.MonkeyPatch.context():
        try:
            part = visualize(net, steps=6, **options)
        except progress.Cancelled:
            pytest.fail("a run that is stopped keeps its last picture")
    assert part.state is not None
    assert 0 < part.state["number"] < 6
    assert "stopped after" in part.notes[0]
    save_state(tmp_path / "x.state", part.state)
    again = visualize(net, steps=6, resume=tmp_path / "x.state", **options)
    assert torch.equal(again.values, whole.values)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": 0, "objective": "a"}, "only one of these"),
        ({"layer": "2"}, "layer needs unit"),
        ({"layer": "2", "unit": 99}, "channels 0 to 11"),
    ],
)
def test_what_cannot_be_asked_is_said(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        visualize(network(), steps=1, **options)
    with pytest.raises(UnknownTarget):
        visualize(network(), target="zebra", steps=1)


@pytest.mark.slow
def test_the_builtin_network_sees_its_classes_in_their_pictures() -> None:
    """A few classes and steps; all hundred are counted in the documentation."""
    wanted = ["sunflower", "schooner", "soccer_ball", "menorah"]
    result = visualize(load_network("builtin"), target=wanted, steps=16, crops=2, size=128)
    assert sum(s["predicted"]["label"] == name for s, name in zip(result.summaries, result.titles, strict=True)) >= 3
