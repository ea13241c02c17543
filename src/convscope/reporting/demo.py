"""The demo: every technique of the registry on a few free photographs, as one page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from convscope.errors import UnknownTarget
from convscope.evaluate.methods import Method, methods_of
from convscope.evaluate.randomisation import STAGES, Verdict, cascade, checked
from convscope.example import SHOWN, example
from convscope.images import atomic_write, read_image
from convscope.index import Index
from convscope.network import Network
from convscope.progress import over
from convscope.registry import Entry, Technique, discover, load
from convscope.reporting.cover import about, called, strip
from convscope.reporting.maps import DEFAULT
from convscope.reporting.page import QUALITIES, below_limit, by_family, facts, marked, page
from convscope.reporting.parts import Part, described, named, shown
from convscope.reporting.photos import Told, read, tell
from convscope.reporting.recipe import network_flags, shell
from convscope.reporting.samples import PHOTOGRAPHS, parts_of, photographs
from convscope.reporting.trust import in_words, sentence
from convscope.results import Heatmap, Result
from convscope.views.embed import escape
from convscope.views.style import number

REPORTED = ("cat",)  # photographs of which a report is made
SECONDS = 3.0  # for each technique, beyond the first photograph
FEWEST = 3  # photographs on which a heat map's method is checked at least
CHECK_SECONDS = 4.0  # for each check; what takes longer for the fewest is not checked
Progress = Callable[[str], None]


def demo(
    network: Network, output: str | os.PathLike[str], *, progress: Progress | None = None, seconds: float = SECONDS
) -> Path:
    """Write the page: a report of one photograph, then every technique that is installed, with its default options,
    on all photographs.

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
    shown = _Shown(network, names, [read_image(path) for path in paths])
    images = shown.images
    network(images[:1])  # the first pass of all takes longer, and no technique is to blame
    say("the report")
    told = _reported(network, dict(zip(names, paths, strict=True)))
    parts, check = [], _Check(network, images)
    for entry in over(discover().values(), "techniques"):
        say(entry.name)
        parts.append(_part(check.of(_try(entry, network, shown, seconds)), network))
    say("writing the page")

    def draw(quality: int) -> str:
        chapters = told.chapters(quality) if told else []
        chapters += by_family([part.at(quality) for part in parts])
        introduction = _introduction(network, told, images, names, quality)
        opening = told.opening(quality) if told else None
        return page(_title(network), introduction, chapters, opening=opening, end=_explore(network))

    target = Path(output)
    with atomic_write(target) as temporary:
        temporary.write_text(below_limit(draw, QUALITIES[1:]), encoding="utf-8")
    return target


def _reported(network: Network, paths: Mapping[str, Path]) -> Told | None:
    names = [name for name in REPORTED if name in paths]
    if not names:
        return None
    return tell(read(network, [paths[name] for name in names], methods_of(DEFAULT), names=names))


# ---- running


class _Shown:
    """The photographs, as the network gets them, and many parts of each for what takes dozens of pictures."""

    def __init__(self, network: Network, names: Sequence[str], photographs: Sequence[Tensor]) -> None:
        self.names = list(names)
        self.images = torch.stack([network.prepare(each) for each in photographs])
        self._network, self._photographs = network, photographs

    @cached_property
    def parts(self) -> Tensor:
        return torch.cat([parts_of(self._network, each) for each in self._photographs])


@dataclass(frozen=True)
class _Tried:
    """A technique with its result, or with one sentence about why there is none."""

    entry: Entry
    technique: Technique[..., Any] | None
    result: Result | None
    error: str = ""
    each: float = 0.0  # seconds a photograph
    verdict: Verdict | None = None


def _try(entry: Entry, network: Network, shown: _Shown, seconds: float) -> _Tried:
    technique = None
    try:
        technique = load(entry.name)
        if technique.takes_index:
            return _Tried(entry, technique, _of_example(technique))
        if not technique.takes_images:
            return _Tried(entry, technique, named(technique.on(network, **_options(technique, network)), ()))
        if technique.together:
            return _Tried(entry, technique, _on_parts(technique, network, shown))
        result, each = _on_photographs(technique, network, shown.images, shown.names, seconds)
        return _Tried(entry, technique, result, each=each)
    except Exception as error:  # a technique from anywhere must not take the others with it
        return _Tried(entry, technique, None, sentence(error))


