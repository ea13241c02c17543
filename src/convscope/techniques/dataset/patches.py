"""What makes channels fire: the strongest patches of a data set, and what the network sees in them.

For each channel the patches of pictures at which it is strongest are cut from the original photographs: the pixels that
the unit sees, its receptive field, with something around them. Beside each stands its picture by a backward rule, as in
the rows of Springenberg et al. (2014, figure 3) or in the panels of Zeiler & Fergus (2014, figure 2).

Departures: channels are drawn by chance from those that ever fire, so that none is picked by hand; the papers' are
chosen. The deconvnet's switches are those of max pooling's own backward pass, and its filters are not scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.backward import PLAIN, RULES, GradientRule, gradient
from convscope.batching import batched
from convscope.errors import OptionError, RuleError
from convscope.hooks import observe
from convscope.images import to_pil
from convscope.index import Index, Patches
from convscope.network import Network
from convscope.registry import Seed, technique
from convscope.results import Panel, Rows
from convscope.techniques.attribute.neuron import Spot, activations_at, boxes_of
from convscope.techniques.dataset._pictures import rows_of

STAGES = "stages"  # the last layer of each resolution
ROW, BLOCK = 6, 9  # patches of a unit, in a row or in a block of three by three
TILE = 128  # pixels of the longer side of a patch
CHANGED = 0.1  # of an activation: how far the scan's rounding may be from what is computed now
Box: TypeAlias = tuple[float, float, float, float]  # top, left, bottom, right


@technique(
    family="dataset",
    order=3,
    paper=(
        "Springenberg et al. 2014, arXiv:1412.6806, section 3.4, figure 3; Zeiler & Fergus 2014, arXiv:1311.2901, "
        "section 4.1, figure 2"
    ),
    see=(
        "What the patches of a row have in common, and which strokes the network goes by: from edges in the first "
        "layers to parts of things in the last."
    ),
    caution=(
        "The strongest few of thousands are shown: what else a channel fires for, and how often, is not seen here. The "
        "guided and deconvnet rules draw crisp edges for random weights as well."
    ),
    quick={"units": 2, "count": 2},
)
def patches(
    index: Index,
    *,
    layer: Annotated[
        str | Sequence[str] | None,
        Field(description="layer, or several; stages for the last layer of each resolution; chosen if left out"),
    ] = None,
    unit: Annotated[
        int | Sequence[int] | None, Field(description="channel, or several; drawn from those that fire if left out")
    ] = None,
    units: Annotated[int, Field(ge=1, description="channels of each layer, where none are named")] = 6,
    count: Annotated[
        int | None, Field(ge=1, description="patches of each channel; 6 in rows and 9 in panels if left out")
    ] = None,
    rule: Annotated[
        Literal["guided", "deconvnet", "plain"], Field(description="what rectifiers do to the gradient on its way back")
    ] = "guided",
    arrangement: Annotated[
        Literal["rows", "panels"], Field(description="a row for each channel, or panels of three by three")
    ] = "rows",
    context: Annotated[
        float, Field(ge=0, le=4, description="what is shown around the receptive field, as a share of its sides")
    ] = 0.25,
    seed: Seed = 0,
) -> Rows:
    """What makes channels fire: the strongest patches of a data set, and what the network sees in them.

    Args:
        index: what a scan wrote; its pictures must be where they were.
        layer: one or several of ``index.layers``; ``stages``; the network's last layer with spatial extent if left out.
        unit: channels of each of these layers.
        units: how many are drawn where none are named.
        count: at most as many as the scan kept.
        rule: ``guided``, ``deconvnet`` or ``plain``.
        arrangement: ``rows`` as in the first paper, ``panels``, layer by layer, as in the second.
        context: a quarter on each side by default, with the receptive field outlined; 0 cuts exactly there.
        seed: of the channels drawn.

    Returns:
        ``values`` (units, count), activations as the scan found them, NaN where a channel fired in fewer pictures. The
        summary lists ``units``, each with ``layer``, ``channel``, ``share`` (of pictures in which it fires) and its
        ``patches``: ``path``, ``label``, ``activation``, ``row`` and ``column`` of the layer, ``seen`` (top, left,
        bottom, right), the pixels of the prepared picture that the unit sees, and ``place``, the same in pixels of the
        original. The gradients are in activation per unit of pixel value, untouched.

    Raises:
        OptionError: a layer that was not scanned, a channel that it lacks, or no channel that ever fires.
        IndexUnusable: the pictures are no longer there.
    """
    names = _layers(index, layer)
    count = count or (ROW if arrangement == "rows" else BLOCK)
    strongest = {name: index.patches(name) for name in names}
    chosen = {name: _channels(index, name, found.values, unit, units, seed) for name, found in strongest.items()}
    notes: list[str] = []
    rows = []
    for name in progress.over(names, "layers"):
        found = [(channel, _cuts(strongest[name], channel, count)) for channel in chosen[name]]
        rows += _drawn(index, name, found, RULES[rule], context, notes)
    return _result(index, rows, count, rule, arrangement, context, notes)


@dataclass(frozen=True)
class Cut:
    """A place where a channel is strongest: the picture and the unit."""

    id: int
    spot: Spot


@dataclass(frozen=True)
class Row:
    """A channel with its patches in colour and its gradients, each (K, 3, h, w), and what is known of them."""

    layer: str
    channel: int
    cuts: Sequence[Cut]
    photographs: Sequence[Tensor]
    gradients: Sequence[Tensor]
    boxes: Sequence[Box]  # within the tile of the gradient
    seen: Sequence[Box]
    places: Sequence[Box]


# ---- which


def _layers(index: Index, layer: str | Sequence[str] | None) -> list[str]:
    if layer is None:
        default = index.network.default_layer
        return [default if default in index.layers else index.layers[-1]]
    given = [layer] if isinstance(layer, str) else list(layer)
    if given != [STAGES]:
        return given
    stages: dict[Any, str] = {index.network.layer(name).grid: name for name in index.layers}
    return list(stages.values())


def _channels(
    index: Index, layer: str, values: NDArray[np.float32], unit: int | Sequence[int] | None, units: int, seed: int
) -> list[int]:
    if unit is not None:
        wanted = [unit] if isinstance(unit, int) else list(unit)
        wrong = next((channel for channel in wanted if not 0 <= channel < len(values)), None)
        if wrong is not None:
            raise OptionError(f"layer {layer!r} has channels 0 to {len(values) - 1}, not {wrong}")
        return wanted
    live = np.flatnonzero(values[:, 0] > 0)
    if not len(live):
        raise OptionError(f"no channel of layer {layer!r} ever fires in {index.path}; `convscope health` says more")
    drawn = np.random.default_rng(seed).choice(live, min(units, len(live)), replace=False)
    return sorted(drawn.tolist())


def _cuts(found: Patches, channel: int, count: int) -> list[Cut]:
    kept = [place for place in range(min(count, found.ids.shape[1])) if found.ids[channel, place] >= 0]
    cuts = []
    for place in kept:
        row, column, value = (a[channel, place] for a in (found.rows, found.columns, found.values))
        cuts.append(Cut(int(found.ids[channel, place]), Spot(channel, int(row), int(column), float(value))))
    return cuts


# ---- how they look


def _drawn(
    index: Index, layer: str, found: Sequence[tuple[int, Sequence[Cut]]], rule: GradientRule, context: float,
    notes: list[str],
) -> list[Row]:  # fmt: skip
    """The rows of one layer; its pictures are read once."""
    ids = sorted({cut.id for _, cuts in found for cut in cuts})
    images = {i: index.image(i) for i in progress.over(ids, "photographs")}
    prepared = {i: index.network.prepare(image) for i, image in images.items()}
    cuts = [cut for _, each in found for cut in each]
    slopes, values = _slopes(index.network, layer, [prepared[cut.id] for cut in cuts], cuts, rule, notes)
    changed = sum(
        abs(v - c.spot.activation) > CHANGED * abs(c.spot.activation) for v, c in zip(values, cuts, strict=True)
    )
    if changed:
        notes.append(
            f"{changed} of {len(cuts)} patches of {layer} fire otherwise than in the scan: the pictures changed"
        )
    boxes = boxes_of(index.network, layer, [cut.spot for cut in cuts], index.network.input_size)
    rows, start = [], 0
    for channel, each in found:
        part = slice(start, start + len(each))
        start = part.stop
        rows.append(_row(index.network, layer, channel, each, images, slopes[part], boxes[part], context))
    return rows


def _slopes(
    network: Network, layer: str, images: Sequence[Tensor], cuts: Sequence[Cut], rule: GradientRule, notes: list[str]
) -> tuple[list[Tensor], list[float]]:
    """(3, H, W) gradient of each unit by its picture, and its activation now."""

    def some(part: slice) -> tuple[Tensor, Tensor]:
        batch = torch.stack(list(images[part])).to(network.device).requires_grad_()
        seen = observe(network, batch, [layer])
        scores = activations_at(network.maps(layer, seen[layer]), [cut.spot for cut in cuts[part]])
        return gradient(scores, batch, rule).cpu().float(), scores.detach().cpu().float()

    try:
        passes = list(batched(some, len(cuts), network.at_once(torch.empty(0, *network.input_size)), "patches"))
    except RuleError:
        notes.append(f"no rectifier lies between the picture and {layer}: its gradient is plain")
        return _slopes(network, layer, images, cuts, PLAIN, notes)
    return [slope for slopes, _ in passes for slope in slopes], [float(v) for _, values in passes for v in values]


def _row(
    network: Network, layer: str, channel: int, cuts: Sequence[Cut], images: dict[int, Tensor],
    slopes: Sequence[Tensor], boxes: Sequence[tuple[int, int, int, int]], context: float,
) -> Row:  # fmt: skip
    size = _field_size(network, layer)
    photographs, gradients, within, places = [], [], [], []
    for cut, slope, box in zip(cuts, slopes, boxes, strict=True):
        image = images[cut.id]
        shape = (image.shape[1], image.shape[2])
        window = window_around(box, size, context, network.input_size)
        sides = window[2] - window[0], window[3] - window[1]
        photographs.append(photograph(image, network.unprepared(window, shape), sides))
        gradients.append(slope[:, window[0] : window[2], window[1] : window[3]])
        within.append(_relative(box, window))
        places.append(network.unprepared(box, shape))
    return Row(layer, channel, cuts, photographs, gradients, within, boxes, places)


def _field_size(network: Network, layer: str) -> tuple[int, int]:
    """What a unit in the middle sees, no more than the picture."""
    field = network.receptive_fields.get(layer)
    height, width = network.input_size
    return (height, width) if field is None else (min(field.size[0], height), min(field.size[1], width))


def window_around(
    box: tuple[int, int, int, int], size: tuple[int, int], context: float, picture: tuple[int, int]
) -> tuple[int, int, int, int]:
    """What is cut: around the middle of ``box``, as large as ``size`` and its context, inside the prepared picture."""
    ends = []
    for axis in (0, 1):
        length = min(max(round(size[axis] * (1 + 2 * context)), 1), picture[axis])
        start = round((box[axis] + box[axis + 2] - length) / 2)
        start = min(max(start, 0), picture[axis] - length)
        ends.append((start, start + length))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def photograph(image: Tensor, place: Box, sides: tuple[int, int]) -> Tensor:
    """(3, h, w) of a box of a photograph (3, H, W), which need not lie on whole pixels.

    The tile has the proportions of ``sides`` (height, width), those of the prepared picture, and 128 pixels at most.
    """
    top, left, bottom, right = place
    height, width = image.shape[1:]
    box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    size = max(1, round(sides[1] * TILE / max(sides))), max(1, round(sides[0] * TILE / max(sides)))
    drawn = np.asarray(to_pil(image).resize(size, 3, box=box))  # 3: bicubic, which also shrinks without aliasing
    return torch.from_numpy(drawn.astype(np.float32) / 255).permute(2, 0, 1)


def _relative(box: Sequence[float], window: Sequence[float]) -> Box:
    return box[0] - window[0], box[1] - window[1], box[2] - window[0], box[3] - window[1]


# ---- the result


def _result(
    index: Index, rows: Sequence[Row], count: int, rule: str, arrangement: str, context: float, notes: list[str]
) -> Rows:
    ids = sorted({cut.id for row in rows for cut in row.cuts})
    known = dict(zip(ids, rows_of(index, ids, ["path", "label"]), strict=True))
    fires = {name: 1 - index.statistics(name).silent for name in {row.layer for row in rows}}
    values = torch.full((len(rows), count), torch.nan)
    for line, row in zip(values, rows, strict=True):
        line[: len(row.cuts)] = torch.tensor([cut.spot.activation for cut in row.cuts])
    several = len({row.layer for row in rows}) > 1
    outlined = context > 0
    names = {"guided": "guided backpropagation", "deconvnet": "deconvnet", "plain": "gradient"}
    return Rows(
        values=values, per_picture=False, layer=None if several else rows[0].layer,
        panels=[
            Panel("patches", [_together(row.photographs) for row in rows], boxes=_boxes(rows) if outlined else []),
            Panel(names[rule], [_together(row.gradients) for row in rows], signed=True),
        ],
        titles=[_named(index.network, row) for row in rows],
        subtitles=[_under(row, fires[row.layer]) for row in rows] if arrangement == "rows" else (),
        sections=[row.layer for row in rows] if several else (), columns=3 if arrangement == "panels" else None,
        summaries=[{"rule": rule, "units": [_said(index.network, row, known, fires[row.layer]) for row in rows]}],
        notes=notes,
    )  # fmt: skip


def _named(network: Network, row: Row) -> str:
    """The class that the channel stands for, else its number."""
    label = network.class_of(row.layer, row.channel)
    return f"channel {row.channel}" if label is None else label.partition(",")[0].replace("_", " ")


def _together(tiles: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tiles)) if tiles else torch.zeros(0, 3, 1, 1)


def _boxes(rows: Sequence[Row]) -> list[Tensor]:
    """The receptive fields in pixels of the photographs' tiles."""
    found = []
    for row in rows:
        scaled = []
        for box, tile, slope in zip(row.boxes, row.photographs, row.gradients, strict=True):
            down, across = tile.shape[1] / slope.shape[1], tile.shape[2] / slope.shape[2]
            scaled.append([box[0] * down, box[1] * across, box[2] * down, box[3] * across])
        found.append(torch.tensor(scaled).reshape(-1, 4))
    return found


def _under(row: Row, fires: NDArray[np.float64]) -> str:
    strongest = row.cuts[0].spot.activation if row.cuts else 0.0
    return f"in {fires[row.channel]:.0%} of pictures\nstrongest {strongest:.3g}"


def _said(
    network: Network, row: Row, known: dict[int, dict[str, Any]], fires: NDArray[np.float64]
) -> dict[str, Any]:  # fmt: skip
    told = [
        {
            "path": known[cut.id]["path"], "label": known[cut.id]["label"], "activation": cut.spot.activation,
            "row": cut.spot.row, "column": cut.spot.column, "seen": list(seen), "place": [float(p) for p in place],
        }
        for cut, seen, place in zip(row.cuts, row.seen, row.places, strict=True)
    ]  # fmt: skip
    return {"layer": row.layer, "channel": row.channel, "share": float(fires[row.channel]), "patches": told}
