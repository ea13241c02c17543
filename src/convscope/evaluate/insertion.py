"""Insertion and deletion: does the class come, or go, with the pixels that the map names first? (Petsiuk et al. 2018)

Pixels are taken in falling order of the map. Deletion replaces them by the mean colour that the network subtracts,
insertion puts them into a blurred picture; each is the area under the probability of the class over the share of
pixels, in [0, 1], by trapezia (arXiv:1806.07421, section 4.1). A good map makes deletion small and insertion large.

Departures: 10 equal steps instead of one a row of pixels; the blur has a standard deviation of 1/20 of the longer
side. Both show the network pictures unlike any that it was trained on; read the numbers beside those of ``(noise)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from convscope.evaluate.measures import Column, Measure, Scores, each
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample, answers
from convscope.images import blurred

STEPS = 10
BLUR = 1 / 20  # standard deviation, of the longer side


def ranks(maps: Tensor) -> Tensor:
    """(N, H, W): 0 for each map's highest value, 1 for the next; equal values in reading order."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(maps)


def curves(sample: Sample, maps: Tensor, before: Tensor, behind: Tensor, steps: int = STEPS) -> Tensor:
    """(N, steps + 1) probabilities of each picture's class while its pixels go over from ``before`` to ``behind``.

    ``before`` and ``behind`` are (N, 3, H, W); the pixels go in falling order of ``maps`` (N, H, W).
    """
    order, pixels = ranks(maps), maps[0].numel()
    points = steps + 1

    def versions(part: slice) -> Tensor:
        index = torch.arange(part.start, part.stop)
        place, step = index // points, index % points
        gone = order[place] < (step * pixels // steps)[:, None, None]
        return torch.where(gone[:, None], behind[place], before[place])

    shares, _ = answers(sample.network, len(maps) * points, versions)
    targets = torch.tensor(list(sample.targets)).repeat_interleave(points)
    return shares.gather(1, targets[:, None]).view(-1, points)


def area(curve: Tensor) -> Tensor:
    """(N,) areas under (N, points) over [0, 1], by trapezia."""
    return torch.trapezoid(curve.double(), dx=1 / (curve.shape[1] - 1), dim=1)


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """Both areas, one number a picture."""
    images = sample.images.float().cpu()
    blank = sample.network.mean.view(1, -1, 1, 1).to(images).expand_as(images)
    faint = blurred(images, BLUR * max(sample.size))

    def score(method: Maps) -> Scores:
        heat = maps[method.name]
        insertion, deletion = curves(sample, heat, faint, images), curves(sample, heat, images, blank)
        return Scores(
            {"insertion": area(insertion).tolist(), "deletion": area(deletion).tolist()},
            {"insertion_curve": insertion.mean(0).tolist(), "deletion_curve": deletion.mean(0).tolist()},
        )

    return each(methods, score)


INSERTION = Measure(
    "insertion",
    [Column("insertion", "insertion", 1), Column("deletion", "deletion", -1)], run,
    "Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 4.1",
    "how fast the class comes and goes with the pixels that the map names first",
)  # fmt: skip
