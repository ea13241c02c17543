"""The commands around styles: stylize on pictures and films, train-style, augment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor
from torch.testing import assert_close

from convscope.cli.commands.train_style import TRAINING
from convscope.cli.group import main_group
from convscope.errors import ConvscopeError
from convscope.feedforward.files import read_recipe, read_stylist, save_stylist, shipped
from convscope.feedforward.stylist import Shape, Stylist
from convscope.feedforward.training import Recipe
from convscope.films_test import make, read
from convscope.images import read_image, write_image
from convscope.zoo.options import seeded


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def run(*words: Any) -> Result:
    found = CliRunner().invoke(main_group, [str(word) for word in words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.safetensors"
    with seeded(2):
        save_stylist(path, Stylist(Shape(1, (4, 6), 1, 4), ["toy"]), {})
    return path


def test_help_lists_the_shipped_styles() -> None:
    shown = " ".join(run("stylize", "--help").output.split())
    assert all(name in shown for name in shipped())


def test_a_folder_is_painted_each_at_its_own_size(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        write_image(drawn(3, 20 + number, 24, seed=number), folder / f"{number}.png")
    run("stylize", folder, "--style", toy, "--scale", 1, "-o", tmp_path / "out.png", "-q")
    for number in range(2):
        expected = read_stylist(toy)(read_image(folder / f"{number}.png")[None], 0)[0]
        assert_close(read_image(tmp_path / f"out-{number + 1}.png"), expected, rtol=0, atol=3 / 255)  # bfloat16


def test_a_film_is_painted_frame_by_frame(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    make(tmp_path / "in.mp4", 3)
    done = run("stylize", tmp_path / "in.mp4", "--style", toy, "--size", 24, "-o", tmp_path / "out.mp4")
    assert "3 frames of 24x18, " in " ".join(done.stderr.split())
    assert "a second" in " ".join(done.stderr.split())
    assert [frame.shape for frame in read(tmp_path / "out.mp4")[1]] == [(18, 24, 3)] * 3
    with pytest.raises(ConvscopeError, match="one film at a time"):
        run("stylize", tmp_path / "in.mp4", tmp_path / "in.mp4", "--style", toy, "-o", tmp_path / "x.mp4")


def test_train_style_writes_a_style_that_stylize_takes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        write_image(drawn(3, 40, 48, seed=number), folder / f"{number}.png")
    write_image(drawn(3, 64, 64), tmp_path / "red.png")
    write_image(drawn(3, 70, 64), tmp_path / "blue.png")
    path = tmp_path / "mine.safetensors"
    options = ("--photos", folder, "--size", 64, "--style-size", 64, "--batch", 1, "--style-layer", "relu2_2", "-q")
    run("train-style", tmp_path / "red.png", tmp_path / "blue.png", "-o", path, "--steps", 2, "--seed", 4, *options)
    recipe = read_recipe(path)
    assert (recipe["steps"], recipe["seed"], recipe["network"], recipe["steps_done"]) == (2, 4, "builtin", 2)
    assert list(recipe["paintings"]) == ["red.png", "blue.png"]
    with pytest.raises(ConvscopeError, match="the same name"):
        run("train-style", tmp_path / "red.png", folder / ".." / "red.png", "-o", path, "--photos", folder)
    assert recipe["content_layers"] == ["relu3_2"]
    run("stylize", folder / "0.png", "--style", f"{path}:blue", "-o", tmp_path / "painted.png", "-q")
    assert read_image(tmp_path / "painted.png").shape == (3, 40, 48)


def test_the_commands_defaults_are_the_recipes() -> None:
    for name, about in TRAINING.items():
        if "default" in about:
            assert getattr(Recipe(), name) == about["default"]


def test_augment_says_what_it_skipped(toy: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        write_image(drawn(3, 20, 24), tmp_path / "photos" / name / "0.png")
    (tmp_path / "photos" / "dog" / "broken.png").write_bytes(b"no picture")
    done = run("augment", tmp_path / "photos", "-o", tmp_path / "out", "--style", toy)
    assert "skipped dog/broken.png" in " ".join(done.stderr.split())
    assert "wrote 2 pictures" in done.stderr
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "cat/0.png", "dog/0.png"
    ]  # fmt: skip
    assert "wrote 0 pictures" in run("augment", tmp_path / "photos", "-o", tmp_path / "out", "--style", toy).stderr
