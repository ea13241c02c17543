"""From a heat map of any technique to parts of the picture."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from skimage.measure import label
from torch import Tensor

from convscope.errors import OptionError, nearest
from convscope.images import blurred
from convscope.network import Network
from convscope.objectives import Of
from convscope.registry import Technique, discover, load
from convscope.results import Heatmap

Mask = NDArray[np.bool_]
Method = Annotated[str, Field(description="technique whose heat map is used, by its command's name")]
MethodsOf = Annotated[
    Of | None, Field(description="score, probability or loss, where the method has the choice; its own if left out")
]
Blur = Annotated[
    float | None,
    Field(
        ge=0,
        description="standard deviation of a blur of the map, of the picture's longer side; if left out 0.03, and none "
        "for maps that were computed in cells",
    ),
]
BLUR = 0.03


def heat_map(method: str, network: Network, images: Tensor, **options: Any) -> Heatmap:
    """What a technique gives for pictures (N, 3, H, W); options that are None are left to it.

    Raises :class:`OptionError` for what is no technique, makes no heat map, or lacks an option.
    """
    technique = _technique(method)
    given = {name: value for name, value in options.items() if value is not None}
    known = {option.name for option in technique.options}
    for name in given:
        if name not in known:
            raise OptionError(f"{technique.name} has no option {name!r}; leave it out, or choose another method")
    found: Heatmap = technique(network, images, **given)
    return found


def _technique(method: str) -> Technique[..., Any]:
    name = method.replace("_", "-")
    if name not in discover():
        raise OptionError(f"there is no technique {method!r}{nearest(name, discover())}")
    found = load(name)
    returned = typing.get_type_hints(found.function).get("return")
    if returned is not Heatmap:
        raise OptionError(f"{name} makes no heat map; give one that does, such as gradcam, saliency or occlusion")
    return found


def smoothed(heat: Heatmap, blur: float | None) -> Tensor:
    """(N, H, W): the map, blurred by a share of the picture's longer side; pixels speckle, and cells do not."""
    share = blur if blur is not None else (0.0 if heat.cells is not None else BLUR)
    if share == 0:
        return heat.values
    return blurred(heat.values[:, None], share * max(heat.values.shape[1:]))[:, 0]


def parts(found: Mask, most: int) -> list[Mask]:
    """The connected parts (H, W) of a mask, corners touching, the largest first and at most so many."""
    labels = label(found, connectivity=2)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == each + 1 for each in np.argsort(-sizes, kind="stable")[:most]]


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, height and width of the box around a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def described(box: Sequence[int], **more: float) -> dict[str, Any]:
    """A box for a summary."""
    return {**dict(zip(("top", "left", "height", "width"), box, strict=True)), **more}


def share(heat: NDArray[Any], inside: Mask) -> float:
    """How much of what a map (H, W) has above zero lies inside; 0 where there is nothing."""
    positive = np.clip(heat, 0, None)
    total = float(positive.sum(dtype=np.float64))
    return float(positive[inside].sum(dtype=np.float64)) / total if total > 0 else 0.0


def which(number: int, count: int) -> str:
    """How a note names a picture of several."""
    return f"picture {number + 1}: " if count > 1 else ""


def kept(heat: Heatmap) -> Mapping[str, Any]:
    """The fields of a heat map that a result made of it has, too."""
    names = ("values", "images", "signed", "quantity", "titles", "cells", "layer")
    return {name: getattr(heat, name) for name in names}
