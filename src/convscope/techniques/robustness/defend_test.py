from __future__ import annotations

import pytest
import torch
from torch import Tensor

from convscope.defences import defence
from convscope.errors import OptionError
from convscope.network import Network
from convscope.robust.smoothing import lower_bound, radius
from convscope.techniques.robustness.defend import defend

SMALL = {"by": ["bits:3", "noise:0.05"], "steps": 3, "draws": 50, "epsilon": 0.1}


@pytest.fixture
def network(victim: Network) -> Network:
    victim.module.float()
    return Network(victim.module, mean=victim.mean.float(), std=victim.std.float(), labels=victim.labels,
                   name="victim", input_size=(8, 9), precision="float32")  # fmt: skip


def test_tiles_are_what_enters_and_summaries_what_comes_out(network: Network, images: Tensor) -> None:
    images = images.float()[:2]
    found = defend(network, images, **SMALL)
    grid = (images * 255).round() / 255
    assert found.values.shape == (2, 3, 3, 3, 8, 9)
    assert torch.equal(found.values[:, 0, 0], grid)
    assert torch.equal(found.values[:, 0, 1], defence("bits:3")(grid))
    assert torch.equal(found.values[:, 0, 2], defence("noise:0.05", seed=1)(grid).clamp(0, 1))
    for summary, picture in zip(found.summaries, grid, strict=True):
        plain, squeezed, noisy = summary["defences"]
        behind = network.defended("noise:0.05", seed=1)
        for said, seen in ((plain, network), (squeezed, network.defended("bits:3")), (noisy, behind)):
            shares = seen(picture[None]).softmax(1)[0]
            assert said["photograph"]["index"] == int(shares.argmax())
            assert said["photograph"]["probability"] == pytest.approx(float(shares.amax().detach()), abs=1e-5)
        distance = network(picture[None]).softmax(1) - network.defended("bits:3")(picture[None]).softmax(1)
        assert squeezed["moved"] == pytest.approx(float(distance.abs().sum().detach()), abs=1e-5)


def test_attacks_stay_within_the_budget(network: Network, images: Tensor) -> None:
    images = images.float()
    found = defend(network, images, by="bits:8", steps=5, epsilon=0.1)
    grid = (images * 255).round() / 255
    for row in (1, 2):
        assert float((found.values[:, row, 0] - grid).abs().max()) <= 0.1 + 1e-6
    told = [summary["defences"][0] for summary in found.summaries]
    assert sum(each["naive"]["index"] != each["photograph"]["index"] for each in told) >= 3
    assert not torch.equal(found.values[:, 1, 1], found.values[:, 0, 1])


def test_the_attack_that_knows_the_defence_does_better(network: Network, images: Tensor) -> None:
    found = defend(network, images.float(), by=["bits:1", "resize-pad:0.6"], steps=20, epsilon=0.25)
    naive, adaptive = (
        sum(d[case]["index"] != d["photograph"]["index"] for s in found.summaries for d in s["defences"][1:])
        for case in ("naive", "adaptive")
    )
    assert adaptive > naive


def test_the_certificate_is_the_papers(network: Network, images: Tensor) -> None:
    found = defend(network, images.float()[:1], **SMALL, alpha=0.01)
    said = found.summary["defences"][2]["certificate"]
    assert said["draws"] == 50
    bound = lower_bound(said["votes"], 50, 0.01)
    assert said["share"] == pytest.approx(bound)
    assert said["radius"] == pytest.approx(radius(bound, 0.05))
    assert "certificate" not in found.summary["defences"][1]


def test_what_is_taken_for_another_class_is_marked(network: Network, images: Tensor) -> None:
    found = defend(network, images.float(), **SMALL)
    for group, summary in enumerate(found.summaries):
        wrong = [said[case]["label"] != summary["label"]
                 for case in ("photograph", "naive", "adaptive") for said in summary["defences"]]  # fmt: skip
        assert found.marks[group].tolist() == wrong


def test_errors_say_what_to_do(network: Network, images: Tensor) -> None:
    with pytest.raises(OptionError, match="leave out --defence, and use --by"):
        defend(network.defended("bits:2"), images.float())
    with pytest.raises(OptionError, match="no defence 'foam'"):
        defend(network, images.float(), by="foam")
