"""The command line, as a user meets it: what is printed where, exit status, files."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope import cli, registry
from convscope.images import read_image

FACTORY = """
    import torch
    from torch import nn

    class Means(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * 10

    def means():
        return Means()

    def small():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 5), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(6, 3),
        )

    def nan():
        net = small()
        net[0].weight.data[1, 0, 0, 0] = float("nan")
        return net
"""


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Desk:
    """A folder with a network, labels and two photographs, and a way to run commands there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._capture = folder, monkeypatch, capsys
        (folder / "nets.py").write_text(textwrap.dedent(FACTORY))
        (folder / "labels.txt").write_text("red\ngreen\nblue\n")
        Image.new("RGB", (40, 30), (200, 20, 20)).save(folder / "a.png")
        Image.new("RGB", (30, 40), (20, 20, 220)).save(folder / "b.jpg")
        self.common = ["--network", "nets.py:small", "--labels", "labels.txt", "--input-size", "24,32"]

    def __call__(self, *arguments: str) -> Ran:
        self._patch.chdir(self.folder)
        self._patch.setattr(sys, "argv", ["convscope", *arguments])
        self._capture.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = self._capture.readouterr()
        return Ran(status, captured.out, captured.err)

    def files(self) -> set[str]:
        given = {"nets.py", "labels.txt", "a.png", "b.jpg", "__pycache__"}
        return {path.name for path in self.folder.iterdir()} - given


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_classify_json_is_one_object_for_one_photograph_and_a_list_for_several(desk: Desk) -> None:
    means = ["--network", "nets.py:means", "--labels", "labels.txt", "--input-size", "8", "--json"]
    one = desk("classify", "a.png", *means)
    assert one.status == 0
    found = json.loads(one.out)
    assert [p["label"] for p in found["predictions"]] == ["red", "green", "blue"]
    assert found["provenance"]["technique"] == "classify"
    assert found["provenance"]["photographs"] == ["a.png"]
    several = json.loads(desk("classify", "a.png", "b.jpg", *means).out)
    assert [o["predictions"][0]["label"] for o in several] == ["red", "blue"]
    assert not desk.files()


@pytest.mark.parametrize("name", list(registry.discover()))
def test_every_command_answers_in_json_raw_and_picture(desk: Desk, name: str) -> None:
    photographs = ["a.png"] if registry.load(name).takes_images else []
    ran = desk(name, *photographs, *desk.common, "--json", "--raw", "raw.npz", "-o", "picture.png", "--seed", "3")
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert set(found["provenance"]) >= {"technique", "options", "seed", "network", "layer", "versions"}
    assert found["provenance"]["seed"] == 3
    with np.load(desk.folder / "raw.npz") as saved:
        assert saved["values"].size
    with Image.open(desk.folder / "picture.png") as picture:
        assert min(picture.size) > 100
    assert desk.files() == {"raw.npz", "picture.png"}


@pytest.mark.parametrize("name", [*registry.discover(), "demo"])
def test_every_command_has_help(desk: Desk, name: str) -> None:
    ran = desk(name, "--help")
    assert ran.status == 0
    for option in ("--network", "--weights", "--labels", "--device", "--precision", "--quiet", "--output"):
        assert option in ran.out


def test_saliency_equals_the_gradient_of_the_prepared_photograph(desk: Desk) -> None:
    desk("saliency", "a.png", *desk.common, "--target", "green", "--raw", "raw.npz")
    scope: dict = {}
    exec(textwrap.dedent(FACTORY), scope)
    with torch.random.fork_rng():
        module = scope["small"]()
    image = torch.nn.functional.interpolate(
        read_image(desk.folder / "a.png")[None], (24, 32), mode="bilinear", antialias=True
    )
    image.requires_grad_()
    expected = torch.autograd.grad(module(image)[0, 1], image)[0].abs().amax(1)
    with np.load(desk.folder / "raw.npz") as saved:
        np.testing.assert_allclose(saved["values"], expected.numpy(), rtol=1e-4, atol=1e-7)


def test_without_an_output_the_picture_is_named_after_the_command(desk: Desk) -> None:
    ran = desk("saliency", "a.png", *desk.common)
    assert ran.status == 0
    assert desk.files() == {"saliency.png"}
    assert "wrote saliency.png" in ran.err
    assert ran.out.strip()


