"""A chapter for each photograph: what the network says, where it looked, what fools it, what its layers saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from convscope.evaluate.methods import Method
from convscope.images import read_image
from convscope.network import Network
from convscope.progress import over
from convscope.registry import FAMILIES, discover, load
from convscope.reporting import maps
from convscope.reporting.cover import cover, strip
from convscope.reporting.page import Chapter, Opening, Section, covered
from convscope.reporting.parts import Part, asked, named
from convscope.reporting.recipe import ANY, Given, command, python
from convscope.results import Ranking
from convscope.views.style import percent

#: What is asked of each photograph besides the maps, and what stands over it.
TECHNIQUES = {"fool": "How little changes its mind", "layerwise": "What its layers saw"}
LOOKED = "Where it looked"
_SEE = (
    "Three pictures a method: its map on the photograph, the map alone, and the map of the same method on the same "
    "network with random weights, which knows nothing. What both maps share comes from the photograph. All maps are "
    "on one scale, so that the strength of their colours can be compared. For the verdict the weights are drawn anew "
    "in five steps; it tells how much of a map is left, over the photographs here and, where that is quick, others."
)
_CAUTION = (
    "Methods disagree, and none of them is the truth: each answers another question. A map shows where, not what the "
    "network saw there, and says nothing of other photographs."
)


@dataclass(frozen=True)
class Photographs:
    """What is shown of some photographs.

    ``images`` (N, 3, H, W) are as the network gets them, ``views`` (N, 3, h, w) the same with more pixels, and
    ``targets`` the class of each whose evidence is shown; ``chosen`` is the class that was asked for, and ``given``
    what lines name.
    """

    network: Network
    names: Sequence[str]
    images: Tensor
    views: Tensor
    targets: Sequence[int]
    said: Ranking
    methods: Sequence[Method]
    chosen: str | int | None
    given: Given

    def __len__(self) -> int:
        return len(self.names)

    def within(self, index: int) -> str:
        """The anchor of a photograph's chapter."""
        return f"photograph-{index + 1}"

    def of(self, index: int) -> Given:
        """What lines name that repeat something on a photograph."""
        return replace(self.given, photographs=self.given.photographs[index : index + 1])


def read(
    network: Network, files: Sequence[Path], methods: Sequence[Method], *, target: str | int | None = None,
    given: Given = ANY, names: Sequence[str] = (),
) -> Photographs:  # fmt: skip
    """The photographs with what the network says of them; they are called as their files if nothing else is said.

    Raises :class:`ImageError` for what cannot be read and :class:`UnknownTarget` for a class that there is not.
    """
    found = [read_image(file) for file in files]
    images = torch.stack([network.prepare(image) for image in found])
    views = torch.stack([maps.enlarged(network, image) for image in found])
    said = load("classify").on(network, images)
    targets = network.targets(target, said.values).tolist()
    names = names or distinct(files)
    return Photographs(network, names, images, views, targets, said, methods, target, given)


def distinct(files: Sequence[Path]) -> list[str]:
    """The files' names, with their folders where two are equal."""
    short = [file.name for file in files]
    return short if len(set(short)) == len(short) else [f"{file.parent.name}/{file.name}" for file in files]


@dataclass(frozen=True)
class Told:
    """The chapters of some photographs, whose pictures are drawn at any quality."""

    about: Photographs
    parts: Sequence[Sequence[Part]]

    def cover(self, index: int, quality: int) -> Opening:
        """A photograph large, and the answer."""
        about, said = self.about, self.about.said
        one = replace(said, names=said.names[index : index + 1], shares=said.shares[index : index + 1])
        return cover(about.network, about.names[index], about.views[index], one, quality)

    def opening(self, quality: int) -> Opening | None:
        """The one photograph; several have their own chapters."""
        return self.cover(0, quality) if len(self.about) == 1 else None

    def strip(self, quality: int) -> str:
        """All of several photographs, small, each with its answer."""
        about = self.about
        if len(about) == 1:
            return ""
        best = zip(about.said.names, about.said.shares, strict=True)
        firsts = [f"{names[0]}, {percent(shares[0])}" for names, shares in best]
        rows = zip(map(about.within, range(len(about))), about.names, firsts, about.views, strict=True)
        return strip(list(rows), quality)

    def chapters(self, quality: int) -> list[Chapter]:
        """A chapter a photograph."""
        return [self._chapter(index, quality) for index in range(len(self.about))]

    def _chapter(self, index: int, quality: int) -> Chapter:
        alone = len(self.about) == 1
        title = f"Why it says {self.about.said.names[index][0]}" if alone else self.about.names[index]
        lead = "" if alone else covered(self.cover(index, quality))
        sections = [part.at(quality) for part in self.parts[index]]
        return Chapter(title, sections, self.about.within(index), lead)


def tell(about: Photographs) -> Told:
    """Run everything that is shown of them."""
    looking = maps.Looking(about.network, about.images, about.targets)
    looked = looking.by(about.methods)
    techniques = [name for name in TECHNIQUES if name in discover()]
    found = []
    for index in over(len(about), "photographs"):
        more = [_asked(about, index, name) for name in over(techniques, "techniques")]
        found.append([_looked(about, index, looked), *more])
    return Told(about, found)


def _asked(about: Photographs, index: int, name: str) -> Part:
    image = about.images[index : index + 1]
    return asked(
        name, TECHNIQUES[name], about.within(index), about.network, {}, about.of(index),
        lambda technique: named(technique.on(about.network, image), [about.names[index]]),
    )  # fmt: skip


def _looked(about: Photographs, index: int, looked: Sequence[maps.Looked]) -> Part:
    """The section of all maps of a photograph."""
    label = about.network.label(about.targets[index])
    section = Section(
        "maps", "attribute", f"{FAMILIES['attribute']} Evidence for {label}, by {_counted(len(looked), 'method')}.",
        see=_SEE, caution=_CAUTION, title=LOOKED, within=about.within(index),
    )  # fmt: skip
    lines = [_lines(about, index, each) for each in looked]
    name, view = about.names[index], about.views[index]
    return Part(section, lambda quality: maps.html(looked, index, view, name, lines, quality))


def _lines(about: Photographs, index: int, each: maps.Looked) -> tuple[str, str]:
    """What repeats one map."""
    options = dict(each.method.options)
    if "target" in {option.name for option in each.technique.options} and about.chosen is not None:
        options["target"] = about.chosen
    given = about.of(index)
    return (
        command(each.technique, about.network, options, given),
        python(each.technique, about.network, options, given),
    )


def _counted(count: int, thing: str) -> str:
    return f"one {thing}" if count == 1 else f"{count} {thing}s"
