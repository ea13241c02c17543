from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.behaviour.responses import COLUMNS
from convscope.errors import ConvscopeError
from convscope.images import write_image
from convscope.network import Network
from convscope.techniques.robustness.humans import humans

LABELS = ("red", "green", "blue")


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.mean((2, 3))


NETWORK = Network(Means(), labels=LABELS, name="means", input_size=(8, 8))


def painted(colour: str) -> Tensor:
    picture = torch.full((3, 8, 8), 0.2)
    picture[LABELS.index(colour)] = 0.9
    return picture


#: by picture: the category, and what the network sees in it
TRUTH = ("red", "red", "red", "red", "green", "green", "green", "blue", "blue", "blue")
SEEN = ("red", "red", "red", "blue", "green", "green", "red", "blue", "blue", "red")
ANN = ("red", "red", "red", "blue", "green", "green", "na", "blue", "green", "blue")
BOB = ("red", "red", "red", "red", "green", "blue", "green", "blue", "blue", "na")


def rows(subj: str, answers: tuple[str, ...], condition: str = "") -> list[str]:
    return [
        f"{subj},1,{n},0.4,{answer},{truth},{condition},{n}.png"
        for n, (truth, answer) in enumerate(zip(TRUTH, answers, strict=True))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for number, colour in enumerate(SEEN):
        write_image(painted(colour), tmp_path / "pictures" / f"{number}.png")
    return tmp_path


def table(folder: Path, lines: list[str]) -> Path:
    path = folder / "answers.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_accuracy_confusion_and_consistency_by_hand(folder: Path) -> None:
    path = table(folder, [*rows("ann", ANN), *rows("bob", BOB)])
    result = humans(NETWORK, responses=path, pictures=folder / "pictures")
    assert [row[:3] for row in result.rows] == [["ann", 10, "70%"], ["bob", 10, "80%"], ["means", 10, "70%"]]
    # network right on 0 1 2 4 5 7 8, ann on 0 1 2 4 5 7 9: both right 6, both wrong 2
    with_ann = (0.8 - (0.7 * 0.7 + 0.3 * 0.3)) / (1 - 0.58)
    # bob right on all but 5 and 9: both right 0 1 2 4 7 8, both wrong 9
    with_bob = (0.7 - (0.7 * 0.8 + 0.3 * 0.2)) / (1 - 0.62)
    # ann and bob: both right 0 1 2 4 7, neither none
    among = (0.5 - (0.7 * 0.8 + 0.3 * 0.2)) / (1 - 0.62)
    assert result.values[:, 3].tolist() == pytest.approx([with_ann, with_bob, (with_ann + with_bob) / 2])
    summary = result.summaries[0]
    assert summary["consistency"]["people with network"] == pytest.approx((with_ann + with_bob) / 2)
    assert summary["consistency"]["people with people"] == pytest.approx(among)
    assert result.names == ["blue", "green", "red"]
    assert result.confusions[1].tolist() == [[2, 0, 1, 0], [0, 2, 1, 0], [1, 0, 3, 0]]
    assert result.confusions[0].tolist() == [[4, 1, 0, 1], [1, 4, 0, 1], [1, 0, 7, 0]]
    assert summary["accuracy"] == {"people": 0.75, "network": 0.7}


def test_the_network_may_say_what_people_said_in_error(folder: Path) -> None:
    reds = [
        f"ann,1,{n},0.4,{answer},{truth},,{n}.png" for n, truth, answer in ((0, "red", "red"), (4, "green", "blue"))
    ]
    shown = {"0.png": painted("red"), "4.png": painted("blue")}
    result = humans(NETWORK, responses=table(folder, reds), pictures=shown)
    assert [row[:3] for row in result.rows][-1] == ["means", 2, "50%"]  # of two names it would have said green


def test_conditions_are_taken_apart_and_averaged(folder: Path) -> None:
    lines = [*rows("ann", ANN, "a"), *(line.replace(",a,", ",b,") for line in rows("ann", SEEN, "a"))]
    (folder / "pictures" / "b").mkdir()
    for number, colour in enumerate(SEEN):
        write_image(painted(colour), folder / "pictures" / "b" / f"{number}.png")
    result = humans(NETWORK, responses=table(folder, lines), pictures=folder / "pictures")
    with_ann = (0.8 - 0.58) / 0.42
    assert float(result.values[0, 3]) == pytest.approx((with_ann + 1) / 2)
    found = {each["condition"]: each for each in result.summaries[0]["conditions"]}
    assert (found["a"]["people"], found["b"]["people"], found["b"]["network"]) == (0.7, 0.7, 0.7)
    assert (found["a"]["consistency"], found["b"]["consistency"]) == (pytest.approx(with_ann), pytest.approx(1.0))
    assert len(result.rows) == 2
    assert result.rows[1][1] == 20


def test_rows_and_pictures_that_cannot_be_used_are_counted_and_named(folder: Path) -> None:
    path = table(folder, [*rows("ann", ANN), "ann,1,x,0.4,red,red,,9.png", "ann,1,11,0.4,red,red,,gone.png"])
    result = convscope.humans(NETWORK, responses=path, pictures=folder)
    assert result.notes[0].startswith("1 of 12 rows was skipped: line 12 (trial 'x' is no whole number)")
    assert result.notes[1].startswith(
        "1 of 11 pictures are not there, so their answers are left out (the first is gone"
    )
    assert result.summaries[0]["skipped"] == [{"line": 12, "reason": "trial 'x' is no whole number"}]
    assert result.rows[0][1] == 10


def test_rows_and_pictures_in_memory_do_as_well(folder: Path) -> None:
    lines = rows("ann", ANN)
    given = [dict(zip(COLUMNS, line.split(","), strict=True)) for line in lines]
    pictures = {f"{number}.png": painted(colour) for number, colour in enumerate(SEEN)}
    first = humans(NETWORK, responses=given, pictures=pictures)
    second = humans(NETWORK, responses=table(folder, lines), pictures=folder)
    assert torch.equal(first.values.nan_to_num(), second.values.nan_to_num())


def test_somebody_who_never_errs_has_no_consistency(folder: Path) -> None:
    pictures = {f"{number}.png": painted(truth) for number, truth in enumerate(TRUTH)}
    given = [dict(zip(COLUMNS, line.split(","), strict=True)) for line in rows("ann", TRUTH)]
    result = convscope.humans(NETWORK, responses=given, pictures=pictures)
    assert math.isnan(float(result.values[0, 3]))
    assert result.summaries[0]["consistency"]["people with network"] is None
    assert result.save(folder / "humans.png").stat().st_size > 10_000
    assert '"people with network": null' in result.to_json()


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, r"--responses FILE.csv --pictures FOLDER"),
        ({"responses": "ABSENT", "pictures": "."}, "cannot be read as a table of answers"),
        ({"responses": "HEADLESS", "pictures": "."}, "lacks the column subj"),
        ({"responses": "GOOD", "pictures": "EMPTY"}, "none of the pictures is there, the first being '0.png'"),
        ({"responses": "CATS", "pictures": "."}, "means knows no 'cat'"),
        ({"responses": [], "pictures": {}}, "there is no answer among the responses"),
    ],
)
def test_bad_input_gets_a_remedy(folder: Path, options: dict[str, Any], remedy: str) -> None:
    (folder / "EMPTY").mkdir()
    (folder / "HEADLESS").write_text("a,b\n1,2\n")
    table(folder, rows("ann", ANN)).rename(folder / "GOOD")
    table(folder, ["ann,1,1,0.4,cat,cat,,0.png", "ann,1,2,0.4,red,red,,1.png"]).rename(folder / "CATS")
    given = {name: folder / value if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ConvscopeError, match=remedy) as caught:
        humans(NETWORK, **given)
    assert "\n" not in str(caught.value)
