"""Occlusion: hide a part of the picture and see how far the class falls (Zeiler & Fergus 2014, section 4.2).

A window slides over the picture; at each position it is filled with something that says nothing, and the network is
asked again. The map is the drop that hiding causes:

    drop(position) = p(class | picture) - p(class | picture with the window hidden)

A pixel's value is the mean drop of the windows that cover it, so windows of any size can be laid over each other. The
paper fills with grey and shows the probability at each position; ``cells`` holds that map's drop, untouched. Where the
stride does not meet the border, the last window of a row or column stands against it, so every pixel is covered.

Only the activations that a window changes are computed again (see ``convscope.perturb``); the numbers are those of
full passes but for rounding, and the summary says how much arithmetic was not needed. Windows come in batches of a
bounded size and only their scores are kept, so memory does not grow with their number.

In bfloat16 a drop, the difference of two numbers that are nearly the same, loses digits: SqueezeNet's maps of eight
photographs keep a rank correlation of .98 to 1.00 with those in float32 (`benchmarks/occlusion.py --photographs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convscope.errors import OptionError
from convscope.hooks import OUTPUT
from convscope.images import blurred
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.perturb import Box, Outcome, Variations
from convscope.progress import over
from convscope.registry import Seed, Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe

Fill = Literal["mean", "zero", "grey", "blur", "noise"]
Side = Annotated[int, Field(ge=1)]


@technique(
    family="attribute",
    order=3,
    paper="Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2",
    see="Warm regions are those without which the class falls; hiding cold ones makes the network surer.",
    caution="What fills the window is seen too, and two parts of which either is enough both look unimportant.",
)
def occlusion(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    window: Annotated[
        Side | Sequence[Side],
        Field(description="side of the square that hides, in pixels; several at once if given so"),
    ] = 16,
    stride: Annotated[
        int, Field(ge=1, description="pixels from one position to the next, at most the window's side")
    ] = 8,
    fill: Annotated[
        Fill, Field(description="what hides: the picture's mean colour, black, mid-grey, its blurred self, or noise")
    ] = "mean",
    of: Annotated[
        Literal["probability", "score"],
        Field(description="what falls: the probability, or the score before the softmax"),
    ] = "probability",
    seed: Seed = 0,
) -> Heatmap:
    """How much hiding each part of the picture lowers the probability of a class.

    Args:
        network: a classifier, in float32 unless its precision is ``bfloat16``, which is faster where the processor
            multiplies such numbers and blurs the drops: maps of eight photographs on SqueezeNet keep a rank
            correlation of .98 to 1.00 with those in float32.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        window: side of the hiding square in pixels, or several, whose maps are averaged.
        stride: pixels from one position to the next.
        fill: ``mean`` colour of the picture, ``zero``, ``grey`` (0.5), ``blur`` (Gaussian, half the window wide),
            or ``noise`` (uniform, the same at every position).
        of: ``probability`` or ``score``.
        seed: of the noise.

    Returns:
        ``values`` (N, H, W), signed, in probability (or score): positive where hiding lowers it, averaged over the
        windows that cover a pixel. ``cells`` (N, rows, columns) is the drop at each position, for a single window.
        ``summary`` has the clean value, the lowest and where the window then lay, which engine ran and the share of
        the arithmetic of full passes that it did without.

    Raises:
        UnknownTarget; OptionError for a window larger than the picture or a stride larger than the window.
    """
    sides = [window] if isinstance(window, int) else list(dict.fromkeys(window))
    _check(sides, stride, images)
    question, variations = ask(network, target, of=of), Variations(network)
    found = [
        _occluded(question, variations, images, number, sides, stride, fill, seed)
        for number in over(len(images), "pictures")
    ]
    values, scores, targets = (torch.stack([item[name] for item in found]) for name in ("map", "score", "target"))
    cells = torch.stack([item["drops"][0] for item in found]) if len(sides) == 1 else None
    told = describe(question, values, scores, targets)
    for summary, item in zip(told["summaries"], found, strict=True):
        summary.update(item["said"])
    notes = [*told.pop("notes"), *dict.fromkeys(note for item in found for note in item["notes"])]
    return Heatmap(
        values=values, cells=cells, images=images, signed=True, quantity=f"drop of the {of} when hidden", notes=notes,
        **told,
    )  # fmt: skip


def _check(sides: Sequence[int], stride: int, images: Tensor) -> None:
    height, width = images.shape[-2:]
    if not sides:
        raise OptionError("occlusion: window is empty; give the side of a square in pixels, or several")
    if max(sides) > min(height, width):
        raise OptionError(
            f"occlusion: a window of {max(sides)} does not fit a picture of {height}x{width}; give at most "
            f"{min(height, width)}"
        )
    if stride > min(sides):
        raise OptionError(
            f"occlusion: a stride of {stride} leaves gaps between windows of {min(sides)}; give at most {min(sides)}"
        )


def _occluded(
    question: Question, variations: Variations, images: Tensor, number: int, sides: Sequence[int], stride: int,
    fill: Fill, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything about one picture."""
    image = images[number]
    question = question.of_part(slice(number, number + 1), len(images))
    with torch.no_grad():
        logits = question.network(image[None])
    scores, target = question.scores({OUTPUT: logits})
    asked = Question(question.network, int(target[0]), question.of)
    grids = [positions(image.shape[-2:], (side, side), (stride, stride)) for side in sides]
    outcomes = [
        variations.of(
            image, boxes(grid, (side, side)), filling(image, fill, side, seed), clean=logits[0],
            read=lambda logits: asked.scores({OUTPUT: logits})[0],
        )
        for grid, side in zip(grids, sides, strict=True)
    ]  # fmt: skip
    hidden = [outcome.logits.cpu() for outcome in outcomes]
    clean = scores[0].cpu()
    drops = [(clean - h).view(len(g[0]), len(g[1])) for h, g in zip(hidden, grids, strict=True)]
    maps = [spread(d, g, (s, s), image.shape[-2:]) for d, g, s in zip(drops, grids, sides, strict=True)]
    said = _summary(question.of, clean, hidden, grids, sides, outcomes)
    notes = sorted({f"full passes, since {outcome.reason}" for outcome in outcomes if outcome.reason})
    return {
        "map": torch.stack(maps).mean(0), "score": clean, "target": target[0], "drops": drops, "said": said,
        "notes": notes,
    }  # fmt: skip


