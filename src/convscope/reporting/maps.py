"""What a network looked at in a photograph, by several methods on one scale, beside the same with random weights.

Methods count in different units, so that their numbers cannot share a scale. Each map is therefore divided by the mean
size of its own numbers: 1 is as much as the map has on average, and 8 eight times that. All maps of a photograph, those
of the random networks too, are on one such scale; what the average was is said beside each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope import registry
from convscope.evaluate.methods import Method
from convscope.evaluate.randomisation import Verdict, alike, cascade, checked, likeness
from convscope.images import fit, read_image
from convscope.network import Network
from convscope.progress import over
from convscope.registry import Technique
from convscope.reporting.page import again, reading, trust
from convscope.reporting.samples import photographs
from convscope.reporting.trust import in_words, sentence
from convscope.results import Heatmap
from convscope.views import embed
from convscope.views.colour import Scale, scale_of
from convscope.views.heatmaps import Row, rows
from convscope.views.sheet import sentence as full
from convscope.views.style import number

CHECKED = 6  # photographs that the check of a method goes over, if its time allows
CHECK_SECONDS = 4.0  # for those that are not on the page; where that is too short, it goes over the page's only
SIDE = 448  # pixels of a photograph's longer side, under a map
DEFAULT = "gradcam, layercam, occlusion, integrated-gradients, smoothgrad"
UNCHECKED = Verdict("–")
UNIT = "times the average size of the map's own numbers"


@dataclass(frozen=True)
class Looked:
    """One method on each of the photographs, as the network is and with all weights random; or why there is nothing."""

    method: Method
    results: Sequence[Heatmap] = ()
    controls: Sequence[Heatmap] = ()
    verdict: Verdict = UNCHECKED
    error: str = ""

    @property
    def technique(self) -> Technique[..., Heatmap]:
        return registry.load(self.method.technique)

    def pair(self, index: int) -> list[Heatmap]:
        """The maps of a photograph that there are, the network's own first."""
        return [found[index] for found in (self.results, self.controls) if found]

    def alike(self, index: int) -> float:
        """Rank correlation of both maps of a photograph."""
        one, other = (found.values.float() for found in self.pair(index))
        return likeness([alike(one, other)])[0]


class Looking:
    """Methods on photographs of one network, whose copies with random weights are made when first needed.

    Where few photographs are given, the check goes over some of the free ones too, as far as its time allows.
    """

    def __init__(self, network: Network, images: Tensor, targets: Sequence[int]) -> None:
        self._network, self._images, self._targets = network, images, targets

    @cached_property
    def _more(self) -> tuple[Tensor, list[int]]:
        """Free photographs, and what the network takes them for."""
        missing = max(0, CHECKED - len(self._images))
        free = [self._network.prepare(read_image(path)) for _, path in photographs()][:missing]
        if not free:
            return self._images[:0], []
        images = torch.stack(free)
        with torch.no_grad():
            return images, self._network(images).argmax(1).tolist()

    @cached_property
    def _stages(self) -> list[Network]:
        found = [network for _, network in cascade(self._network)]
        for network in found:
            network.layers()  # traced once, so that no method is to blame for the time
        return found

    def by(self, methods: Sequence[Method]) -> list[Looked]:
        """Each of the methods; one that fails says so and spares the others."""
        return [self._by(method) for method in over(methods, "methods")]

    def _by(self, method: Method) -> Looked:
        parts = [slice(place, place + 1) for place in range(len(self._images))]
        try:
            found = [method.result(self._network, self._images[part], self._targets[part]) for part in parts]
        except Exception as error:  # a technique from anywhere must not take the others with it
            return Looked(method, error=sentence(error))
        watched = _Watched(method, len(parts))
        try:
            return Looked(method, found, verdict=self._verdict(watched, method, found), controls=watched.last)
        except Exception as error:
            return Looked(method, found, verdict=Verdict("–", reason=sentence(error)))

    def _verdict(self, watched: _Watched, method: Method, found: Sequence[Heatmap]) -> Verdict:
        """Of the page's photographs; of some more too where that is quick."""
        images, targets = self._images, list(self._targets)
        trained, stages = torch.cat([result.values.float() for result in found]), self._stages
        begun = time.process_time(), time.perf_counter()
        verdict = checked(over(stages, "random stages"), watched, images, targets, trained)
        spent = min(time.process_time() - begun[0], time.perf_counter() - begun[1])  # others' work does not count
        more, classes = self._more
        if not classes or spent / len(images) * len(classes) > CHECK_SECONDS:
            return verdict
        images, targets = torch.cat([images, more]), targets + classes
        return checked(stages, watched, images, targets, torch.cat([trained, method(self._network, more, classes)]))


class _Watched:
    """A method that keeps its last maps of the first pictures: those of the last stage, with all weights random."""

    control = False

    def __init__(self, method: Method, count: int) -> None:
        self.name, self._method, self._count = method.name, method, count
        self.last: list[Heatmap] = []

    def __call__(self, network: Network, images: Tensor, targets: Sequence[int]) -> Tensor:
        found = self._method.result(network, images, targets)
        self.last = [_single(found, place) for place in range(self._count)]
        return found.values.float()


