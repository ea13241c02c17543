"""From a heat map to boxes: the largest connected part above a threshold (Zhou 2016, section 3.2).

A pixel belongs to a part when the map there is above ``threshold`` times its largest value; the box is drawn around the
largest part, corners touching. The paper does so with CAM and a fifth of the maximum; here the map is that of any
technique. Maps of single pixels, such as saliency, are blurred first, or their parts would be specks; the values that
come back are never blurred.

A fifth is also the best for the default, Grad-CAM, on the built-in network: on 31 photographs laid on others, held back
from the choice, the box overlaps with the true one by .61 (.56 to .66); a box that is always in the middle by .50, as
does Grad-CAM's at a twentieth or two fifths. LayerCAM likes the same, Grad-CAM++ about a third
(`benchmarks/localize.py`).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convscope.network import Network
from convscope.registry import Target, UnitOption, technique
from convscope.results import Regions
from convscope.techniques.attribute._cam import Layers
from convscope.techniques.attribute._regions import (
    Blur,
    Mask,
    Method,
    MethodsOf,
    box_of,
    described,
    heat_map,
    kept,
    parts,
    share,
    smoothed,
    which,
)  # fmt: skip


@technique(
    family="attribute",
    paper="Zhou et al. 2016, arXiv:1512.04150, section 3.2",
    see="The box holds the object whose class the network names, and not more than it.",
    caution=(
        "The box is around the evidence, not around the object: a network that knows a dog by its face boxes the face. "
        "The threshold decides how wide it is."
    ),
)
def localize(
    network: Network,
    images: Tensor,
    *,
    method: Method = "gradcam",
    target: Target = None,
    of: MethodsOf = None,
    layer: Layers = None,
    unit: UnitOption = None,
    threshold: Annotated[
        float, Field(ge=0, lt=1, description="share of the map's maximum above which a pixel belongs to a part")
    ] = 0.2,
    boxes: Annotated[int, Field(ge=1, description="most boxes a picture, the largest part first")] = 1,
    blur: Blur = None,
) -> Regions:
    """Where in the picture a class is: a box around the largest part of a heat map.

    Args:
        network: any network that the method takes.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        method: any technique that makes a heat map.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        of, layer, unit: handed to the method, where it has them.
        threshold: share of the maximum of the (blurred) map.
        boxes: how many of the parts get a box.
        blur: of the map before the threshold, as a share of the longer side.

    Returns:
        ``values`` (N, H, W), the method's untouched map. ``boxes`` (N, K, 4) in pixels, ``masks`` (N, H, W) the parts
        that they are around. Each summary has ``box`` (``top``, ``left``, ``height``, ``width`` and ``share``, how much
        of the positive evidence lies in it), None where nothing is above zero or the map is constant, and ``boxes``.

    Raises:
        OptionError for a method that makes no heat map or lacks an option; what the method raises.
    """
    heat = heat_map(method, network, images, target=target, of=of, layer=layer, unit=unit)
    maps = smoothed(heat, blur).numpy()
    found = [_parts(smooth, threshold, boxes) for smooth in maps]
    summaries = [
        _summary(summary, method, values, masks)
        for summary, values, masks in zip(heat.summaries, heat.values.numpy(), found, strict=True)
    ]
    notes = [f"{which(number, len(maps))}there is no box" for number, masks in enumerate(found) if not masks]
    return Regions(
        **kept(heat), summaries=summaries, notes=[*heat.notes, *notes], outlined="box",
        boxes=torch.tensor([_padded([box_of(mask) for mask in masks], boxes) for masks in found]),
        masks=torch.from_numpy(np.stack([np.any([np.zeros(maps.shape[1:], bool), *masks], 0) for masks in found])),
    )  # fmt: skip


def _parts(heat: NDArray[Any], threshold: float, most: int) -> list[Mask]:
    """The parts (H, W) of a map above a share of its maximum; none where there is no evidence, or no difference."""
    high = float(heat.max())
    if high <= 0 or high == float(heat.min()):
        return []
    return parts(heat > threshold * high, most)


def _summary(summary: Any, method: str, heat: NDArray[Any], masks: list[Mask]) -> dict[str, Any]:
    found = []
    for mask in masks:
        top, left, height, width = box = box_of(mask)
        inside = np.zeros_like(mask)
        inside[top : top + height, left : left + width] = True
        found.append(described(box, share=share(heat, inside)))
    return {**summary, "method": method, "box": found[0] if found else None, "boxes": found}


def _padded(boxes: list[tuple[int, int, int, int]], count: int) -> list[tuple[int, int, int, int]]:
    return [*boxes, *[(0, 0, 0, 0)] * (count - len(boxes))]