Grid = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Tops and lefts of the windows; every top goes with every left."""


def positions(size: Sequence[int], window: tuple[int, int], stride: tuple[int, int]) -> Grid:
    """Where windows (height, width) stand on a picture of ``size``, the last ones against the border."""
    tops, lefts = (
        np.unique(np.minimum(np.arange(0, length - w + s, s), length - w))
        for length, w, s in zip(size, window, stride, strict=True)
    )
    return tops, lefts


def boxes(grid: Grid, window: tuple[int, int]) -> list[Box]:
    """One for each position, row by row."""
    return [(int(top), int(left), *window) for top in grid[0] for left in grid[1]]


def spread(drops: Tensor, grid: Grid, window: tuple[int, int], size: Sequence[int]) -> Tensor:
    """(H, W): for each pixel the mean of ``drops`` (rows, columns) over the windows that cover it."""
    covers = []
    for starts, side, length in zip(grid, window, size, strict=True):
        pixels = torch.arange(length)[:, None] - torch.from_numpy(starts)
        covers.append(((pixels >= 0) & (pixels < side)).to(torch.float64))
    rows, columns = covers
    sums = rows @ drops.double() @ columns.T
    return (sums / (rows.sum(1)[:, None] * columns.sum(1)).clamp(min=1)).to(drops.dtype)


def filling(image: Tensor, fill: Fill, side: int, seed: int) -> Tensor:
    """What stands behind the window: (3, H, W), or (3, 1, 1) for a colour."""
    if fill == "mean":
        return image.mean((1, 2), keepdim=True)
    if fill == "blur":
        return blurred(image[None].double(), side / 2)[0].to(image).clamp(0, 1)
    if fill == "noise":
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(image)
    return torch.full_like(image[:, :1, :1], 0.5 if fill == "grey" else 0.0)


def _summary(
    of: str, clean: Tensor, hidden: Sequence[Tensor], grids: Sequence[Grid], sides: Sequence[int],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:  # fmt: skip
    lowest = min(range(len(sides)), key=lambda size: float(hidden[size].min()))
    row, column = divmod(int(hidden[lowest].argmin()), len(grids[lowest][1]))
    where = {"top": int(grids[lowest][0][row]), "left": int(grids[lowest][1][column]), "window": sides[lowest]}
    engines = dict.fromkeys(outcome.engine for outcome in outcomes)
    done = [outcome.multiply_adds for outcome in outcomes]
    full = sum(outcome.full_multiply_adds or 0 for outcome in outcomes)
    saved = None if None in done or not full else 1 - sum(number or 0 for number in done) / full
    return {
        of: float(clean),
        "lowest": {of: float(hidden[lowest].min()), **where},
        "windows": sum(len(part) for part in hidden),
        "engine": " and ".join(engines),
        "arithmetic_saved": saved,
    }
