"""Where `localize` should cut a map: overlap with boxes that are known, by method and threshold.

    python benchmarks/localize.py        # the built-in network, 2 to 4 minutes

A photograph of the test split of Caltech-101, in which the thing fills most of the frame, is shrunk to 40 to 70 % of
the side and laid on a photograph of no class; the box is the frame. Only pictures that the network names rightly count.
The threshold is chosen on every other picture and the overlap told on the rest, with a 95 % interval from drawing
pictures with replacement. The photographs lie beside the project (../shared/data/caltech101).
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import convscope
from convscope.images import read_image
from convscope.intervals import interval
from convscope.network import Network
from convscope.techniques.attribute._regions import box_of, heat_map, parts, smoothed

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "caltech101"
RESULTS = Path(__file__).parent / "results" / "localize.json"
METHODS = ("gradcam", "layercam", "gradcam-pp", "hirescam", "saliency", "occlusion")
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 17))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=240, help="that are made; those named rightly count")
    parser.add_argument("--method", action="append", help="only this one; may be repeated")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    network = convscope.load_network("builtin")
    images, boxes, targets = composites(network, options.pictures)
    share = float((boxes[:, 2] * boxes[:, 3]).double().mean()) / (images.shape[2] * images.shape[3])
    report: dict[str, Any] = {"pictures": len(images), "share of a picture that the box has": round(share, 3)}
    report["the whole picture"] = round(share, 3)
    report["a box of 0.55 of the side in the middle"] = middle(images, boxes)
    for name in options.method or METHODS:
        report[name] = judged(overlaps(network, name, images, boxes, targets))
        print(name, json.dumps(report[name]), flush=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")


def composites(network: Network, count: int) -> tuple[Tensor, Tensor, list[int]]:
    """Pictures (N, 3, H, W) that the network names rightly, their boxes (N, 4) and classes."""
    generator = torch.Generator().manual_seed(0)
    height, width = network.input_size
    things, backgrounds = drawn("test.tar", count), drawn("background.tar", count)
    images, boxes, wanted = [], [], []
    for (name, thing), (_, ground) in zip(things, backgrounds, strict=True):
        side = int(height * (0.4 + 0.3 * float(torch.rand(1, generator=generator))))
        top, left = (int(float(torch.rand(1, generator=generator)) * (room - side + 1)) for room in (height, width))
        image = network.prepare(ground)
        image[:, top : top + side, left : left + side] = convscope.images.fit(thing, (side, side))
        images.append(image)
        boxes.append((top, left, side, side))
        wanted.append(network.target(Path(name).parent.name))
    stack = torch.stack(images)
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in stack.split(32)]).tolist()
    right = [number for number, (a, b) in enumerate(zip(found, wanted, strict=True)) if a == b]
    return stack[right], torch.tensor(boxes)[right], [wanted[number] for number in right]


def drawn(file: str, count: int) -> list[tuple[str, Tensor]]:
    """So many pictures, evenly over the file, as (name, picture)."""
    with tarfile.open(DATA / file) as archive:
        members = sorted((m for m in archive if m.name.endswith(".jpg")), key=lambda m: m.name)
        chosen = [members[int(number * len(members) / count)] for number in range(count)]
        return [(m.name, read_image(archive.extractfile(m).read())) for m in chosen]  # type: ignore[union-attr]


def overlaps(network: Network, method: str, images: Tensor, boxes: Tensor, targets: list[int]) -> Tensor:
    """(N, thresholds): intersection over union of the box of `localize` with the true one; 0 where there is none."""
    found = torch.zeros(len(images), len(THRESHOLDS), dtype=torch.float64)
    for number, (image, box, target) in enumerate(zip(images, boxes, targets, strict=True)):
        heat = smoothed(heat_map(method, network, image[None], target=target), None)[0].numpy()
        for column, threshold in enumerate(THRESHOLDS):
            if heat.max() > 0:
                part = parts(heat > threshold * heat.max(), 1)
                found[number, column] = overlap(box_of(part[0]), box.tolist())
    return found


def overlap(one: Any, other: Any) -> float:
    sides = [
        max(0, min(a + la, b + lb) - max(a, b))
        for a, la, b, lb in zip(one[:2], one[2:], other[:2], other[2:], strict=True)
    ]
    shared = sides[0] * sides[1]
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def middle(images: Tensor, boxes: Tensor) -> float:
    height, width = images.shape[2:]
    side = round(0.55 * height)
    box = ((height - side) // 2, (width - side) // 2, side, side)
    return round(sum(overlap(box, b.tolist()) for b in boxes) / len(boxes), 3)


def judged(found: Tensor) -> dict[str, Any]:
    """Means by threshold, the best one of every other picture, and its overlap on the rest."""
    best = int(found[::2].mean(0).argmax())
    rest = interval(found[1::2, best].tolist())
    old = interval(found[1::2, THRESHOLDS.index(0.2)].tolist())
    return {
        "best threshold": THRESHOLDS[best],
        "overlap there, of the rest": [round(v, 3) for v in (rest.mean, rest.low, rest.high)],
        "right (over 0.5), of the rest": round(float((found[1::2, best] > 0.5).double().mean()), 3),
        "overlap at 0.2, of the rest": [round(v, 3) for v in (old.mean, old.low, old.high)],
        "by threshold": {str(t): round(float(v), 3) for t, v in zip(THRESHOLDS, found.mean(0), strict=True)},
    }


if __name__ == "__main__":
    main()
