"""A photograph painted in one pass by a network that was trained for the style (Johnson et al. 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.feedforward.files import shipped
from convscope.feedforward.painting import brush
from convscope.images import resize
from convscope.registry import technique
from convscope.results import Synthesis
from convscope.techniques.synthesize._run import at_most

Style = Annotated[
    str | Path,
    Field(
        description=f"{', '.join(shipped())}, or FILE of `convscope train-style`; FILE:NAME where it holds several",
        examples=list(shipped()),
    ),
]
Strength = Annotated[
    float, Field(ge=0, le=1, description="share of the painting in the picture, the photograph's rest")
]

LARGE = 512  # longer side, in pixels, from which on pictures are painted at their own size


@technique(
    family="synthesize",
    order=8,
    keeps_size=True,
    films=True,
    paper="arXiv:1603.08155, section 3; arXiv:1701.02096; arXiv:1610.07629, section 2",
    see="The photograph's shapes in the painting's strokes and colours.",
    caution=(
        "The network has learned what one painting's textures look like to another network, not how its painter saw: "
        "strokes have one size in pixels, whatever the picture's, so scale the picture to change them."
    ),
)
def stylize(
    images: Tensor,
    *,
    style: Style = "starry-night",
    strength: Strength = 1.0,
    size: Annotated[
        int | None, Field(ge=1, description="longer side of the picture at most, in pixels; as it is if left out")
    ] = None,
    scale: Annotated[
        float | None,
        Field(ge=1, le=4, description="paint at so many times the size: finer strokes; chosen for small pictures"),
    ] = None,
) -> Synthesis:
    """Photographs and films painted in the style of a painting, in one pass each.

    A convolutional network that ``convscope train-style`` trained does in one pass what ``convscope style`` does in
    hundreds of steps for any painting. It comes with styles of its own, trained on paintings in the public domain.

    Args:
        images: (3, H, W) or (N, 3, H, W) in [0, 1], of any size. Above 4 million pixels, or where memory runs out, they
            are painted in tiles without a seam, whose statistics are taken from a sample of the picture.
        style: name or file.
        strength: s of s * painted + (1 - s) * photograph.
        size: of the longer side.
        scale: the picture is painted at this many times its size and made smaller again. Left out, what has a longer
            side below 512 pixels is painted at up to twice its size: where a few strokes are as large as the things
            in a picture, they hide them.

    Returns:
        ``values`` (N, 3, H, W) in [0, 1]; ``originals`` the photographs. Each summary holds ``style``, ``weights``,
        ``strength``, ``scale`` and ``precision``: bfloat16 where the device is fast in it.

    Raises:
        OptionError for an unknown style; NetworkError for a file that is no style.
    """
    paint = brush(style)
    given, images = images, images if size is None else at_most(images, size)
    sides = (images.shape[-2], images.shape[-1])
    times = scale or min(2.0, max(1.0, LARGE / max(sides)))
    large = (
        images
        if times == 1
        else resize(given.float(), (round(sides[0] * times), round(sides[1] * times)), mode="bicubic")
    )
    painted = torch.stack([paint(image) for image in progress.over(list(large), "pictures")])
    painted = painted if times == 1 else resize(painted, sides)
    mixed = painted if strength == 1 else images.to(painted).lerp(painted, strength)
    about = {
        "style": paint.name,
        "weights": paint.source,
        "strength": strength,
        "scale": times,
        "precision": paint.precision,
    }
    return Synthesis(
        values=mixed, originals=images, titles=[paint.name] * len(images), summaries=[about] * len(images)
    )  # fmt: skip
