from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network
from convscope.techniques.robustness import deepfool as module
from convscope.techniques.robustness._attack import task
from convscope.techniques.robustness._attack_test import Bare
from convscope.techniques.robustness.deepfool import deepfool


@pytest.fixture
def linear() -> Network:
    """Four classes whose boundaries are planes, on pictures of 6x5, all scores close to each other."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(90, 4).double()
    layer.weight.data = 0.4 * torch.randn(4, 90, generator=generator, dtype=torch.float64)
    layer.bias.data = torch.tensor([0.3, 0.1, -0.2, 0.0], dtype=torch.float64)
    module = nn.Sequential(nn.Flatten(), layer)
    half = torch.full((3,), 0.5, dtype=torch.float64)
    return Network(module, mean=half, std=2 * half, labels=("a", "b", "c", "d"), name="linear", input_size=(6, 5))


def middling(count: int = 4, size: tuple[int, int] = (6, 5)) -> Tensor:
    """Pictures so far from black and white that nothing is cut."""
    noise = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return (((0.4 + 0.2 * noise) * 255).round() / 255).float().double()


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1)])
def test_between_planes_the_distance_is_known(linear: Network, norm: Any, dual: int) -> None:
    images = middling()
    found = deepfool(linear, images, norm=norm, overshoot=1e-6)
    weight, bias = linear.module[1].weight.detach(), linear.module[1].bias.detach()
    for summary, image in zip(found.summaries, images, strict=True):
        scores = weight @ (image.flatten() - 0.5) + bias
        own = int(scores.argmax())
        planes = [
            float((scores[own] - scores[k]) / (weight[own] - weight[k]).norm(p=dual)) for k in range(4) if k != own
        ]
        assert summary["boundary"] == pytest.approx(min(planes), rel=1e-5)
        assert summary["label"] == "abcd"[own]
        length = float(image.norm()) if norm == "l2" else float(image.max())
        assert summary["robustness"] == pytest.approx(min(planes) / length, rel=1e-5)


def by_hand(network: Network, image: Tensor, candidates: int, overshoot: float, norm: str) -> Tensor:
    """Algorithm 2 for one picture, one class at a time."""
    order = network(image[None])[0].argsort(descending=True)[:candidates].tolist()
    here = image.clone()
    for _ in range(50):
        moved = here.clone().requires_grad_()
        logits = network(moved[None])[0]
        if int(logits.argmax()) != order[0]:
            break
        ways = []
        for k in order[1:]:
            (w,) = torch.autograd.grad(logits[k] - logits[order[0]], moved, retain_graph=True)
            f = abs(float((logits[k] - logits[order[0]]).detach()))
            size = float(w.norm()) if norm == "l2" else float(w.abs().sum())
            ways.append((f / size, w / w.norm() if norm == "l2" else w.sign()))
        distance, way = min(ways, key=lambda each: each[0])
        here = (here + (1 + overshoot) * distance * way).clamp(0, 1)
    return here


def crossed(network: Network, images: Tensor, norm: Any, candidates: int = 3) -> Tensor:
    return module._crossed(task(network, images), norm, candidates, 0.02, 50)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_equals_the_algorithm_of_the_paper(victim: Network, images: Tensor, norm: str) -> None:
    found = crossed(victim, images, norm)
    for number in range(len(images)):
        start = ((images[number] * 255).round() / 255).float().double()
        torch.testing.assert_close(found[number], by_hand(victim, start, 3, 0.02, norm), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "norm"), [("L2DeepFoolAttack", "l2"), ("LinfDeepFoolAttack", "linf")])
def test_it_equals_foolboxs(victim: Network, name: str, norm: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    images = middling(size=(8, 9))
    with torch.no_grad():
        goal = foolbox.criteria.Misclassification(victim(images).argmax(1))
    made = getattr(foolbox.attacks, name)(candidates=3, overshoot=0.02)
    theirs = made.run(foolbox.PyTorchModel(Bare(victim).eval(), bounds=(0, 1)), images, goal)
    found = crossed(victim, images, norm)
    # foolbox makes each distance longer by 0.0001, several times over
    torch.testing.assert_close(found, theirs, rtol=0, atol=6e-4 if norm == "linf" else 1e-4)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_file_fools_although_rounding_undoes_the_crossing(victim: Network, images: Tensor, norm: Any) -> None:
    found = deepfool(victim, images, norm=norm)
    assert all(found.success)
    for summary in found.summaries:
        assert summary[norm] < 3 * summary["boundary"] + 2 / 255


def test_what_is_wrong_already_is_left_as_it_is(victim: Network, images: Tensor, classes: Tensor) -> None:
    labels = (classes + 1) % 3
    found = deepfool(victim, images, label=labels.tolist())
    assert torch.equal(found.values, found.originals)
    assert all(each["boundary"] == 0 for each in found.summaries)
    assert "taken for another class before any attack" in found.notes[0]
