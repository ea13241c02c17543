from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.behaviour.responses import NO_ANSWER
from convscope.behaviour.scoring import WITH, WITHOUT, accuracy
from convscope.behaviour.study import as_shown, label_study, predict_study, understood
from convscope.errors import ConvscopeError
from convscope.images import write_image
from convscope.network import Network

LABELS = ("red", "green", "blue")


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.mean((2, 3))


NETWORK = Network(Means(), labels=LABELS, name="means", input_size=(8, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of each class; one blue picture lies among the red ones."""
    for place, name in enumerate(LABELS):
        (tmp_path / name).mkdir()
        for number in range(4):
            picture = torch.full((3, 12, 12), 0.1 + 0.02 * number)
            picture[2 if (name, number) == ("red", 0) else place] = 0.9
            write_image(picture, tmp_path / name / f"{number}.png")
    return tmp_path


def test_label_asks_as_many_of_each_class_in_no_order(folder: Path) -> None:
    study = label_study(NETWORK, folder, limit=6, seed=1)
    rights = [question.right for question in study.questions]
    assert sorted(rights) == ["blue", "blue", "green", "green", "red", "red"]
    assert rights != sorted(rights)
    assert all(q.names == ("blue", "green", "red") and q.picture.shape == (3, 8, 8) for q in study.questions)
    again = label_study(NETWORK, folder, limit=6, seed=1)
    assert [q.name for q in again.questions] == [q.name for q in study.questions]
    assert [q.name for q in label_study(NETWORK, folder, limit=6, seed=2).questions] != [
        q.name for q in study.questions
    ]


def test_the_network_is_scored_on_the_same_pictures(folder: Path) -> None:
    study = label_study(NETWORK, folder, limit=99)
    assert len(study.questions) == 12
    assert [row.imagename for row in study.network] == [q.name for q in study.questions]
    assert accuracy(study.network).mean == 11 / 12
    wrong = [row for row in study.network if not row.correct]
    assert [(row.imagename, row.object_response) for row in wrong] == [("red/0.png", "blue")]


def test_what_was_answered_is_not_asked_again(folder: Path) -> None:
    first = [q.name for q in label_study(NETWORK, folder, limit=9).questions]
    second = [q.name for q in label_study(NETWORK, folder, limit=9, done=first).questions]
    assert len(second) == 3
    assert not set(first) & set(second)
    with pytest.raises(ConvscopeError, match="have been answered"):
        label_study(NETWORK, folder, limit=9, done=[*first, *second])


def test_of_many_classes_sixteen_are_drawn(tmp_path: Path) -> None:
    labels = tuple(f"class{chr(97 + n)}" for n in range(20))
    for name in labels:
        (tmp_path / name).mkdir()
        write_image(torch.rand(3, 9, 9), tmp_path / name / "a.png")
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 20))
    network = Network(module, labels=labels, name="many", input_size=(8, 8))
    assert len(label_study(network, tmp_path, limit=50).questions) == 16
    assert {q.right for q in label_study(network, tmp_path, limit=50, classes=labels[:2]).questions} == set(labels[:2])


def test_predict_hides_the_answer_and_shows_half_of_the_explanations(folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    study = predict_study(NETWORK, paths, limit=10, alternatives=3, seed=3)
    assert (
        [q.condition for q in study.questions].count(WITH) == [q.condition for q in study.questions].count(WITHOUT) == 5
    )
    for question, row in zip(study.questions, study.network, strict=True):
        with torch.no_grad():
            assert question.right == LABELS[int(NETWORK(question.picture[None]).argmax())]
        assert sorted(question.names) == sorted(LABELS)
        assert row.correct
    assert len({question.names.index(question.right) for question in study.questions}) > 1
    assert len(predict_study(NETWORK, paths, limit=3, alternatives=2).questions[0].names) == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2", "wild_cat"), ("wild cat", "wild_cat"), ("WILD", "wild_cat"), ("catfish", "catfish"), ("", NO_ANSWER),
        ("  ", NO_ANSWER), ("fish", "catfish"), ("cat", "cat"), ("ca", None), ("bee", None), ("9", None), ("0", None),
    ],
)  # fmt: skip
def test_what_was_typed(typed: str, meant: str | None) -> None:
    assert understood(typed, ["cat", "wild_cat", "catfish"]) == meant


def test_pictures_are_shown_enlarged_side_by_side() -> None:
    one, two = torch.rand(3, 64, 80), torch.rand(3, 64, 80)
    shown = as_shown([one, two])
    assert shown.shape == (3, 64 * 7, (80 + 4 + 80) * 7)
    assert torch.equal(shown[:, ::7, : 80 * 7 : 7], one)
    assert torch.equal(shown[:, ::7, 84 * 7 :: 7], two)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda folder: label_study(NETWORK, folder / "red", limit=3), "holds no folders of classes"),
        (
            lambda folder: label_study(NETWORK, folder, limit=3, classes=["gren"]),
            "has no class 'gren'; did you mean 'green'",
        ),
        (
            lambda folder: predict_study(Network(Means(), name="bare"), [folder / "red" / "0.png"], limit=1),
            "has no labels",
        ),
        (lambda folder: predict_study(NETWORK, [], limit=1), "have been answered"),
    ],
)
def test_bad_input_gets_a_remedy(folder: Path, make: Any, remedy: str) -> None:
    with pytest.raises(ConvscopeError, match=remedy):
        make(folder)
