"""What the page shows at once, without a job: predictions, feature maps, receptive fields, changes of the picture."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.backward import GUIDED, PLAIN, gradient
from convscope.errors import OptionError, RuleError
from convscope.explorer.pictures import Pictures, png, stacked
from convscope.feedforward.files import shipped
from convscope.feedforward.painting import brush
from convscope.hooks import observe
from convscope.images import to_uint8
from convscope.network import LayerInfo, Network
from convscope.perturb import Box, Variations
from convscope.views.colour import overlay, scale_of, symmetric_colour

T = TypeVar("T")
PAGE = 64  # channels of a sheet
TOP = 5  # classes whose change is shown
BEST = 9  # patches of a unit
KEPT = 24  # layers of pictures in memory
BRUSHES = 400  # squares of a painted occluder
BINS = 32  # of a histogram
FULL = 0.995  # share of a gradient's values below full colour: a few would leave the rest grey
FINEST = 512  # rows or columns of a grid whose fields are told one by one


@dataclass
class Live:
    """Passes of the network for one page; one at a time, since they share the processor."""

    network: Network
    pictures: Pictures
    alone: threading.RLock = field(default_factory=threading.RLock)
    _kept: OrderedDict[Any, Any] = field(default_factory=OrderedDict)

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        """What was made before for the same key, or now; the network is asked by one at a time."""
        with self.alone:
            if key not in self._kept:
                self._kept[key] = make()
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    # ---- what it says

    def probabilities(self, name: str) -> Tensor:
        """(classes,) of a picture."""
        return self._once(("probabilities", name), lambda: self._shares(self.pictures.image(name)))

    def _shares(self, image: Tensor) -> Tensor:
        with torch.no_grad(), self.alone:
            return self.network(image[None])[0].float().softmax(0).cpu()

    def prediction(self, name: str, count: int = TOP) -> list[dict[str, Any]]:
        """The classes that it finds most likely, best first."""
        return self._listed(self.probabilities(name), count)

    def _listed(self, shares: Tensor, count: int) -> list[dict[str, Any]]:
        best = shares.topk(min(count, len(shares)))
        return [
            {"index": int(i), "label": self.network.label(int(i)), "probability": float(p)}
            for p, i in zip(best.values, best.indices, strict=True)
        ]

    # ---- feature maps

    def maps(self, name: str, layer: str) -> Tensor:
        """(C, h, w) of a layer."""

        def make() -> Tensor:
            with torch.no_grad():
                seen = observe(self.network, self.pictures.image(name)[None], [layer])[layer]
            return self.network.maps(layer, seen)[0].float().cpu().clone()

        self.network.layer(layer)
        return self._once(("maps", name, layer), make)

    def sheet(self, name: str, layer: str, page: int) -> tuple[bytes, dict[str, Any]]:
        """A PNG with up to 64 maps beside each other, all on one scale, and where each of them is."""
        maps = self.maps(name, layer)
        part = maps[page * PAGE : (page + 1) * PAGE]
        if not len(part):
            raise OptionError(f"layer {layer!r} has {len(maps)} channels, so there is no page {page}")
        scale = scale_of(maps.numpy(), signed=bool((maps < 0).any()))
        height, width = part.shape[1:]
        columns = min(len(part), 8)
        rows = -(-len(part) // columns)
        canvas = np.full((rows * height, columns * width, 3), 255, np.uint8)
        for index, tile in enumerate(part.numpy()):
            top, left = index // columns * height, index % columns * width
            canvas[top : top + height, left : left + width] = scale.colours(tile)
        about = {
            "first": page * PAGE, "count": len(part), "channels": len(maps), "pages": -(-len(maps) // PAGE),
            "columns": columns, "rows": rows, "height": height, "width": width,
            "maxima": part.flatten(1).amax(1).tolist(), "zeros": (part == 0).flatten(1).float().mean(1).tolist(),
            "low": float(maps.min()), "high": float(maps.max()), "remark": scale.remark,
        }  # fmt: skip
        return png(canvas), about

    def overlaid(self, name: str, layer: str, channel: int) -> bytes:
        """A channel's map laid over the picture, as a PNG."""
        maps = self.maps(name, layer)
        if not 0 <= channel < len(maps):
            raise OptionError(f"layer {layer!r} has channels 0 to {len(maps) - 1}, not {channel}")
        image = self.pictures.image(name)
        scale = scale_of(maps.numpy(), signed=bool((maps < 0).any()))
        full = F.interpolate(maps[None, channel : channel + 1], image.shape[1:], mode="bilinear", align_corners=False)
        return png(overlay(to_uint8(image), full[0, 0].numpy(), scale))

    def fields(self, layer: str) -> dict[str, Any] | None:
        """Pixels that each row and each column of a layer's grid sees, half open; None where it has none."""
        with self.alone:
            found = self.network.receptive_fields.get(layer)
        if found is None or max(found.units) > FINEST:
            return None
        rows, columns = found.units
        boxes = [found.box(row, columns // 2) for row in range(rows)]
        across = [found.box(rows // 2, column) for column in range(columns)]
        return {
            "rows": [[box[0], box[2]] for box in boxes], "columns": [[box[1], box[3]] for box in across],
            "size": list(found.size), "whole": found.whole,
        }  # fmt: skip

    # ---- units

    def strongest(self, layer: str, channel: int, names: Sequence[str]) -> list[dict[str, Any]]:
        """Where a channel fires most in these pictures, one place a picture, the strongest first."""
        info = self.network.layer(layer)
        if not 0 <= channel < info.channels:
            raise OptionError(f"layer {layer!r} has channels 0 to {info.channels - 1}, not {channel}")
        values, places, _ = self._measured(layer, names)
        found = []
        for index in values[:, channel].argsort(descending=True)[:BEST].tolist():
            row, column = divmod(int(places[index, channel]), info.grid[1] if info.grid else 1)
            found.append({
                "picture": names[index], "value": float(values[index, channel]), "row": row, "column": column,
                "box": self._box(layer, row, column),
            })  # fmt: skip
        return found

    def statistics(self, layer: str, channel: int, names: Sequence[str]) -> dict[str, Any]:
        """A channel's values over all positions of these pictures, as an index tells them of many."""
        told = self._measured(layer, names)[2]
        return {name: (found if name == "edges" else found[channel]).tolist() for name, found in told.items()}

    def _measured(self, layer: str, names: Sequence[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        return self._once(("measured", layer, tuple(names)), lambda: self._measure(layer, names))

    def _measure(self, layer: str, names: Sequence[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(N, C) maxima over positions, where they are, and statistics of every channel."""
        values, places, all_maps = [], [], []
        for start in range(0, len(names), 8):
            images = stacked([self.pictures.image(name) for name in names[start : start + 8]])
            with torch.no_grad():
                maps = self.network.maps(layer, observe(self.network, images, [layer])[layer]).float().flatten(2)
            best = maps.max(2)
            values.append(best.values.cpu())
            places.append(best.indices.cpu())
            all_maps.append(maps.cpu())
        return torch.cat(values), torch.cat(places), _statistics(torch.cat(all_maps))

    def seen(self, image: Tensor, layer: str, channel: int, row: int, column: int) -> bytes:
        """What in the pixels that a unit sees makes it fire, by guided backpropagation, as a PNG of those pixels."""
        info = self.network.layer(layer)
        rows, columns = info.grid or (1, 1)
        if not (0 <= channel < info.channels and 0 <= row < rows and 0 <= column < columns):
            raise OptionError(f"layer {layer!r} has no unit {channel} at {row}, {column}")
        top, left, bottom, right = self._box(layer, row, column)
        with self.alone, torch.enable_grad():
            slope = self._slope(image, layer, (channel, row, column))[:, top:bottom, left:right].numpy()
        return png(
            symmetric_colour(slope, float(np.quantile(np.abs(slope), FULL)) or float(np.abs(slope).max()) or 1.0)
        )

    def _slope(self, image: Tensor, layer: str, unit: tuple[int, int, int]) -> Tensor:
        """(3, H, W) for a unit, by the guided rule; the plain gradient where no rectifier lies before it."""
        found = None
        for rule in (GUIDED, PLAIN):
            pixels = image[None].clone().requires_grad_()
            maps = self.network.maps(layer, observe(self.network, pixels, [layer])[layer])
            try:
                found = gradient(maps[:, unit[0], unit[1], unit[2]], pixels, rule)
                break
            except RuleError:
                continue
        assert found is not None
        return found[0].float().cpu()

    def _box(self, layer: str, row: int, column: int) -> list[int]:
        """Top, left, bottom, right of what a unit sees; the whole picture where that is not known."""
        found = self.network.receptive_fields.get(layer)
        if found is None or not (row < found.units[0] and column < found.units[1]):
            return [0, 0, *self.network.input_size]
        box = found.box(row, column)
        return list(box) if box[2] > box[0] else [0, 0, *self.network.input_size]

    def described(self, info: LayerInfo) -> dict[str, Any]:
        """A layer for the overview."""
        part = self.network.module.get_submodule(info.name)
        leaf = not any(True for _ in part.children())
        return {
            "name": info.name, "kind": info.kind, "shape": list(info.shape), "parameters": info.parameters,
            "channels": info.channels, "grid": list(info.grid) if info.grid else None, "spatial": info.spatial,
            "leaf": leaf, "calls": info.calls,
        }  # fmt: skip

    # ---- what happens if

    @cached_property
    def _variations(self) -> Variations:
        return Variations(self.network)

    def changed(
        self, name: str, *, boxes: Sequence[Box] = (), fill: str = "mean", epsilon: float = 0.0,
        style: str | None = None, strength: float = 1.0,
    ) -> dict[str, Any]:  # fmt: skip
        """What the network says when the picture is painted in a style, moved against its class, or covered.

        The classes that were likeliest before, and those that are now, with both probabilities. A cover alone is
        computed by ``perturb``: only what lies behind the covered squares is computed again.
        """
        image = self.pictures.image(name)
        before = self.probabilities(name)
        edited = image if style is None else self._painted(name, style).lerp(image, 1 - strength)
        edited = edited if epsilon == 0 else self._against(name, edited, epsilon)
        engine, saved = "full", None
        if boxes and edited is image:
            content = _content(image, fill)
            with self.alone:
                outcome = self._variations.of(image, list(boxes), content, each=len(boxes))
            after, engine, saved = outcome.logits[0].float().softmax(0).cpu(), outcome.engine, outcome.saved
        else:
            edited = _covered(edited, boxes, fill)
            after = self._shares(edited)
        ranks = [shares.argsort(descending=True).tolist() for shares in (before, after)]
        shown = list(dict.fromkeys([*ranks[0][:TOP], *ranks[1][:2]]))
        return {
            "classes": [
                {"index": i, "label": self.network.label(i), "before": float(before[i]), "after": float(after[i])}
                for i in shown
            ],
            "engine": engine, "saved": saved,
            "picture": None if edited is image else "data:image/png;base64,"
            + base64.b64encode(png(to_uint8(edited))).decode(),
        }  # fmt: skip

    def _painted(self, name: str, style: str) -> Tensor:
        if style not in shipped():
            raise OptionError(f"there is no style {style!r}; there are {', '.join(shipped())}")
        image = self.pictures.image(name)
        return self._once(("painted", name, style), lambda: brush(style)(image).clamp(0, 1).to(image))

    def _against(self, name: str, image: Tensor, epsilon: float) -> Tensor:
        """The picture moved by epsilon along the sign of the gradient, away from the class that it has."""

        def make() -> Tensor:
            clean = self.pictures.image(name)[None].requires_grad_()
            with torch.enable_grad():
                logits = self.network(clean)
                score = logits.log_softmax(1).amax(1)
                return gradient(score, clean)[0].sign().cpu()

        slope = self._once(("slope", name), make)
        return (image - epsilon * slope).clamp(0, 1)


def _statistics(maps: Tensor) -> dict[str, Tensor]:
    """Of (N, C, positions), with an entry a channel; ``edges`` are those of all their histograms."""
    low, high = min(0.0, float(maps.min())), max(float(maps.max()), 1e-6)
    channels = maps.shape[1]
    bins = ((maps - low) * (BINS / (high - low))).long().clamp(0, BINS - 1)
    bins += BINS * torch.arange(channels).view(1, -1, 1)
    flat = maps.transpose(0, 1).flatten(1)
    return {
        "zeros": (flat == 0).float().mean(1), "silent": (maps <= 0).all(2).float().mean(0),
        "mean": flat.mean(1), "spread": flat.std(1, correction=0), "maximum": flat.amax(1),
        "histogram": torch.bincount(bins.flatten(), minlength=BINS * channels).view(channels, BINS),
        "edges": torch.linspace(low, high, BINS + 1),
    }  # fmt: skip


def _content(image: Tensor, fill: str) -> Tensor:
    if fill not in ("mean", "grey", "black"):
        raise OptionError(f"a cover is mean, grey or black, not {fill!r}")
    if fill == "mean":
        return image.mean((1, 2), keepdim=True)
    return torch.full_like(image[:, :1, :1], 0.5 if fill == "grey" else 0.0)


def _covered(image: Tensor, boxes: Sequence[Box], fill: str) -> Tensor:
    content = _content(image, fill)
    covered = image.clone() if boxes else image
    for top, left, height, width in boxes:
        covered[:, top : top + height, left : left + width] = content
    return covered
