"""localize on maps that are known, against a flood fill written slowly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import OptionError, UnknownTarget
from convscope.network import Network
from convscope.registry import load
from convscope.techniques.attribute.gradcam import gradcam
from convscope.techniques.attribute.localize import localize
from convscope.techniques.attribute.saliency import saliency

pytest_plugins = "convscope.techniques.attribute._examples_test"
SIZE = (24, 30)
LARGE, SMALL = (3, 5, 8, 10), (15, 20, 6, 4)


def painted(*boxes: tuple[int, int, int, int], levels: tuple[float, ...] = (1.0, 1.0)) -> Tensor:
    """(H, W): a level in each box, zero elsewhere."""
    values = torch.zeros(SIZE)
    for (top, left, height, width), level in zip(boxes, levels, strict=False):
        values[top : top + height, left : left + width] = level
    return values


def seeing(*maps: Tensor) -> Network:
    """A linear network whose saliency for class c is map c."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * maps[0].numel(), len(maps), bias=False))
    with torch.no_grad():
        for row, values in zip(module[1].weight, maps, strict=True):
            row.copy_(torch.stack([values, values / 2, values / 4]).flatten())
    return Network(module.eval(), input_size=SIZE)


def boxes_by_flood(heat: Tensor, threshold: float) -> list[tuple[int, int, int, int]]:
    """Boxes of all connected parts, the largest first, one pixel after the other."""
    left = {(r, c) for r, c in torch.nonzero(heat > threshold * heat.max()).tolist()}
    parts = []
    while left:
        part, edge = set(), [min(left)]
        while edge:
            row, column = edge.pop()
            if (row, column) in left:
                left.remove((row, column))
                part.add((row, column))
                edge += [(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
        parts.append(part)
    found = []
    for part in sorted(parts, key=lambda part: (-len(part), min(part))):
        rows, columns = ({place[axis] for place in part} for axis in (0, 1))
        found.append((min(rows), min(columns), max(rows) - min(rows) + 1, max(columns) - min(columns) + 1))
    return found


def picture(count: int = 1) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def test_the_box_is_around_the_largest_part() -> None:
    net = seeing(painted(SMALL, LARGE, levels=(2.0, 1.0)))
    found = localize(net, picture(), method="saliency", target=0, blur=0)
    assert found.boxes.tolist() == [[list(LARGE)]]
    assert torch.equal(found.masks[0], painted(LARGE) > 0)
    assert found.summary["box"] == {"top": 3, "left": 5, "height": 8, "width": 10, "share": pytest.approx(80 / 128)}
    assert found.summary["method"] == "saliency"


def test_several_boxes_come_by_size_and_are_padded() -> None:
    net = seeing(painted(SMALL, LARGE))
    found = localize(net, picture(), method="saliency", target=0, blur=0, boxes=3)
    assert found.boxes.tolist() == [[list(LARGE), list(SMALL), [0, 0, 0, 0]]]
    assert torch.equal(found.masks[0], painted(SMALL, LARGE) > 0)
    assert [box["share"] for box in found.summary["boxes"]] == [pytest.approx(80 / 104), pytest.approx(24 / 104)]


@pytest.mark.parametrize(("threshold", "expected"), [(0.2, LARGE), (0.6, SMALL)])
def test_the_threshold_is_a_share_of_the_maximum(threshold: float, expected: tuple[int, ...]) -> None:
    net = seeing(painted(LARGE, SMALL, levels=(0.5, 1.0)))
    found = localize(net, picture(), method="saliency", target=0, blur=0, threshold=threshold)
    assert found.boxes[0, 0].tolist() == list(expected)


def test_parts_that_touch_at_a_corner_are_one() -> None:
    net = seeing(painted((2, 3, 4, 4), (6, 7, 3, 5)))
    found = localize(net, picture(), method="saliency", target=0, blur=0, boxes=2)
    assert found.boxes.tolist() == [[[2, 3, 7, 9], [0, 0, 0, 0]]]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.8])
