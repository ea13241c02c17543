"""The demo: every technique of the registry on a few free photographs, as one page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from convscope.errors import ConvscopeError
from convscope.evaluate.methods import Method
from convscope.evaluate.randomisation import STAGES, THRESHOLD, Verdict, cascade, checked
from convscope.example import SHOWN, example
from convscope.images import atomic_write, read_image
from convscope.index import Index
from convscope.network import Network
from convscope.progress import over
from convscope.registry import Entry, Technique, discover, load
from convscope.reporting.page import Section, page
from convscope.reporting.recipe import command, python
from convscope.reporting.samples import PHOTOGRAPHS, photographs
from convscope.results import Heatmap, Result
from convscope.views import embed, html
from convscope.views.pixels import to_pixels
from convscope.views.style import number

LIMIT = 9_500_000  # bytes of a page
QUALITIES = (90, 75, 55, 35)  # of pictures, tried until the page is below the limit
SECONDS = 5.0  # for each technique, beyond the first photograph
FEWEST = 3  # photographs on which a heat map's method is checked at least
CHECK_SECONDS = 5.0  # for each check; what takes longer for the fewest is not checked
Progress = Callable[[str], None]


def demo(
    network: Network, output: str | os.PathLike[str], *, progress: Progress | None = None, seconds: float = SECONDS
) -> Path:
    """Write the page: every technique that is installed, with its default options, on all photographs.

    Args:
        network: what is looked into.
        output: the file to write, whole or not at all.
        progress: told what is being done.
        seconds: what a technique may take. One that takes longer gets fewer photographs, at least one, and says so.

    A technique that fails says so in its own section. What makes heat maps is checked on a copy of the network with
    random weights, and a technique that hardly changes there is marked. Raises :class:`OutputError` when the page
    cannot be written.
    """
    say = progress or (lambda text: None)
    names, paths = zip(*photographs(), strict=True)
    images = torch.stack([network.prepare(read_image(path)) for path in paths])
    network(images[:1])  # the first pass of all takes longer, and no technique is to blame
    tried, check = [], _Check(network, images)
    for entry in over(discover().values(), "techniques"):
        say(entry.name)
        tried.append(check.of(_try(entry, network, images, names, seconds)))
    say("writing the page")
    text = _below_limit(network, images, names, tried)
    target = Path(output)
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


# ---- running


@dataclass(frozen=True)
class _Tried:
    """A technique with its result, or with one sentence about why there is none."""

    entry: Entry
    technique: Technique[..., Any] | None
    result: Result | None
    error: str = ""
    each: float = 0.0  # seconds a photograph
    verdict: Verdict | None = None


def _try(entry: Entry, network: Network, images: Tensor, names: Sequence[str], seconds: float) -> _Tried:
    technique = None
    try:
        technique = load(entry.name)
        if technique.takes_index:
            return _Tried(entry, technique, _of_example(technique))
        if not technique.takes_images:
            return _Tried(entry, technique, _named(technique.on(network, **technique.example), ()))
        result, each = _on_photographs(technique, network, images, names, seconds)
        return _Tried(entry, technique, result, each=each)
    except Exception as error:  # a technique from anywhere must not take the others with it
        return _Tried(entry, technique, None, _sentence(error))


@lru_cache(maxsize=1)
def _example() -> tuple[Index, TemporaryDirectory[str]]:
    """The index that questions on a data set are asked of, and the folder that goes with it."""
    folder = TemporaryDirectory(prefix="convscope-")
    return example(folder.name), folder


def _of_example(technique: Technique[..., Any]) -> Result:
    index = _example()[0]
    images = torch.stack([index.prepared(id) for id in SHOWN]) if technique.takes_images else None
    result = technique.on(None, images, index=index, **technique.example)
    note = f"asked of {len(index)} made-up pictures and a small network that has learned such (convscope.example)"
    return replace(result, notes=[*result.notes, note])


def _on_photographs(
    technique: Technique[..., Any], network: Network, images: Tensor, names: Sequence[str], seconds: float
) -> tuple[Result, float]:
    """The result for as many photographs as the time allows, judged by the first one, whose seconds come with it."""
    start, busy = time.perf_counter(), time.process_time()
    first = technique.on(network, images[:1], **technique.example)
    each = min(time.perf_counter() - start, time.process_time() - busy)  # others at work on the machine do not count
    count = len(images) if each * len(images) <= seconds else max(1, int(seconds / each))
    again = technique.on(network, images[:count], **technique.example) if count > 1 else first
    result = _named(again, names[:count])
    if count == len(images):
        return result, each
    note = f"each photograph takes {number(each)} seconds here, so only {count} of {len(images)} are used"
    return replace(result, notes=[*result.notes, note]), each


def _named(result: Result, names: Sequence[str]) -> Result:
    if result.provenance is None:
        return result
    return replace(result, provenance=replace(result.provenance, photographs=tuple(names)))


def _sentence(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, ConvscopeError):
        return f"Not for this network: {message}"
    return f"This one failed unexpectedly ({type(error).__name__}{': ' if message else ''}{message})"


# ---- how far heat maps can be trusted


class _Check:
    """Checks methods on copies of the network with more and more random weights, made when first needed."""

    def __init__(self, network: Network, images: Tensor) -> None:
        self._network, self._images = network, images

    @cached_property
    def _stages(self) -> list[Network]:
        return [network for _, network in cascade(self._network)]

    @cached_property
    def _targets(self) -> list[int]:
        with torch.no_grad():
            return self._network(self._images).argmax(1).tolist()

    def of(self, tried: _Tried) -> _Tried:
        """The same with its verdict, if it is a heat map."""
        if not isinstance(tried.result, Heatmap) or tried.technique is None:
            return tried
        try:
            return replace(tried, verdict=self._verdict(tried.technique, tried.result, tried.each))
        except Exception as error:  # as where the technique itself was tried
            return replace(tried, verdict=Verdict("–", reason=_sentence(error)))

    def _verdict(self, technique: Technique[..., Any], result: Result, each: float) -> Verdict:
        count = min(len(self._images), len(result.values))
        if each > 0:
            count = min(count, int(CHECK_SECONDS / each / STAGES))
        if count < FEWEST:
            return Verdict("–", reason=f"too slow, {number(each)} seconds a photograph")
        method = Method.of(technique)
        return checked(self._stages, method, self._images[:count], self._targets[:count], result.values[:count].float())


def _said(verdict: Verdict) -> str:
    """The verdict in words, its head before the colon."""
    if verdict.word == "–":
        return f"Dependence on the weights not checked: {verdict.reason or 'the maps are constant'}."
    side = {"passes": "below", "fails": "above"}.get(verdict.word, "too near")
    measured = (
        f"(rank correlation {number(verdict.likeness)} over {verdict.pictures} photographs, {side} {THRESHOLD:g})"
    )
    when = "with the weights made random, layer by layer from the last to the first"
    if verdict.word == "passes":
        return f"Depends on the weights: {when}, the maps change {measured}."
    if verdict.word == "unclear":
        return f"Unclear whether it depends on the weights: {when}, the maps stay partly alike {measured}."
    return (
        f"Hardly depends on the weights: {when}, the maps stay alike {measured}. They show more of the "
        "picture than of what the network has learned."
    )


# ---- the page


def _below_limit(network: Network, images: Tensor, names: Sequence[str], tried: Sequence[_Tried]) -> str:
    """The page at the best quality of photographs that keeps it below the limit."""
    text = ""
    for quality in QUALITIES:
        sections = [_section(each, network, quality) for each in tried]
        text = page(_title(network), _introduction(network, images, names, quality), sections)
        if len(text.encode()) < LIMIT:
            break
    return text


def _section(tried: _Tried, network: Network, quality: int) -> Section:
    body, error = "", tried.error
    if tried.result is not None:
        try:
            body = html(tried.result, quality=quality)
        except Exception as failure:  # a result of a kind that nothing draws
            error = _sentence(failure)
    section = Section(tried.entry.name, tried.entry.family, tried.entry.summary, body, error=error)
    if tried.technique is None:
        return section
    technique, notes = tried.technique, tuple(tried.result.notes) if tried.result else ()
    return replace(
        section, summary=technique.summary, see=technique.see, caution=technique.caution, paper=technique.paper,
        command=command(technique, network, technique.example),
        python=python(technique, network, technique.example), notes=notes,
        verdict=_said(tried.verdict) if tried.verdict else "",
        doubtful=tried.verdict is not None and tried.verdict.word == "fails",
    )  # fmt: skip


def _title(network: Network) -> str:
    name = "the built-in network" if network.name == "builtin" else network.name.rpartition(":")[2]
    return f"What {name} has learned, and why it decides as it does"


def _introduction(network: Network, images: Tensor, names: Sequence[str], quality: int) -> str:
    count = {4: "four", 6: "six"}.get(len(names), str(len(names)))
    text = (
        f"Every technique that is installed, with its default options, on {count} free photographs. Each picture says "
        "what to look for, and what it does not prove."
    )
    if network.name == "builtin":
        text += (
            " The built-in network knows 100 kinds of things, and most of what is in these photographs is not among "
            "them: a wrong name is to be expected, and what led it there is the question."
        )
    missing = [p.name for p in PHOTOGRAPHS if p.name not in names]
    if missing:
        text += f" Without scikit-learn, which is not installed, these are left out: {', '.join(missing)}."
    return f'<div class="lead"><p>{embed.escape(text)}</p></div>\n{_facts(network)}\n{_strip(images, names, quality)}'


def _facts(network: Network) -> str:
    parameters = sum(p.numel() for p in network.module.parameters())
    height, width = network.input_size
    facts = {
        "Network": network.name,
        "Weights": network.weights,
        "Parameters": f"{parameters:,}",
        "Classes": f"{network.classes:,}",
        "Picture": f"{width} × {height} pixels",
    }
    items = "".join(f"<div><dt>{name}</dt><dd>{embed.escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _strip(images: Tensor, names: Sequence[str], quality: int) -> str:
    """The photographs, as the network gets them, and whom they are from."""
    credits = {photograph.name: photograph.credit for photograph in PHOTOGRAPHS}
    items = "".join(
        f"<li><figure>{embed.image(to_pixels(image), f'Photograph: {name}', quality=quality)}"
        f"<figcaption>{embed.escape(name)}<span>{embed.escape(credits[name])}</span></figcaption></figure></li>"
        for image, name in zip(images.float().cpu().numpy(), names, strict=True)
    )
    return f'<ul class="strip">{items}</ul>'
