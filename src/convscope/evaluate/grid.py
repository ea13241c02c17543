"""Grid pointing game: in a mosaic of four pictures, how much of a map lies on the picture that it is about?

Four pictures of different classes, each of which the network classifies rightly and surely, stand in a square. For
the class of each of them

    L = sum of max(A, 0) over its quarter / sum of max(A, 0) over the mosaic

which is 1/4 for a map without any knowledge and 1 for one that finds its quarter. No annotation is needed (Böhle,
Fritz & Schiele 2021, arXiv:2104.00032, section 4.2, there with squares of nine; Arias-Duart et al. 2021,
arXiv:2109.15035, call the share for four pictures focus).

The mosaic is twice as large as the network's pictures where the network takes it, so that each picture keeps its
size; else the mosaic is shrunk to half, and that is said. One number a mosaic: the mean over its four classes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from convscope.errors import NetworkError, OptionError
from convscope.evaluate.measures import Column, Measure, Scores, each
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample, positive_share
from convscope.images import resize
from convscope.network import Network

SURE = 0.5  # probability from which on the network counts as sure
MOST = 12  # mosaics


def quartets(sample: Sample, *, sure: float = SURE, most: int = MOST) -> list[list[int]]:
    """Places of pictures, four of different classes at a time and each at most once, drawn by the sample's seed.

    Raises :class:`OptionError` when there are not four of them.
    """
    classes = defaultdict(list)
    for place, (target, share, label) in enumerate(
        zip(sample.targets, sample.probabilities, sample.labels, strict=True)
    ):
        if share >= sure and label in (None, target):
            classes[target].append(place)
    if len(classes) < 4:
        raise OptionError(
            f"mosaics need pictures of four classes that {sample.network.name} classifies rightly with a probability "
            f"of at least {sure:g}, and there are {len(classes)}; give more pictures, or leave this measure out"
        )
    return _dealt(list(classes.values()), random.Random(sample.seed), most)


def _dealt(piles: list[list[int]], chance: random.Random, most: int) -> list[list[int]]:
    for pile in piles:
        chance.shuffle(pile)
    found: list[list[int]] = []
    while len(found) < most and sum(map(bool, piles)) >= 4:
        chance.shuffle(piles)
        piles.sort(key=len, reverse=True)  # the largest first, so that as few as can be are left over
        found.append([pile.pop() for pile in piles[:4]])
    return found


def mosaics(sample: Sample, fours: Sequence[Sequence[int]]) -> tuple[Tensor, bool]:
    """(M, 3, H, W) mosaics, and whether the pictures in them kept their size."""
    rows = [torch.cat([sample.images[[f[a] for f in fours]] for a in pair], 3) for pair in ((0, 1), (2, 3))]
    whole = torch.cat(rows, 2)
    if _takes(sample.network, whole[:1]):
        return whole, True
    return resize(whole, sample.size), False


def _takes(network: Network, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            network(images)
    except NetworkError:
        return False
    return True


def quarter(place: int, size: Sequence[int]) -> Tensor:
    """(H, W), true on the quarter of a mosaic of ``size``: 0 and 1 above, 2 and 3 below."""
    down, across = (torch.arange(length) >= length / 2 for length in size)
    return (down == (place >= 2))[:, None] & (across == (place % 2 == 1))


def localised(maps: Tensor) -> list[float]:
    """(4, H, W) maps of one mosaic, each for the class of the quarter of its place: the share that lies there."""
    return [positive_share(heat, quarter(place, heat.shape)) for place, heat in enumerate(maps)]


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """The share in the right quarter, one number a mosaic."""
    fours = quartets(sample)
    pictures, whole = mosaics(sample, fours)
    repeated = pictures.repeat_interleave(4, 0)
    targets = [sample.targets[place] for four in fours for place in four]

    def score(method: Maps) -> Scores:
        found = method(sample.network, repeated, targets).unflatten(0, (len(fours), 4))
        shares = [localised(four) for four in found]
        more = {"mosaics": [[sample.names[place] for place in four] for four in fours], "shares": shares}
        return Scores({"grid": [sum(four) / 4 for four in shares]}, {**more, "full_size": whole})

    return each(methods, score)


GRID = Measure(
    "grid", [Column("grid", "in the right quarter", 1, 0.25)], run,
    "Böhle et al. 2021, arXiv:2104.00032, section 4.2",
    "share of the map on the right one of four pictures",
)  # fmt: skip
