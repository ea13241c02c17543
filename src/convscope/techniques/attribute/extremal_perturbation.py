"""Extremal perturbations: the mask of a given area that keeps a score the highest (Fong, Patrick & Vedaldi 2019).

    mask(area) = argmax over smooth masks m of that area of  score(m * picture + (1 - m) * blurred picture)

Masks are smooth by construction: the pixels' values are a smooth maximum, over the cells v of a coarse grid, of
k(u - v) p(v) with p in [0, 1] (section 3.3, equations 6 and 7). The area is held by the distance between the sorted
values of the mask and those of a mask of that area that is only 0 and 1 (equation 4), whose weight grows.

Departures: Adam and 150 steps, where the authors' program takes 800 of momentum; the blurred picture is one Gaussian,
not a stack of them; the map is the mean of the masks over the areas, since one number a pixel is wanted: what is in
the mask already at a small area is brightest. ``cells`` has no part in it, since masks are at the pixels' resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope import progress
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.hooks import OUTPUT, observe
from convscope.images import blurred
from convscope.network import Network
from convscope.objectives import ask, class_score
from convscope.optimize import optimize
from convscope.registry import Target, technique
from convscope.regularizers import Penalty
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import answers, wide

CELLS = 32  # along the shorter side, as 7 px of 224
REACH = 3  # cells from a pixel to the farthest that it feels
TEMPERATURE = 1 / 20  # of the smooth maximum, section 3.3
WEIGHT = 300.0  # of the area at the first step
GROWTH = 1.0035**800  # of that weight over all steps
BLUR = 0.1  # standard deviation of the blurred picture, of its shorter side
START = 0.5  # of every cell

Area = Annotated[float, Field(gt=0, lt=1)]


@technique(
    family="attribute",
    paper="Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, section 3",
    see="The bright region is what must be left in focus for the network to stay sure: small and on the object.",
    caution=(
        "What lies outside is blurred and not gone, and blur is something that the network sees, too. Other masks of "
        "the same area may do as well; the summary says how much of the score each keeps."
    ),
    quick={"steps": 3, "area": [0.2, 0.5]},
    example={"steps": 40},
)
def extremal_perturbation(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    area: Annotated[
        Area | Sequence[Area],
        Field(description="share of the picture that a mask may show; several at once if so given"),
    ] = (0.05, 0.1, 0.2, 0.4),
    steps: Annotated[int, Field(ge=1, description="steps of the ascent for each mask")] = 150,
) -> Heatmap:
    """Which region of a given size, left in focus in a blurred picture, keeps a class's score the highest.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        area: share of the picture, or several; each has a mask of its own.
        steps: of the ascent.

    Returns:
        ``values`` (N, H, W) in [0, 1]: the mean of the masks over the areas. Each summary says, for each area, the
        score behind the mask and the probability of the class.

    Raises:
        UnknownTarget; OptionError for no area.
    """
    areas = [area] if isinstance(area, float) else list(dict.fromkeys(area))
    if not areas:
        raise OptionError("extremal-perturbation: area is empty; give a share of the picture, such as 0.1")
    question = ask(network, target)
    scores, targets = answers(question, images)
    found = [
        _masks(network, image, int(of), areas, steps)
        for image, of in zip(progress.over(wide(images), "pictures", len(images)), targets, strict=True)
    ]
    values = torch.stack([masks.mean(0) for masks, _ in found])
    told = describe(question, values, scores, targets)
    for summary, (_, kept) in zip(told["summaries"], found, strict=True):
        summary["areas"] = kept
    return Heatmap(
        values=values, images=images, signed=False, quantity="mean of the masks over the areas", **told
    )  # fmt: skip


def _masks(
    network: Network, image: Tensor, target: int, areas: Sequence[float], steps: int
) -> tuple[Tensor, list[dict[str, Any]]]:
    """(A, H, W) masks of one picture, and what the network says behind each."""

    def some(part: slice) -> tuple[Tensor, Tensor]:
        masked = Masked(image.to(network.device), len(areas[part]))
        held = HeldArea(masked, areas[part], steps)
        for _ in optimize(network, class_score(network, target), masked, steps=steps, rate=0.05, regularizers=[held]):
            pass
        with torch.no_grad():
            logits = network.check_logits(observe(network, masked.images(), [OUTPUT])[OUTPUT])
            return masked.masks().cpu(), logits.float().cpu()

    masks, logits = (torch.cat(parts) for parts in zip(*batched(some, len(areas), network.max_batch), strict=True))
    kept = [
        {
            "area": area, "covered": float(mask.mean()), "score": float(row[target]),
            "probability": float(row.softmax(0)[target]),
        }
        for area, mask, row in zip(areas, masks, logits, strict=True)
    ]  # fmt: skip
    return masks, kept


class Masked:
    """One picture behind ``count`` masks: in focus where a mask is one, blurred where it is zero."""

    def __init__(self, image: Tensor, count: int) -> None:
        self._image = image
        self._blurred = blurred(image[None], BLUR * min(image.shape[-2:]))[0]
        self._step = max(1, min(image.shape[-2:]) // CELLS)
        rows, columns = (math.ceil(side / self._step) for side in image.shape[-2:])
        self.cells = torch.full((count, 1, rows, columns), START, device=image.device, dtype=image.dtype)
        self.cells.requires_grad_()
        self._kernel = kernel(self._step).to(image)

    def parameters(self) -> list[Tensor]:
        return [self.cells]

    def masks(self) -> Tensor:
        """(count, H, W) in [0, 1]."""
        height, width = self._image.shape[-2:]
        return smooth_maximum(self.cells, self._kernel, self._step)[:, :height, :width]

    def images(self) -> Tensor:
        masks = self.masks()[:, None]
        return masks * self._image + (1 - masks) * self._blurred

    def project(self) -> None:
        with torch.no_grad():
            self.cells.clamp_(0, 1)


def kernel(step: int) -> Tensor:
    """(step^2, K^2): how much each pixel of a cell feels the cells around it, exp(-max(0, distance - 1)^2 / 4).

    Distances are in units of the standard deviation, which is a cell's side (section 3.3).
    """
    around = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    inside = (torch.arange(step, dtype=torch.float64) + 0.5) / step - 0.5
    squares = (inside[:, None] - around).square()
    distance = (squares[:, None, :, None] + squares[None, :, None, :]).sqrt()
    return torch.exp(-(distance - 1).clamp(min=0).square() / 4).flatten(2).flatten(0, 1).float()


def smooth_maximum(cells: Tensor, weights: Tensor, step: int) -> Tensor:
    """(N, 1, h, w) cells to (N, h * step, w * step): sum of f exp(f / T) / sum of exp(f / T), f = k p (equation 7)."""
    rows, columns = cells.shape[-2:]
    around = F.unfold(F.pad(cells, (REACH,) * 4, mode="replicate"), 2 * REACH + 1)
    felt = around[:, None] * weights[None, :, :, None]
    found = (felt * (felt / TEMPERATURE).softmax(2)).sum(2)
    return F.pixel_shuffle(found.view(len(cells), step * step, rows, columns), step)[:, 0]


class HeldArea(Penalty):
    """weight * mean of (sorted mask - wanted)^2, wanted being zeros and then ones of the share ``area``.

    The weight grows from call to call, as if once a step, until the mask has its area whatever the score says.
    """

    def __init__(self, masked: Masked, areas: Sequence[float], steps: int) -> None:
        self._masked, self._areas, self._steps, self._calls = masked, areas, steps, 0

    def __call__(self, images: Tensor) -> Tensor:
        values = self._masked.masks().flatten(1).sort(1).values
        places = torch.arange(values.shape[1], device=values.device)
        borders = torch.tensor([round((1 - area) * values.shape[1]) for area in self._areas], device=values.device)
        wanted = (places[None] >= borders[:, None]).to(values)
        weight = WEIGHT * GROWTH ** (self._calls / self._steps)
        self._calls += 1
        return weight * (values - wanted).square().mean(1)
