"""``label`` and ``predict`` as a person uses them: answers come from standard input."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from convscope import cli
from convscope.behaviour.responses import read_responses
from convscope.behaviour.scoring import WITH, WITHOUT
from convscope.images import read_image

FACTORY = """
import torch
from torch import nn

class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(9 * torch.eye(3).view(3, 3, 1, 1))
    def forward(self, x):
        return self.conv(x).mean((2, 3))

def means():
    return Means()
"""
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


@dataclass
class Desk:
    """A folder with three classes of two pictures, of which one red one is blue, and a way to run commands there."""

    folder: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        common = ["--network", "nets.py:means", "--labels", "labels.txt", "--input-size", "24"]
        self.patch.chdir(self.folder)
        self.patch.setattr(sys, "argv", ["convscope", *arguments, *common, "--subject", "ann"])
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8"))
        self.capture.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = self.capture.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    (tmp_path / "nets.py").write_text(FACTORY)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    for name in COLOURS:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            colour = COLOURS["blue" if (name, number) == ("red", 0) else name]
            Image.new("RGB", (40, 30), colour).save(tmp_path / "photos" / name / f"{number}.png")
    return Desk(tmp_path, monkeypatch, capsys)


def test_a_person_who_is_always_right_beats_the_network(desk: Desk) -> None:
    status, out, _ = desk("label", "photos", "-o", "second.csv", typed="q\n")
    assert (status, out) == (0, "nothing was answered\n")
    # the answers by their order: what is asked is read off a first run that answers nothing
    desk("label", "photos", "-o", "first.csv", typed="\n" * 6)
    right = [row.category for row in read_responses(desk.folder / "first.csv").rows]
    status, out, err = desk("label", "photos", "-o", "second.csv", typed="".join(f"{name[:2]}\n" for name in right))
    assert status == 0, err
    assert "ann: 6 of 6 right, 100% (61% to 100%)" in out
    assert "nets.py:means: 5 of 6 right, 83%" in out
    rows = read_responses(desk.folder / "second.csv").rows
    assert all(row.correct and row.subj == "ann" and row.rt >= 0 for row in rows)
    assert [row.trial for row in rows] == [1, 2, 3, 4, 5, 6]
    shown = read_image(desk.folder / "label.png")
    assert shown.shape[1:] == (24 * 19, 24 * 19)
    assert torch.equal(shown[:, 0, 0], torch.tensor(COLOURS[right[-1]]) / 255) or right[-1] == "red"


def test_numbers_help_and_slips_are_understood(desk: Desk) -> None:
    status, out, err = desk("label", "photos", "--limit", "3", typed="purple\n?\n1\n2\n3\n")
    assert status == 0
    assert "'purple' is none of the names" in err
    assert err.count("1 blue   2 green   3 red") == 4
    assert [row.object_response for row in read_responses(desk.folder / "answers.csv").rows] == ["blue", "green", "red"]
    assert "error consistency" in out


def test_sittings_add_up_and_nothing_is_asked_twice(desk: Desk) -> None:
    desk("label", "photos", typed="1\n1\nq\n")
    status, _, err = desk("label", "photos", typed="2\n" * 9)
    assert status == 0
    rows = read_responses(desk.folder / "answers.csv").rows
    assert [row.session for row in rows] == [1, 1, 2, 2, 2, 2]
    assert len({row.imagename for row in rows}) == 6
    status, _, err = desk("label", "photos", typed="1\n")
    assert (status, "have been answered" in err) == (1, True)


def test_the_table_goes_into_humans(desk: Desk) -> None:
    desk("label", "photos", typed="1\n2\n3\n1\n2\n3\n")
    common = ["--network", "nets.py:means", "--labels", "labels.txt", "--input-size", "24"]
    desk.patch.setattr(
        sys, "argv", ["convscope", "humans", "--responses", "answers.csv", "--pictures", "photos", *common]
    )
    cli.main()
    out = desk.capture.readouterr().out
    assert out.splitlines()[1].startswith("ann")
    assert "83%" in out


def test_predict_shows_the_explanation_half_of_the_time(desk: Desk) -> None:
    desk("predict", "photos", "-o", "first.csv", "--alternatives", "3", typed="\n" * 6)
    first = read_responses(desk.folder / "first.csv").rows
    typed = "".join(f"{row.category if row.condition == WITH else 'green'}\n" for row in first)
    status, out, err = desk("predict", "photos", "-o", "second.csv", "--alternatives", "3", typed=typed)
    assert status == 0, err
    rows = read_responses(desk.folder / "second.csv").rows
    assert [row.condition for row in rows].count(WITH) == [row.condition for row in rows].count(WITHOUT) == 3
    assert {row.imagename: row.category for row in rows}["photos/red/0.png"] == "blue"
    assert "ann, explanation: 100% (44% to 100%) of 3 guessed" in out
    assert "difference" in out
    wide = read_image(desk.folder / "predict.png").shape[2] > 24 * 19
    assert wide == (rows[-1].condition == WITH)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["label", "photos/red"], "holds no folders of classes"),
        (["label", "photos", "-o", "nowhere/a.csv"], "there is no folder nowhere; make it"),
        (["label", "photos", "-o", "labels.txt"], "lacks the column"),
        (["predict", "photos", "--method", "gradcm"], "'gradcm' is no technique that explains an answer; did you mean"),
    ],
)
def test_bad_input_gets_a_remedy(desk: Desk, arguments: list[str], remedy: str) -> None:
    status, _, err = desk(*arguments)
    assert status == 1
    assert remedy in err
    assert err.startswith("error: ")
