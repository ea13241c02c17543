"""Largest sensitivity: how far a map moves when noise that no one can see is added to the picture (Yeh et al. 2019).

    max over samples of |A(x + e) - A(x)| / |A(x)|,      e uniform in [-r, r] for each number of the picture

(arXiv:1901.09392, section 2.3, where the largest value is sought among samples as here.) The class stays the one of
the untouched picture, and the altered one is kept within [0, 1]. Small is steady, which is not yet right: a map that
never changes has 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from convscope.evaluate.measures import Column, Measure, Scores, each
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample

RADIUS = 0.02  # of [0, 1]: five grey levels
SAMPLES = 4


def shaken(images: Tensor, radius: float, seed: int) -> Tensor:
    """(N, 3, H, W) with uniform noise: the same for every picture, whatever stands beside it."""
    noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(seed)).to(images)
    return (images + radius * (2 * noise - 1)).clamp(0, 1)


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """The largest relative change, one number a picture; NaN for a map that is zero everywhere."""
    versions = [shaken(sample.images, RADIUS, sample.seed + number) for number in range(SAMPLES)]

    def score(method: Maps) -> Scores:
        clean = maps[method.name].flatten(1).double()
        size = clean.norm(dim=1)
        moved = [method(sample.network, images, sample.targets).flatten(1).double() for images in versions]
        changes = torch.stack([(other - clean).norm(dim=1) for other in moved]).amax(0) / size
        return Scores({"sensitivity": torch.where(size > 0, changes, torch.nan).tolist()})

    return each(methods, score)


SENSITIVITY = Measure(
    "sensitivity", [Column("sensitivity", "change under faint noise", -1)], run,
    "Yeh et al. 2019, arXiv:1901.09392, section 2.3",
    "how far the map moves under noise of five grey levels",
)  # fmt: skip
