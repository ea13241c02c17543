from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from convscope.errors import ImageError, OptionError
from convscope.evaluate.conftest import COLOURS, spots
from convscope.evaluate.photographs import boxed, drawn, read_boxes, read_sample
from convscope.evaluate.sample import sample
from convscope.images import write_image
from convscope.network import Network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of each class, in folders of their names, and masks beside them; larger than the network's."""
    images, masks = spots()
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        for place, picture in (("photographs", image), ("masks", mask[None].float().expand(3, -1, -1))):
            where = tmp_path / place / (COLOURS[number % 4] if place == "photographs" else "")
            where.mkdir(parents=True, exist_ok=True)
            write_image(picture.repeat_interleave(2, 1).repeat_interleave(2, 2), where / f"{number}.png")
    return tmp_path


def test_classes_come_from_folders_and_masks_are_cut_as_the_photographs(network: Network, folder: Path) -> None:
    found, count = read_sample(network, [folder / "photographs"], masks=folder / "masks")
    assert count == len(found) == 8
    assert [network.label(int(label or 0)) for label in found.labels] == [Path(f).parent.name for f in found.files]
    assert list(found.targets) == list(found.labels)
    assert found.masks is not None
    images, masks = spots()
    for place, name in enumerate(found.names):
        assert float((found.images[place] - images[int(name[0])]).abs().mean()) < 0.06  # antialiasing blurs borders
        assert torch.equal(found.masks[place], masks[int(name[0])])


def test_boxes_are_of_the_photograph(network: Network, folder: Path) -> None:
    _, masks = spots()
    rows, boxes = ["photograph,left,top,right,bottom"], {}
    for number, mask in enumerate(masks):
        (top, left), (bottom, right) = mask.nonzero().amin(0).tolist(), (mask.nonzero().amax(0) + 1).tolist()
        box = [2 * left, 2 * top, 2 * right, 2 * bottom]
        rows.append(",".join(map(str, [f"{number}.png", *box])))
        boxes[f"{number}"] = [box]
    (folder / "boxes.csv").write_text("\n".join(rows))
    (folder / "boxes.json").write_text(json.dumps(boxes))
    assert read_boxes(folder / "boxes.csv") == read_boxes(folder / "boxes.json")
    found, _ = read_sample(network, [folder / "photographs"], boxes=folder / "boxes.csv")
    assert found.masks is not None
    for name, mask in zip(found.names, found.masks, strict=True):
        assert torch.equal(mask, masks[int(name[0])])


def test_boxes_join_and_end_at_the_border() -> None:
    area = boxed([(-3, 0, 2, 2), (3, 1, 9, 2)], (3, 5))
    assert area.int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_a_part_is_drawn_of_every_class_and_by_the_seed() -> None:
    classes = [0] * 50 + [1] * 5 + [2] * 2
    chosen = drawn(classes, 9, 0)
    assert len(chosen) == 9
    counts = Counter(classes[place] for place in chosen)
    assert counts[2] == 2
    assert abs(counts[0] - counts[1]) <= 1
    assert chosen == drawn(classes, 9, 0) == sorted(chosen)
    assert chosen != drawn(classes, 9, 1)
    assert drawn(classes, 999, 0) == list(range(57))


def test_folders_that_are_no_classes_say_nothing(network: Network, folder: Path) -> None:
    (folder / "photographs").rename(folder / "pictures")
    for colour in COLOURS:
        (folder / "pictures" / colour).rename(folder / "pictures" / f"set {COLOURS.index(colour)}")
    found, _ = read_sample(network, [folder / "pictures"], limit=3)
    assert list(found.labels) == [None] * 3


def test_what_does_not_fit_is_said(network: Network, folder: Path) -> None:
    photographs = [folder / "photographs"]
    with pytest.raises(OptionError, match="masks or boxes of the objects, not both"):
        read_sample(network, photographs, masks=folder / "masks", boxes=folder / "b.csv")
    with pytest.raises(OptionError, match=r"b\.csv holds no boxes that can be read"):
        read_sample(network, photographs, boxes=folder / "b.csv")
    (folder / "b.csv").write_text("photograph,left,top,right,bottom\n0.png,5,5,5,9\n")
    with pytest.raises(OptionError, match=r"the box \(5.0, 5.0, 5.0, 9.0\) of 0.png is empty"):
        read_sample(network, photographs, boxes=folder / "b.csv")
    (folder / "b.csv").write_text("photograph,left,top,right,bottom\nother.png,1,1,5,9\n")
    with pytest.raises(OptionError, match="says nothing of these photographs"):
        read_sample(network, photographs, boxes=folder / "b.csv")
    write_image(torch.zeros(3, 4, 4), folder / "masks" / "0.png")
    with pytest.raises(ImageError, match=r"0.png is 4x4 pixels and its photograph 32x32"):
        read_sample(network, photographs, masks=folder / "masks")
    images, masks = spots()
    with pytest.raises(ImageError, match="masks of shape"):
        sample(network, images, masks=masks[:3])
    with pytest.raises(OptionError, match="2 labels for 8 pictures"):
        sample(network, images, labels=[1, 2])
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no pictures"):
        read_sample(network, [folder / "empty"])
