"""ROAD, remove and debias: deletion without telling the network, by the shape of the hole, where the hole is.

Pixels are removed in falling order of the map (most relevant first) and in rising order (least relevant first), and
each hole is filled so that every missing pixel is the weighted mean of its eight neighbours, plus a little noise:

    sum over neighbours q of w_pq (x_p - x_q) = 0,      w = 1/6 beside, 1/12 across the corner

one sparse linear system a picture (Rong et al. 2022, arXiv:2202.00449, section 5). The score is the share of
removals that the predicted class survives with the least relevant gone, less the share that it survives with the
most relevant gone, over several sizes of hole: in [-1, 1], 0 for a map without any knowledge.

Departures: the predicted class stands for the true one; the two orders are subtracted, instead of shown as curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from convscope.evaluate.insertion import ranks
from convscope.evaluate.measures import Column, Measure, Scores, each
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample, answers

HOLES = (0.1, 0.3, 0.5, 0.7)  # shares of the pixels
NOISE = 0.01  # standard deviation, of [0, 1]
BESIDE, ACROSS = 1 / 6, 1 / 12


@lru_cache(maxsize=2)
def _stencil(height: int, width: int) -> Any:
    """(HW, HW): the weights of each pixel's neighbours, less their sum on the diagonal; symmetric."""
    number = np.arange(height * width).reshape(height, width)
    pairs = [
        (number[:, :-1], number[:, 1:], BESIDE), (number[:-1], number[1:], BESIDE),
        (number[:-1, :-1], number[1:, 1:], ACROSS), (number[:-1, 1:], number[1:, :-1], ACROSS),
    ]  # fmt: skip
    rows = np.concatenate([a.ravel() for a, _, _ in pairs])
    columns = np.concatenate([b.ravel() for _, b, _ in pairs])
    weights = np.concatenate([np.full(a.size, w) for a, _, w in pairs])
    one = sparse.coo_matrix((weights, (rows, columns)), (number.size, number.size)).tocsr()
    both = one + one.T
    return (both - sparse.diags(np.asarray(both.sum(1)).ravel())).tocsr()


def filled(image: Tensor, missing: Tensor) -> Tensor:
    """A picture (C, H, W) with each missing pixel (H, W) the weighted mean of its neighbours; never all of them."""
    hole = missing.numpy().ravel()
    if not hole.any():
        return image
    pixels = image.double().flatten(1).numpy()
    rows = _stencil(missing.shape[0], missing.shape[1])[hole]
    inner, outer = rows[:, hole].tocsc(), rows[:, ~hole]
    # The system is symmetric and definite: no pivoting is needed, and this order of elimination is the fast one.
    solver = splu(-inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    found = pixels.copy()
    found[:, hole] = solver.solve(np.ascontiguousarray(outer @ pixels[:, ~hole].T)).T
    return torch.from_numpy(found).view_as(image).to(image)


def removed(image: Tensor, missing: Tensor, seed: int) -> Tensor:
    """The filled picture with noise in the hole, within [0, 1]."""
    noise = NOISE * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (filled(image, missing) + noise.to(image) * missing).clamp(0, 1)


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """The difference between the two orders, one number a picture."""
    images = sample.images.float().cpu()
    holes = len(HOLES)
    size = images[0, 0].numel()

    def score(method: Maps) -> Scores:
        order = ranks(maps[method.name])

        def version(index: int) -> Tensor:
            place, hole = index // (2 * holes), index % holes
            gone = int(HOLES[hole] * size)
            most_first = index % (2 * holes) < holes
            missing = order[place] < gone if most_first else order[place] >= size - gone
            return removed(images[place], missing, sample.seed + place)

        _, predicted = answers(
            sample.network, len(images) * 2 * holes,
            lambda part: torch.stack([version(index) for index in range(part.start, part.stop)]),
        )  # fmt: skip
        kept = (predicted.view(len(images), 2, holes) == torch.tensor(list(sample.targets))[:, None, None]).double()
        score = kept[:, 1].mean(1) - kept[:, 0].mean(1)
        most, least = kept.mean(0).tolist()
        return Scores({"road": score.tolist()}, {"most_relevant_gone": most, "least_relevant_gone": least})

    return each(methods, score)


ROAD = Measure(
    "road", [Column("road", "ROAD", 1, 0.0)], run, "Rong et al. 2022, arXiv:2202.00449, section 5",
    "share of removals that the class survives, least relevant pixels less most relevant",
)  # fmt: skip
