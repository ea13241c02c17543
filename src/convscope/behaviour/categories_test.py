from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convscope.behaviour.categories import choices_for, entry_level, knows_imagenet
from convscope.errors import OptionError
from convscope.network import Network

SHARED = Path(__file__).resolve().parents[4] / "shared"


class Fixed(nn.Module):
    """Says the same to every picture."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def network(logits: Tensor, labels: tuple[str, ...] = ()) -> Network:
    return Network(Fixed(logits), labels=labels, name="fixed", input_size=(8, 8))


def imagenet(**logits: float) -> Network:
    """A thousand classes, those in ``entry_level`` named; ``i404=5.0`` sets a logit."""
    labels = [f"class {index}" for index in range(1000)]
    for classes in entry_level().values():
        for index, label in classes.items():
            labels[index] = label
    values = torch.zeros(1000)
    for name, value in logits.items():
        values[int(name[1:])] = value
    return network(values, tuple(labels))


def test_sixteen_categories_of_207_classes() -> None:
    counts = {name: len(classes) for name, classes in entry_level().items()}
    assert counts == {
        "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6, "chair": 4,
        "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8,
    }  # fmt: skip
    every = [index for classes in entry_level().values() for index in classes]
    assert len(set(every)) == len(every) == 207


@pytest.mark.real
def test_the_labels_are_imagenets() -> None:
    names = json.loads((SHARED / "models" / "imagenet_classes.json").read_text())
    assert all(names[index] == label for classes in entry_level().values() for index, label in classes.items())


def test_a_category_counts_by_the_mean_of_its_classes() -> None:
    """109 dogs at two thirds of the airliner's odds have far more in sum, and less on average."""
    dogs = {f"i{index}": 2.6 for index in entry_level()["dog"]}
    net = imagenet(i404=3.0, **dogs)
    found = choices_for(net, ["cat", "dog"])
    assert found.names == tuple(entry_level())
    logits = net(torch.rand(2, 3, 8, 8)).detach()
    shares, p = found.shares(logits)[0], logits[0].double().softmax(0)
    by_hand = [sum(float(p[i]) for i in classes) / len(classes) for classes in entry_level().values()]
    torch.testing.assert_close(shares, torch.tensor(by_hand, dtype=torch.float64))
    assert float(p[list(entry_level()["dog"])].sum()) > 10 * float(p[404])
    assert found.answers(logits) == ("airplane", "airplane")


def test_labels_stand_for_themselves_elsewhere() -> None:
    net = network(torch.tensor([0.0, 5.0, 1.0, 2.0]), ("wild_cat", "ant", "elephant", "bee"))
    found = choices_for(net, ["elephant", "cat"])
    assert (found.names, found.classes) == (("cat", "elephant"), ((0,), (2,)))
    assert found.answers(net(torch.rand(1, 3, 8, 8))) == ("elephant",)


def test_imagenet_is_told_by_its_labels() -> None:
    assert knows_imagenet(imagenet())
    assert knows_imagenet(network(torch.zeros(1000)))
    assert not knows_imagenet(network(torch.zeros(1000), tuple(f"class {i}" for i in range(1000))))
    assert not knows_imagenet(network(torch.zeros(16), tuple(entry_level())))
    assert choices_for(imagenet(), ["tabby", "airliner"]).classes == ((404,), (281,))


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["cat", "boat"], "fixed knows no 'boat'.*name its folder"),
        (["boat", "car", "ant"], "fixed lacks 2 of 3 names: boat, car"),
        (["ant"], "at least two classes"),
        (["cat", "wild_cat"], "cat and wild_cat are one class"),
    ],
)
def test_names_that_leave_no_choice_get_a_remedy(names: list[str], remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        choices_for(network(torch.zeros(3), ("wild_cat", "ant", "elephant")), names)
