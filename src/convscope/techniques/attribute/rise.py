"""RISE: the mean of random masks, each weighted by the score of the picture behind it (Petsiuk 2018, section 3).

    M = 1 / (n p) * sum over i of S(I * m_i) m_i

The masks are grids of cells, each open with probability p, enlarged bilinearly and shifted by part of a cell. The
network is a black box: only its scores are used. What a mask shuts is black.

Departures: the score is the class's probability, as in the paper, unless asked otherwise; 1,000 masks by default, of
the paper's 4,000 to 8,000. The masks are the same for all pictures. From each score the mean over all masks is taken
away, unless ``centred`` is off: a pixel is then seen by more or fewer masks than others without gaining or losing by
it, which is most of the noise, and zero means no influence.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope.batching import batched
from convscope.hooks import observe
from convscope.network import Network
from convscope.objectives import Of, Question, ask
from convscope.progress import over
from convscope.registry import Layer, Seed, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import answers, asked_for, wide


@technique(
    family="attribute",
    paper="Petsiuk et al. 2018, arXiv:1806.07421, section 3",
    see="Red regions are those that, where they are seen, make the class more likely than on average; blue, less.",
    caution=(
        "The map is an average over chance: look twice with another seed before trusting a detail. The network is "
        "asked about pictures that are half black, such as it never met in training."
    ),
    example={"samples": 500},
)
def rise(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    of: Annotated[Of, Field(description="what to weight the masks by: probability, score or loss")] = "probability",
    samples: Annotated[int, Field(ge=1, description="random masks, one pass each")] = 1000,
    cells: Annotated[int, Field(ge=2, description="cells of a mask along each side")] = 7,
    keep: Annotated[float, Field(gt=0, le=1, description="probability that a cell is left open")] = 0.5,
    centred: Annotated[
        bool, Field(description="take the mean over all masks from each score: less noise; off, as published")
    ] = True,
    seed: Seed = 0,
) -> Heatmap:
    """Which regions make a class likely when little else is seen: random masks, weighted by the score behind them.

    Args:
        network: any network, a classifier unless a unit is given; nothing but its scores is used.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        of: ``probability``, ``score`` before the softmax, or ``loss``; a unit counts by its activation.
        samples: masks, one forward pass each for each picture.
        cells: of a mask's grid, along each side.
        keep: probability that a cell is open.
        centred: whether scores count from their mean over all masks; off for the published formula.
        seed: of the masks.

    Returns:
        ``values`` (N, H, W): the expected score where a pixel is seen, less that over all masks where ``centred``.

    Raises:
        UnknownTarget, UnknownLayer, OptionError.
    """
    by_activation = unit is not None and of == "probability"
    question = ask(network, target, of="score" if by_activation else of, layer=layer, unit=unit)
    scores, targets = answers(question, images)
    masks = Masks(samples, cells, keep, (images.shape[-2], images.shape[-1]), seed)
    values = torch.stack(
        [
            _weighted(replace(question, target=target), image, masks, centred)
            for image, target in over(zip(wide(images), targets.tolist(), strict=True), "pictures")
        ]
    )
    quantity = f"mean {asked_for(question)} where a pixel is seen" + (", less that of all masks" if centred else "")
    return Heatmap(
        values=values, images=images, signed=centred, layer=question.layer, quantity=quantity,
        **describe(question, values, scores, targets),
    )  # fmt: skip


class Masks:
    """Random masks: few numbers each, of which the pictures are made when they are needed."""

    def __init__(self, count: int, cells: int, keep: float, size: tuple[int, int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.count, self.keep, self._size = count, keep, size
        self._cell = math.ceil(size[0] / cells), math.ceil(size[1] / cells)
        # One cell more than the picture needs, for the shift.
        self._open = (torch.rand(count, 1, cells + 1, cells + 1, generator=generator) < keep).float()
        self._shifts = [torch.randint(0, side, (count,), generator=generator).tolist() for side in self._cell]

    def __getitem__(self, part: slice) -> Tensor:
        """(M, H, W) in [0, 1]."""
        grids = self._open[part]
        large = [side * grids.shape[-1] for side in self._cell]
        drawn = F.interpolate(grids, large, mode="bilinear", align_corners=False)[:, 0]
        height, width = self._size
        places = zip(drawn, self._shifts[0][part], self._shifts[1][part], strict=True)
        return torch.stack([mask[y : y + height, x : x + width] for mask, y, x in places])


def _weighted(question: Question, image: Tensor, masks: Masks, centred: bool) -> Tensor:
    """(H, W) for one picture (3, H, W)."""

    def some(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        shown = masks[part].to(image)
        found, _ = question.scores(observe(question.network, image * shown[:, None], question.layers))
        weighted = torch.einsum("m,mhw->hw", found.to(image), shown)
        return weighted.cpu().double(), found.sum().cpu().double(), shown.sum(0).cpu().double()

    parts = zip(*batched(some, masks.count, question.network.max_batch, "masks"), strict=True)
    weighted, scores, seen = (torch.stack(part).sum(0) for part in parts)
    if centred:
        weighted -= scores / masks.count * seen
    return (weighted / (masks.count * masks.keep)).to(image.dtype)
