from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import ImageError, OptionError
from convscope.evaluate import robustness as bench
from convscope.evaluate.robustness import Subject, budget, corruption, read_subjects, robustness
from convscope.images import write_image
from convscope.intervals import proportion
from convscope.network import Network
from convscope.robust.corruptions import corrupted
from convscope.zoo.options import seeded


class Template(nn.Module):
    """Class scores are inner products with a pattern a class: what a linear attack does to it is exact."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(3):
            self.weight = nn.Parameter(torch.randn(3, 3 * 16 * 16).sign() / 100)

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T


@pytest.fixture
def subject() -> Subject:
    network = Network(Template().eval(), labels=("ant", "bee", "cat"), name="linear", input_size=(16, 16),
                      precision="float32")  # fmt: skip
    labels = torch.arange(12) % 3
    strength = torch.linspace(0.002, 0.04, 12).view(-1, 1, 1, 1)
    patterns = network.module.weight.detach()[labels].view(-1, 3, 16, 16).sign()
    images = ((0.5 + strength * patterns) * 255).round() / 255
    return Subject(network, images, labels, [f"{n}.png" for n in range(12)])


def by_hand(subject: Subject, levels: int) -> int:
    """How many stand: against another class, the best change of a linear network is sign(w_other - w_own)."""
    weight = subject.network.module.weight.detach()
    right = 0
    for image, label in zip(subject.images, subject.labels.tolist(), strict=True):
        stands = bool(subject.network(image[None]).argmax() == label)
        for other in (each for each in range(3) if each != label):
            step = (weight[other] - weight[label]).view(3, 16, 16).sign()
            moved = (image + step * levels / 255).clamp(0, 1)
            stands &= bool(subject.network(moved[None]).argmax() == label)
        right += stands
    return right


def test_of_a_linear_network_the_curve_is_known(subject: Subject) -> None:
    epsilons = [1 / 255, 3 / 255, 6 / 255]
    found = robustness([subject], epsilons=epsilons, steps=10)
    expected = [by_hand(subject, levels) for levels in (0, 1, 3, 6)]
    assert found.summary["series"][0]["right"] == expected
    assert expected[0] == 12
    assert 0 < expected[2] < 12
    assert found.points == ["clean", "1/255", "3/255", "6/255"]
    for column, hits in enumerate(expected):
        share = proportion(hits, 12)
        assert float(found.values[0, column]) == pytest.approx(share.mean)
        assert (float(found.lows[0, column]), float(found.highs[0, column])) == pytest.approx((share.low, share.high))


def test_a_defence_gets_both_curves_and_the_one_that_knows_it_is_lower(subject: Subject) -> None:
    found = robustness([subject], defences=["bits:3", "noise:0.02"], epsilons=[2 / 255, 6 / 255], steps=10, draws=2)
    assert found.series == ["linear", "linear + bits:3, naive", "linear + bits:3", "linear + noise:0.02, naive",
                            "linear + noise:0.02"]  # fmt: skip
    assert found.dashed == [name for name in found.series if name.endswith("naive")]
    said = dict(zip(found.series, found.summary["series"], strict=True))
    assert said["linear + bits:3"]["attack_knows_defence"]
    assert not said["linear + bits:3, naive"]["attack_knows_defence"]
    clean = int(subject.right(subject.network.defended("bits:3"), subject.images).sum())
    assert said["linear + bits:3"]["right"][0] == said["linear + bits:3, naive"]["right"][0] == clean
    assert all(row["right"] == sorted(row["right"], reverse=True) for row in said.values())
    assert all(said[name]["percent_that_fall_without_bound"] == 100 for name in ("linear", "linear + noise:0.02"))
    assert [label for label, _, _ in found.panels] == ["accuracy", "linear"]
    assert json.loads(found.to_json())["series"][0]["of"] == 12


def test_who_knows_a_defence_is_never_the_weaker_one(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack through the defence that finds nothing: what falls to who does not know it has fallen all the same."""
    made = bench._Plan.pictures

    def lost(plan: bench._Plan, network: Network, given: Subject, *rest: Any) -> Tensor:
        return given.images if network.defence else made(plan, network, given, *rest)

    monkeypatch.setattr(bench._Plan, "pictures", lost)
    found = robustness([subject], defences=["bits:7"], epsilons=[2 / 255, 6 / 255], steps=10)
    _, naive, adaptive = found.summary["series"]
    assert adaptive["right_attacked_through_it_alone"] == [adaptive["right"][0]] * 3
    assert adaptive["right"] == naive["right"]
    assert naive["right"][-1] < naive["right"][0]
    assert any("bits:7 in front of linear is by itself weaker" in note for note in found.notes)


class Hiding(nn.Module):
    """Rounds its input, so that it has no gradient: the kind of masking that the check is for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 1000).round() / 1000 + 0 * x)


def test_hidden_gradients_are_said(subject: Subject) -> None:
    hiding = replace(subject, network=replace(subject.network, module=Hiding(subject.network.module), name="hiding"))
    found = robustness([hiding], epsilons=[6 / 255], steps=10)
    assert any("hiding" in note and "gradients are still hidden" in note for note in found.notes)
    assert not any("hidden" in note for note in robustness([subject], epsilons=[6 / 255], steps=10).notes)


def test_spoiled_pictures_are_counted(subject: Subject) -> None:
    found = corruption([subject], names=["gaussian-noise", "contrast"], defences=["bits:4"], seed=2)
    assert found.methods == ["linear", "linear behind bits:4"]
    assert found.each == "network"
    assert found.measures == ["clean", "all corruptions", "noise", "digital"]
    said = found.summary["networks"][0]["right"]
    for name in ("gaussian-noise", "contrast"):
        expected = []
        for severity in range(1, 6):
            spoiled = (corrupted(subject.images, name, severity, seed=2) * 255).round() / 255
            expected.append(int((subject.network(spoiled).argmax(1) == subject.labels).sum()))
        assert said[name] == expected
    assert float(found.values[0, 2]) == pytest.approx(round(sum(said["gaussian-noise"]) / 5) / 12)


def test_photographs_are_read_for_each_network(tmp_path: Path) -> None:
    networks = []
    for name, side in (("one", 16), ("two", 24)):
        module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)).eval()
        networks.append(Network(module, labels=("ant", "bee"), name=name, input_size=(side, side)))
    for number in range(6):
        place = tmp_path / ("ant", "bee")[number % 2]
        place.mkdir(exist_ok=True)
        write_image(torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(number)), place / f"{number}.png")
    first, second = read_subjects(networks, [tmp_path], limit=4)
    assert len(first) == len(second) == 4
    assert first.files == second.files
    assert first.labels.tolist() == [("ant", "bee").index(Path(path).parent.name) for path in first.files]
    assert second.images.shape == (4, 3, 24, 24)
    with pytest.raises(OptionError, match=r"two has no class 'ant'.*1 of 2 folders do"):
        read_subjects([networks[0], replace(networks[1], labels=("bee", "cat"))], [tmp_path])
    with pytest.raises(ImageError, match="there are no pictures"):
        read_subjects(networks, [])


def test_bad_options_get_sentences(subject: Subject) -> None:
    with pytest.raises(OptionError, match="epsilons lie from 1/255"):
        robustness([subject], epsilons=[8.0])
    with pytest.raises(OptionError, match="no defence 'foam'"):
        robustness([subject], defences=["foam:3"])
    with pytest.raises(OptionError, match="two networks are called 'linear'"):
        robustness([subject, subject])
    assert budget(4 / 255) == "4/255"
    assert budget(0.1) == "0.1"