def _options(technique: Technique[..., Any], network: Network) -> Mapping[str, Any]:
    """Those of its picture; where they name a class that the network lacks, its first one."""
    options, target = technique.example, technique.example.get("target")
    if technique.takes_index or not isinstance(target, str):
        return options
    try:
        network.target(target)
    except UnknownTarget:
        return {**options, "target": 0}
    return options


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


def _on_parts(technique: Technique[..., Any], network: Network, shown: _Shown) -> Result:
    result = technique.on(network, shown.parts, **_options(technique, network))
    note = f"made of {len(shown.parts)} pictures, which are parts of the {len(shown.names)} photographs"
    return replace(result, notes=[*result.notes, note])


def _on_photographs(
    technique: Technique[..., Any], network: Network, images: Tensor, names: Sequence[str], seconds: float
) -> tuple[Result, float]:
    """The result for as many photographs as the time allows, judged by the first one, whose seconds come with it."""
    options = _options(technique, network)
    start, busy = time.perf_counter(), time.process_time()
    first = technique.on(network, images[:1], **options)
    each = min(time.perf_counter() - start, time.process_time() - busy)  # others at work on the machine do not count
    count = len(images) if each * len(images) <= seconds else max(1, int(seconds / each))
    again = technique.on(network, images[:count], **options) if count > 1 else first
    result = named(again, names[:count])
    if count == len(images):
        return result, each
    note = f"each photograph takes {number(each)} seconds here, so only {count} of {len(images)} are used"
    return replace(result, notes=[*result.notes, note]), each


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
            return replace(tried, verdict=Verdict("–", reason=sentence(error)))

    def _verdict(self, technique: Technique[..., Any], result: Result, each: float) -> Verdict:
        count = min(len(self._images), len(result.values))
        if each > 0:
            count = min(count, int(CHECK_SECONDS / each / STAGES))
        if count < FEWEST:
            return Verdict("–", reason=f"too slow, {number(each)} seconds a photograph")
        method = Method.of(technique)
        return checked(self._stages, method, self._images[:count], self._targets[:count], result.values[:count].float())


# ---- the page


def _part(tried: _Tried, network: Network) -> Part:
    options = _options(tried.technique, network) if tried.technique is not None else {}
    section = described(tried.entry, tried.technique, network, options)
    if tried.verdict is not None:
        section = replace(section, verdict=in_words(tried.verdict), doubtful=tried.verdict.word == "fails")
    if tried.result is None:
        return Part(replace(section, error=tried.error))
    return shown(section, tried.result)


def _title(network: Network) -> str:
    return f"What {called(network)} has learned, and why it decides as it does"


def _introduction(network: Network, told: Told | None, images: Tensor, names: Sequence[str], quality: int) -> str:
    count = {4: "four", 6: "six"}.get(len(names), str(len(names)))
    text = "First one photograph as `convscope report` tells of it, then e" if told else "E"
    text += (
        f"very technique that is installed, with its default options, on {count} free photographs. Each picture says "
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
    credits = {photograph.name: photograph.credit for photograph in PHOTOGRAPHS}
    free = strip([("", name, credits[name], image) for name, image in zip(names, images, strict=True)], quality)
    return f'<div class="lead"><p>{marked(text)}</p></div>\n{facts(about(network))}\n{free}'


def _explore(network: Network) -> str:
    """How to walk around in the network."""
    line = shell(["convscope", "explore", *network_flags(network)])
    return (
        "<h2>To walk around in it</h2>\n<p>The explorer is a local page on which every layer, unit and class of this "
        f"network can be visited, with photographs of your own:</p>\n<pre><code>{escape(line)}</code></pre>"
    )
