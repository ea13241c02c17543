"""Where a mask or a box of the object is known: does the map point at it, lie in it, and cover it?

    pointing   1 if the map's largest value lies on the object or near it, else 0 (Zhang et al. 2016,
               arXiv:1608.00507, section 4.1; near is 15 pixels of a picture whose longer side is 500)
    inside     sum of max(A, 0) on the object / sum of max(A, 0) (the energy-based pointing game of Wang et al. 2020,
               arXiv:1910.01279, section 4.3)
    iou        overlap of the object with as many of the map's highest pixels as the object has, over their union

The overlap is often taken with a region above a share of the map's largest value. The share that suits one technique
does not suit another, so here the region is as large as the object, for all. An object that fills the picture is
found by any map: read the numbers beside those of ``(noise)`` and ``(middle)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from convscope.errors import OptionError
from convscope.evaluate.measures import Column, Measure, Scores, each
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample, positive_share

TOLERANCE = 15 / 500  # of the longer side


def points_at(values: Tensor, mask: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether the first of the largest values (H, W) is within ``tolerance`` of the longer side from the mask."""
    row, column = divmod(int(values.argmax()), values.shape[1])
    on = mask.nonzero()
    if not len(on):
        return False
    distances = (on - torch.tensor([row, column])).double().square().sum(1).sqrt()
    return float(distances.min()) <= tolerance * max(values.shape)


def overlap(values: Tensor, mask: Tensor) -> float:
    """Intersection over union of a mask (H, W) and as many of the highest values; equal values in reading order."""
    area = int(mask.sum())
    chosen = torch.zeros(mask.numel(), dtype=torch.bool)
    chosen[values.flatten().argsort(dim=0, descending=True, stable=True)[:area]] = True
    both = int((chosen & mask.flatten()).sum())
    return both / (2 * area - both) if area else 0.0


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """All three, one number a picture that has a mask."""
    masks = sample.masks
    if masks is None or not bool(masks.any()):
        raise OptionError("pointing, inside and iou need to know where the objects are; give --masks or --boxes")
    places = [place for place, mask in enumerate(masks) if mask.any()]

    def score(method: Maps) -> Scores:
        pairs = [(maps[method.name][place], masks[place]) for place in places]
        return Scores(
            {
                "pointing": [float(points_at(heat, mask)) for heat, mask in pairs],
                "inside": [positive_share(heat, mask) for heat, mask in pairs],
                "iou": [overlap(heat, mask) for heat, mask in pairs],
            },
            {"area": [float(mask.double().mean()) for _, mask in pairs]},
        )

    return each(methods, score)


INSIDE = Measure(
    "inside",
    [
        Column("pointing", "points at the object", 1),
        Column("inside", "share on the object", 1),
        Column("iou", "overlap with the object", 1),
    ],
    run, "Zhang et al. 2016, arXiv:1608.00507; Wang et al. 2020, arXiv:1910.01279",
    "pointing game, share inside and overlap, where masks or boxes are given",
)  # fmt: skip