def test_equals_a_flood_fill(threshold: float, deep: Network, pictures: Tensor) -> None:
    found = localize(deep, pictures, threshold=threshold, boxes=4)
    heat = gradcam(deep, pictures).values
    assert torch.equal(found.values, heat)
    for number in range(3):
        wanted = boxes_by_flood(heat[number], threshold)[:4]
        assert sorted(tuple(box) for box in found.boxes[number].tolist() if box[2]) == sorted(wanted)


def test_the_share_is_of_what_is_positive(deep: Network, pictures: Tensor) -> None:
    found = localize(deep, pictures, method="saliency", threshold=0.4)
    for heat, summary in zip(found.values.clamp(min=0), found.summaries, strict=True):
        top, left, height, width = (summary["box"][name] for name in ("top", "left", "height", "width"))
        inside = heat[top : top + height, left : left + width].sum()
        assert summary["box"]["share"] == pytest.approx(float(inside / heat.sum()), abs=1e-5)


def test_specks_become_one_part_when_blurred_and_the_values_do_not() -> None:
    specks = painted(LARGE) * (torch.arange(SIZE[0] * SIZE[1]).view(SIZE) % 3 == 0)
    net = seeing(specks)
    sharp = localize(net, picture(), method="saliency", target=0, blur=0, boxes=20)
    smooth = localize(net, picture(), method="saliency", target=0)
    assert torch.equal(smooth.values, saliency(net, picture(), target=0).values)
    assert torch.equal(sharp.values, smooth.values)
    top, left, height, width = smooth.boxes[0, 0].tolist()
    assert (sharp.boxes[0, :, 3] > 0).sum() > 1
    assert max(abs(top - 3), abs(left - 5), abs(top + height - 11), abs(left + width - 15)) <= 2


def test_no_evidence_gives_no_box_and_a_note(deep: Network) -> None:
    found = localize(seeing(painted(LARGE), torch.zeros(SIZE)), picture(2), method="saliency", target=[0, 1])
    assert found.boxes[1].tolist() == [[0, 0, 0, 0]]
    assert found.summaries[1]["box"] is None
    assert found.summaries[1]["boxes"] == []
    assert not found.masks[1].any()
    assert found.notes == [
        "picture 2: the map for class 1 is constant (0): no pixel stands out", "picture 2: there is no box"
    ]  # fmt: skip
    against = localize(seeing(-painted(LARGE)), picture(), method="gradient-x-input", target=0)
    assert against.summary["box"] is None
    assert against.notes[-1] == "there is no box"


def test_what_is_asked_about_is_handed_on(deep: Network, pictures: Tensor) -> None:
    found = localize(deep, pictures, method="saliency", layer="conv2", unit=3)
    assert torch.equal(found.values, saliency(deep, pictures, layer="conv2", unit=3).values)
    assert (found.layer, found.titles[0]) == ("conv2", "conv2 unit 3")
    fused = localize(deep, pictures, layer=["relu1", "relu2"], target=1)
    assert torch.equal(fused.values, gradcam(deep, pictures, layer=["relu1", "relu2"], target=1).values)
    likely = localize(deep, pictures, method="integrated_gradients", of="probability")
    assert torch.equal(likely.values, load("integrated-gradients")(deep, pictures, of="probability").values)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"method": "gradcamm"}, "there is no technique 'gradcamm'; did you mean 'gradcam'"),
        ({"method": "classify"}, "classify makes no heat map; give one that does"),
        ({"method": "localize"}, "localize makes no heat map"),
        ({"of": "loss"}, "gradcam has no option 'of'; leave it out, or choose another method"),
        ({"method": "saliency", "layer": "conv2"}, "layer needs unit"),
        ({"threshold": 1.0}, "threshold should be less than 1"),
        ({"boxes": 0}, "boxes should be greater than or equal to 1"),
    ],
)
def test_contradictions_get_a_sentence(
    wrong: dict[str, object], sentence: str, deep: Network, pictures: Tensor
) -> None:
    with pytest.raises(OptionError, match=sentence):
        localize(deep, pictures, **wrong)
    with pytest.raises(UnknownTarget):
        localize(deep, pictures, target="zebra")