def test_quiet_says_nothing_on_standard_error(desk: Desk) -> None:
    assert desk("saliency", "a.png", *desk.common, "--quiet").err == ""


def test_a_folder_stands_for_its_photographs(desk: Desk) -> None:
    assert len(json.loads(desk("classify", ".", *desk.common, "--json").out)) == 2


BAD = [
    (["classify", "missing.png"], "missing.png"),
    (["classify", "labels.txt"], "labels.txt"),
    (["saliency", "a.png", "--target", "gren"], "did you mean 'green'"),
    (["saliency", "a.png", "--target", "17"], "classes 0 to 2, not 17"),
    (["saliency", "a.png", "--target", "e"], "'e' fits 'red' (0), 'green' (1), 'blue' (2); say which"),
    (["saliency", "a.png", "--layer", "2"], "layer needs unit"),
    (["saliency", "a.png", "--layer", "2", "--unit", "99"], "has channels 0 to 5, not 99"),
    (["saliency", "a.png", "--signed", "--reduce", "l2"], "reduce l2 has no sign"),
    (["gradcam", "a.png", "--layer", "6"], "has no spatial extent"),
    (["gradcam", "a.png", "--layer", "conv1"], "no layer 'conv1'"),
    (["activations", "a.png", "-o", "x.bmpx"], "must end in one of"),
    (["activations", "a.png", "-o", "nowhere/x.png"], "nowhere"),
    (["classify", "a.png", "--top", "0"], "greater than or equal to 1"),
    (["classify", "a.png", "--input-size", "a,b"], "--input-size takes numbers"),
    (["classify", "a.png", "--mean", "1,2"], "mean"),
    (["classify", "a.png", "--device", "toaster"], "toaster"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_gets_one_line_and_exit_1_and_leaves_no_file(desk: Desk, arguments: list[str], message: str) -> None:
    ran = desk(*arguments, *(desk.common if "--input-size" not in arguments else desk.common[:4]))
    assert ran.status == 1
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not desk.files()


BAD_NETWORKS = [
    (["--network", "nowhere.py:net"], "nowhere.py"),
    (["--network", "nets.py:large"], "large"),
    (["--network", "resnet18"], "torchvision:resnet18"),
    (["--network", "nets.py:small", "--weights", "none.pt"], "none.pt"),
    (["--network", "nets.py:small", "--labels", "none.txt"], "none.txt"),
    (["--network", "nets.py:nan"], "0.weight"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_NETWORKS, ids=[" ".join(b[0]) for b in BAD_NETWORKS])
def test_bad_networks_get_one_line(desk: Desk, arguments: list[str], message: str) -> None:
    ran = desk("classify", "a.png", *arguments, "--input-size", "24,32")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert message in ran.err


def test_wrong_use_exits_2(desk: Desk) -> None:
    assert desk("saliency").status == 2
    assert desk("saliency", "a.png", "--no-such-option").status == 2
    wrong = desk("salience", "a.png")
    assert wrong.status == 2
    assert "did you mean 'saliency'" in wrong.err


def test_debug_shows_the_traceback(desk: Desk) -> None:
    from convscope.errors import ImageError

    with pytest.raises(ImageError):
        desk("classify", "missing.png", *desk.common, "--debug")


def test_an_interrupt_exits_1_and_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("convscope.results.Heatmap._save_picture", interrupted)
    ran = desk("saliency", "a.png", *desk.common)
    assert ran.status == 1
    assert ran.err.splitlines()[-1] == "error: interrupted; nothing was half-written"
    assert not desk.files()


def test_help_lists_every_technique_without_importing_torch() -> None:
    code = """
import sys, runpy
sys.argv = ["convscope", "--help"]
from convscope import cli
try:
    cli.main()
finally:
    assert "torch" not in sys.modules and "matplotlib" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name in ran.stdout for name in [*registry.discover(), "demo"])


class Constant(nn.Module):
    """Scores that do not depend on the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3) + 0 * x.sum((1, 2, 3))[:, None]


def test_a_constant_map_is_said_to_be_constant() -> None:
    result = registry.load("saliency")(Constant(), torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert result.notes == ["the map for class 0 is constant (0): no pixel stands out"]
