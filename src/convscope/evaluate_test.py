"""``convscope evaluate`` as a user meets it: options, what is printed where, files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from convscope import cli
from convscope.evaluate.conftest import COLOURS, spots
from convscope.images import write_image

FACTORY = """
from convscope.evaluate.conftest import Colours

def colours():
    return Colours()
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Here lie a network, its labels, and photographs in folders of their classes' names."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(FACTORY)
    Path("labels.txt").write_text("\n".join(COLOURS))
    for number, image in enumerate(spots()[0]):
        where = Path("photographs", COLOURS[number % 4])
        where.mkdir(parents=True, exist_ok=True)
        write_image(image, where / f"{number}.png")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["convscope", "evaluate", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


NETWORK = ("--network", "nets.py:colours", "--labels", "labels.txt", "--input-size", "16")


def test_a_folder_becomes_a_picture_numbers_and_json(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(
        monkeypatch, "photographs", *NETWORK, "--methods", "gradcam, gradient-x-input", "--measures", "grid,insertion",
        "-o", "found.png", "--raw", "found.npz", "--json", "--limit", "6", "--seed", "2",
    )  # fmt: skip
    captured = capsys.readouterr()
    assert status == 0, captured.err
    found = json.loads(captured.out)
    assert [m["name"] for m in found["methods"]] == ["gradcam", "gradient-x-input", "(noise)", "(middle)"]
    assert len(found["pictures"]) == 6
    assert found["provenance"]["seed"] == 2
    assert found["provenance"]["loaded"]["network"] == "nets.py:colours"
    assert len(found["provenance"]["digests"]) == 6
    assert "note: 6 of 8 photographs, drawn by seed 2" in captured.err
    assert (desk / "found.png").stat().st_size > 10_000
    with np.load("found.npz") as saved:
        assert saved["values"].shape == (4, 3)


def test_the_table_is_printed_and_no_file_left(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(desk.iterdir())
    assert run(monkeypatch, "photographs", *NETWORK, "--methods", "gradcam", "--measures", "grid") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "method"
    assert [line.split()[0] for line in lines[1:]] == ["gradcam", "(noise)", "(middle)"]
    assert {path for path in desk.iterdir() if path.name != "__pycache__"} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "evaluate takes photographs or a folder of them, or else --planted"),
        (("photographs", "--planted"), "or else --planted"),
        (("photographs", *NETWORK, "--methods", "nothing"), "there is no technique 'nothing'"),
        (
            ("photographs", *NETWORK, "--measures", "inside", "--methods", "gradcam", "--masks", "."),
            "says nothing of these",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    if "--masks" in arguments:
        (desk / "masks").mkdir()
        write_image(torch.zeros(3, 16, 16), desk / "masks" / "other.png")
        arguments = (*arguments[:-1], "masks")
    assert run(monkeypatch, *arguments) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.strip().count("\n") == 0