def _single(result: Heatmap, index: int) -> Heatmap:
    """The map of one of the pictures."""
    part = slice(index, index + 1)
    cells = None if result.cells is None else result.cells[part]
    return replace(
        result, values=result.values[part], cells=cells, images=result.images[part], titles=result.titles[part],
        summaries=result.summaries[part],
    )  # fmt: skip


# ---- one scale


def average(result: Heatmap) -> float:
    """What 1 on the common scale is in the map's own unit: the mean size of its numbers."""
    return float(result.values[0].double().abs().mean())


def relative(result: Heatmap) -> tuple[Tensor, Tensor]:
    """A map in the common unit: (H, W), and at the resolution at which it was computed."""
    mean = average(result) or 1.0
    values = result.values[0].double() / mean
    return values, values if result.cells is None else result.cells[0].double() / mean


def common_scale(looked: Sequence[Looked], index: int) -> Scale:
    """The one scale of all maps of a photograph."""
    found = [result for each in looked for result in each.pair(index)]
    numbers = [relative(result)[0].flatten() for result in found]
    return scale_of(torch.cat([torch.zeros(0), *numbers]).numpy(), signed=any(result.signed for result in found))


# ---- on the page


def enlarged(network: Network, photograph: Tensor) -> Tensor:
    """(3, h, w): what the network sees of a photograph (3, H, W), with more pixels than it gets."""
    factor = max(1.0, SIDE / max(network.input_size))
    height, width = (round(side * factor) for side in network.input_size)
    return fit(photograph, (height, width), crop=network.crop).clamp(0, 1)


def drawn(each: Looked, index: int, shown: Tensor, scale: Scale) -> list[Row]:
    """The map, and that of random weights where there is one, on ``shown`` (3, h, w) and on ``scale``."""
    pairs = [relative(result) for result in each.pair(index)]
    size = (int(shown.shape[1]), int(shown.shape[2]))
    fine = [F.interpolate(v[None, None], size, mode="bilinear", align_corners=False)[0, 0] for v, _ in pairs]
    laid = Heatmap(
        values=torch.stack(fine), cells=torch.stack([cells for _, cells in pairs]), signed=scale.signed, quantity=UNIT,
        images=shown[None].expand(len(pairs), -1, -1, -1), summaries=[{}] * len(pairs), shared=True,
    )  # fmt: skip
    return rows(laid, scale=scale)


def html(
    looked: Sequence[Looked], index: int, shown: Tensor, name: str, lines: Sequence[tuple[str, str]], quality: int
) -> str:  # fmt: skip
    """All methods on one photograph, each with its verdict, how to read it and the lines that repeat it."""
    scale = common_scale(looked, index)
    bar = f'<div class="common"><p class="unit">Colour of all maps: {UNIT}.</p>{embed.colour_bar(scale)}</div>'
    parts = [
        _method(each, index, shown, name, scale, again(*line), quality)
        for each, line in zip(looked, lines, strict=True)
    ]
    return "\n".join([bar, *parts])


def _method(
    each: Looked, index: int, shown: Tensor, name: str, scale: Scale, code: str, quality: int
) -> str:  # fmt: skip
    known = each.technique
    verdict = trust(in_words(each.verdict), each.verdict.word == "fails") if each.results else ""
    head = f'<div class="name"><h4>{embed.escape(each.method.name)}</h4><p>{embed.escape(known.summary)}</p></div>'
    words = f'<div class="words">{verdict}{_notes(each, index)}{code}</div>'
    pictures = f'<p class="failed">{embed.escape(each.error)}</p>'
    if each.results:
        pictures = _pictures(each, index, drawn(each, index, shown, scale), name, quality)
    seen = f'<div class="seen">{pictures}{reading(known.see, known.caution)}</div>'
    return f'<div class="method">{head}{seen}{words}</div>'


def _pictures(each: Looked, index: int, found: Sequence[Row], name: str, quality: int) -> str:
    trained = found[0]
    what = f"{each.method.name} on {name}"
    cells = f", {trained.map_words}" if each.results[index].cells is not None else ""
    figures = [
        _figure(trained.on_page(name, quality), "laid on the photograph"),
        _figure(trained.map_on_page(f"The map of {what}", quality), f"the map{cells}"),
    ]
    if len(found) > 1:
        picture = found[1].map_on_page(f"The map of {what}, of the network with random weights", quality)
        figures.append(_figure(picture, f"the same method, random weights; rank correlation {_alike(each, index)}"))
    return f'<div class="triple">{"".join(figures)}</div>'


def _alike(each: Looked, index: int) -> str:
    found = each.alike(index)
    return number(found) if found == found else "none, since one is constant"


def _figure(picture: str, words: str) -> str:
    return f"<figure>{picture}<figcaption>{embed.escape(words)}</figcaption></figure>"


def _notes(each: Looked, index: int) -> str:
    """What 1 is in the method's own unit, and what the reader must not miss."""
    if not each.results:
        return ""
    result, means = each.results[index], [number(average(found)) for found in each.pair(index)]
    random = f", and {means[1]} with random weights" if len(means) > 1 else ""
    layer = f"Layer {result.layer}. " if result.layer else ""
    told = [f"{layer}1 on the scale is {means[0]} here ({result.quantity}){random}.", *map(full, result.notes)]
    return f'<p class="small">{embed.escape(" ".join(told))}</p>'
