"""Techniques as parts of a page: what each is, what it gave or why it gave nothing, and its pictures at any quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convscope.network import Network
from convscope.registry import Entry, Technique, discover, load
from convscope.reporting.page import Section
from convscope.reporting.recipe import ANY, Given, command, python
from convscope.reporting.trust import sentence
from convscope.results import Result
from convscope.views import html


@dataclass(frozen=True)
class Part:
    """A section without its pictures, and what draws them at a quality from 1 to 100."""

    section: Section
    draw: Callable[[int], str] | None = None

    def at(self, quality: int) -> Section:
        """The section with its pictures, or with one sentence about why there are none."""
        if self.draw is None:
            return self.section
        try:
            return replace(self.section, body=self.draw(quality))
        except Exception as failure:  # a result of a kind that nothing draws
            return replace(self.section, error=sentence(failure))


def shown(section: Section, result: Result) -> Part:
    """A section with what a technique returned."""
    return Part(replace(section, notes=tuple(result.notes)), lambda quality: html(result, quality=quality))


def described(
    entry: Entry, technique: Technique[..., Any] | None, network: Network, options: Mapping[str, Any],
    given: Given = ANY,
) -> Section:  # fmt: skip
    """What is said of a technique: how to read its pictures, and the lines that repeat them with these options."""
    section = Section(entry.name, entry.family, entry.summary)
    if technique is None:
        return section
    return replace(
        section, summary=technique.summary, see=technique.see, caution=technique.caution, paper=technique.paper,
        command=command(technique, network, options, given), python=python(technique, network, options, given),
    )  # fmt: skip


def asked(
    name: str, title: str, within: str, network: Network, options: Mapping[str, Any], given: Given,
    ask: Callable[[Technique[..., Any]], Result],
) -> Part:  # fmt: skip
    """What ``ask`` gets of a technique, under a title; it must be installed."""
    technique = load(name)
    section = replace(described(discover()[name], technique, network, options, given), title=title, within=within)
    try:
        return shown(section, ask(technique))
    except Exception as error:  # one that fails must not take the others with it
        return Part(replace(section, error=sentence(error, "index" if technique.takes_index else "network")))


def named(result: Result, names: Sequence[str]) -> Result:
    """The result with the names of the photographs that it was made of."""
    if result.provenance is None:
        return result
    return replace(result, provenance=replace(result.provenance, photographs=tuple(names)))
