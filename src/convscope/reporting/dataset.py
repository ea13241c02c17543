"""The chapter of an index: whether the network is in order, what it takes for alike, what it looks at, when it errs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope.index import Index
from convscope.intervals import proportion
from convscope.progress import over
from convscope.registry import Technique, discover
from convscope.reporting.cover import called, capital, strip
from convscope.reporting.page import Chapter, facts
from convscope.reporting.parts import Part, asked, named
from convscope.reporting.recipe import Given
from convscope.results import Result
from convscope.views.embed import escape
from convscope.views.style import percent

#: What is asked of an index, what stands over it, and the options that a page takes.
TECHNIQUES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "health": ("Is anything out of order?", {}),
    "embed": ("What it takes for alike", {"arrangement": "grid", "most": 900}),
    "neighbors": ("Nearest to the network, nearest in pixels", {}),
    "patches": ("What single channels fire for", {}),
    "strategies": ("What it looks at in one class", {}),
    "attributes": ("For which pictures it fails", {}),
}
SHOWN = 12  # thumbnails at the beginning
NEIGHBOURS = 3  # pictures whose neighbours are shown
ANCHOR = "index"


@dataclass(frozen=True)
class Asked:
    """What is shown of an index, whose pictures are drawn at any quality."""

    index: Index
    name: str
    parts: Sequence[Part]

    def opening(self, quality: int) -> str:
        """How often the network is right, and some of the pictures."""
        ids = spread(self.index, SHOWN)
        named = [self.index.row(id, ["path", "label"]) for id in ids]
        rows = [
            ("", row["label"] or os.path.basename(row["path"]), "", self.index.thumbnail(id))
            for id, row in zip(ids, named, strict=True)
        ]
        return f'<p class="says">{told(self.index)}</p>{facts(_facts(self.index, self.name))}{strip(rows, quality)}'

    def chapter(self, quality: int, *, alone: bool) -> Chapter:
        """The chapter, which begins with that where the page does not."""
        title = "What the pictures tell of it" if alone else f"Over {len(self.index):,} pictures"
        lead = "" if alone else self.opening(quality)
        return Chapter(title, [part.at(quality) for part in self.parts], ANCHOR, lead)


def ask(index: Index, name: str, target: str | int | None, images: Tensor | None, files: Sequence[str]) -> Asked:
    """Everything that is shown of an index; ``images`` (N, 3, H, W) of ``files`` are those whose neighbours are shown,
    some of its own where there are none."""
    about = _About(index, name, target, images, files)
    names = [each for each in TECHNIQUES if each in discover()]
    return Asked(index, name, [about.part(each) for each in over(names, "questions")])


@dataclass(frozen=True)
class _About:
    index: Index
    name: str
    target: str | int | None
    images: Tensor | None
    files: Sequence[str]

    def part(self, name: str) -> Part:
        title, options = TECHNIQUES[name]
        if name == "strategies" and self.target is not None:
            options = {**options, "target": self.target}
        given = Given(photographs=self.files[:1], index=self.name)
        return asked(name, title, ANCHOR, self.index.network, options, given, lambda t: self._result(t, options))

    def _result(self, technique: Technique[..., Any], options: Mapping[str, Any]) -> Result:
        if not technique.takes_images:
            found: Result = technique.on(index=self.index, **options)
            return found
        images, names = self.images, [os.path.basename(file) for file in self.files]
        if images is None:
            ids = spread(self.index, NEIGHBOURS)
            images = torch.stack([self.index.prepared(id) for id in ids])
            names = [os.path.basename(self.index.row(id, ["path"])["path"]) for id in ids]
        return named(technique.on(None, images, index=self.index, **options), names)


def spread(index: Index, count: int) -> list[int]:
    """Pictures of as many classes as possible, else in equal steps."""
    ids, labels = index.ids, index.labels()
    firsts = ids[np.unique(labels, return_index=True)[1]]
    pool = firsts if len(firsts) >= count else ids
    return [int(pool[place]) for place in np.unique(np.linspace(0, len(pool) - 1, count).round().astype(int))]


def told(index: Index) -> str:
    """How often the network is right, in a sentence of HTML."""
    right = index.pictures(["correct"], "error is null")["correct"].drop_null().to_pylist()
    name = escape(capital(called(index.network)))
    if not right:
        return (
            f"{name} over {len(index):,} pictures, of none of which the class is known: how often it is right is not."
        )
    share = proportion(sum(right), len(right))
    known = f"the {len(right):,} pictures"
    known += "" if len(right) == len(index) else f" whose class is known, of {len(index):,},"
    mean, low, high = (percent(each) for each in (share.mean, share.low, share.high))
    return (
        f"{name} is right on <strong>{mean}</strong> of {known}: {sum(right):,} of them. Of others of the same kind it "
        f"is probably right on {low} to {high}, and on less if it has learned from these very pictures."
    )


def _facts(index: Index, name: str) -> list[tuple[str, str]]:
    unreadable = len(index.pictures(["error"])) - len(index)
    classes = len({int(label) for label in index.labels()} - {-1})
    found = [("Index", os.path.basename(os.path.normpath(name))), ("Pictures", f"{len(index):,}")]
    found += [("Classes", f"{classes:,}")] if classes else []
    found += [("Unreadable", f"{unreadable:,}")] if unreadable else []
    return [*found, ("Code layer", ", ".join(index.code_layers))]
