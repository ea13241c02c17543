"""The report: what a network says of photographs and over a data set, and why, as one page to send to a colleague."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from convscope.errors import IndexUnusable, OptionError, OutputError
from convscope.evaluate.methods import Given as Methods
from convscope.evaluate.methods import Method, methods_of
from convscope.images import atomic_write, pictures_in
from convscope.index import MANIFEST, Index, open_index
from convscope.network import Network
from convscope.progress import counting
from convscope.reporting import dataset, photos
from convscope.reporting.cover import about, called
from convscope.reporting.maps import DEFAULT
from convscope.reporting.page import below_limit, facts, page
from convscope.reporting.recipe import Given, flags, network_call, network_flags, shell
from convscope.views.embed import escape
from convscope.zoo import load_network

LIMIT = 8  # photographs on a page
Paths: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


def report(
    pictures: Paths,
    output: str | os.PathLike[str] = "report.html",
    *,
    network: Network | str | None = None,
    target: str | int | None = None,
    methods: str | Sequence[Methods] = DEFAULT,
    limit: int = LIMIT,
    loaded: Mapping[str, Any] | None = None,
) -> Path:
    """Write one self-contained page about photographs, about the index of a data set, or about both.

    Of each photograph: what the network says, where it looked by several methods on one scale, each beside the same on
    random weights and with the verdict of the randomisation check, a change that fools it, and what its layers saw. Of
    an index: the network's health, a t-SNE grid, neighbours, the strongest patches, the strategies of a class, and
    accuracy against what the pictures are like. What cannot be shown says so in a sentence.

    Args:
        pictures: files, folders with some, and at most one index that ``scan`` wrote; one of these or several.
        output: the page, whose name ends in .html; it is written whole or not at all.
        network: what is looked into; the one that the index was made with, else the built-in one, if left out.
        target: class whose evidence the maps show, and that is looked into in an index; what the network predicts, and
            the class with the most pictures, if left out.
        methods: techniques that make heat maps, as ``"gradcam, occlusion window=16"``.
        limit: photographs at most; of more, some in equal steps.
        loaded: options of ``load_network`` with which the page says that the network is loaded.

    Returns:
        The path of the page.

    Raises:
        OutputError: another name, or a folder that there is not.
        ImageError: what is neither a picture nor an index.
        OptionError: several indexes, nothing at all, or methods that make no maps.
        UnknownTarget; IndexUnusable: another network than the index was made with.
    """
    page_file = checked_output(output)
    several = [pictures] if isinstance(pictures, (str, os.PathLike)) else pictures
    given = [os.fspath(each) for each in several]
    files, indexes = separated(given)
    chosen = methods_of(methods)
    if limit < 1:
        raise OptionError(f"report: limit should be at least 1, not {limit}")
    index = None if not indexes else open_index(indexes[0], network=_network(network))
    found = index.network if index is not None else _network(network or "builtin")
    assert found is not None
    if target is not None:
        found.target(target)
    loaded = loaded or (index.provenance["loaded"] if index is not None and network is None else None)
    shown = spread(files, limit)
    text = _Page(found, chosen, target, loaded, given, page_file).text(shown, index, indexes, len(files), limit)
    with atomic_write(page_file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page_file


def checked_output(output: str | os.PathLike[str]) -> Path:
    """The page's path; :class:`OutputError` before anything is computed for a page that could not be written."""
    path = Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"a report is a page: end the name in .html, not {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first: mkdir -p '{path.parent}'")
    return path


def separated(paths: Sequence[str]) -> tuple[list[Path], list[str]]:
    """(pictures, indexes) of paths that are either, or folders with pictures."""
    indexes = [path for path in paths if os.path.isfile(os.path.join(path, MANIFEST))]
    if len(indexes) > 1:
        raise OptionError(f"a report is about one index, and these are {len(indexes)}; write one for each")
    if not paths:
        raise OptionError("a report needs photographs, a folder with some, or an index of `convscope scan`")
    wrong = next((path for path in paths if path not in indexes and path.rstrip("/\\").endswith(".index")), None)
    if wrong is not None:
        raise IndexUnusable(f"{wrong} is no index; `convscope scan PHOTOS -o {wrong}` makes one")
    return pictures_in(path for path in paths if path not in indexes), indexes


def spread(files: Sequence[Path], limit: int) -> list[Path]:
    """At most ``limit`` of them, in equal steps."""
    return list(files) if len(files) <= limit else [files[len(files) * place // limit] for place in range(limit)]


def _network(network: Network | str | None) -> Network | None:
    return None if network is None else load_network(network)


# ---- the page


class _Page:
    """What all parts of a page share."""

    def __init__(
        self, network: Network, methods: Sequence[Method], target: str | int | None, loaded: Mapping[str, Any] | None,
        given: Sequence[str], output: Path,
    ) -> None:  # fmt: skip
        self.network, self.methods, self.target, self.loaded = network, methods, target, loaded
        self.given, self.output = given, output

    def text(self, files: Sequence[Path], index: Index | None, indexes: Sequence[str], total: int, limit: int) -> str:
        """The whole page."""
        with counting("parts", bool(files) + bool(indexes)) as counter:
            told = self._told(files) if files else None
            counter.done()
            images = told.about.images[: dataset.NEIGHBOURS] if told else None
            names = [str(file) for file in files[: dataset.NEIGHBOURS]]
            asked = None if index is None else dataset.ask(index, indexes[0], self.target, images, names)
        title = _title(self.network, told, index)
        left = f" {limit} of {total:,} photographs are shown." if total > limit else ""

        def draw(quality: int) -> str:
            chapters = told.chapters(quality) if told else []
            chapters += [asked.chapter(quality, alone=told is None)] if asked else []
            opening = told.opening(quality) if told else None
            first = told.strip(quality) if told else asked.opening(quality) if asked else ""
            introduction = self._introduction(told, first, left)
            return page(title, introduction, chapters, opening=opening, end=self._end(limit))

        return below_limit(draw)

    def _told(self, files: Sequence[Path]) -> photos.Told:
        given = Given(photographs=[str(file) for file in files], loaded=self.loaded)
        return photos.tell(photos.read(self.network, files, self.methods, target=self.target, given=given))

    def _introduction(self, told: photos.Told | None, first: str, left: str) -> str:
        told_of = [_WHAT, _PHOTOGRAPHS if told else _INDEX, _READ, left.strip(), _BUILTIN if self._builtin else ""]
        lead = f'<div class="lead"><p>{escape(" ".join(filter(None, told_of)))}</p></div>'
        return f"{first}\n{lead}\n{facts(about(self.network))}"

    @property
    def _builtin(self) -> bool:
        return self.network.name.startswith("builtin")

    def _end(self, limit: int) -> str:
        """The lines that make the page again."""
        options: dict[str, Any] = {"target": self.target} if self.target is not None else {}
        named = ", ".join(method.name for method in self.methods)
        options |= {"methods": named} if self.methods != methods_of(DEFAULT) else {}
        options |= {"limit": limit} if limit != LIMIT else {}
        indexed = len(self.given) == 1 and os.path.isfile(os.path.join(self.given[0], MANIFEST))
        words = ["convscope", "report", *self.given, "--output", str(self.output)]
        words += [word for name, value in options.items() for word in flags(name, value)]
        known = network_flags(self.network, self.loaded)
        words += [] if indexed else known
        more = "".join(f", {name}={value!r}" for name, value in options.items())
        more += f", network={network_call(self.network, self.loaded)}" if known and not indexed else ""
        pictures = repr(self.given[0]) if len(self.given) == 1 else repr(list(self.given))
        python = f"import convscope\n\nconvscope.report({pictures}, {str(self.output)!r}{more})"
        code = "\n".join(f"<pre><code>{escape(text)}</code></pre>" for text in (shell(words), python))
        return f"<h2>Make this page again</h2>\n{code}"


_WHAT = "A convolutional network is a program that has learned from examples to name what is in a picture."
_PHOTOGRAPHS = (
    "This page shows what one of them answers here, which pixels that rests on, how little it takes to change the "
    "answer, and what its layers respond to. Methods need not agree; each stands beside what it makes of a network "
    "that has learned nothing."
)
_INDEX = (
    "This page shows what one of them makes of a data set: whether it is in order, which pictures it takes for alike, "
    "what its channels fire for, what it looks at in one class, and for which pictures it errs."
)
_READ = "Every part says what to look for, and what it does not prove."
_BUILTIN = "The built-in network knows 100 kinds of things; what is not among them gets the name of one all the same."


def _title(network: Network, told: photos.Told | None, index: Index | None) -> str:
    pictures = "" if index is None else f"over {len(index):,} pictures"
    if told is None:
        return f"What {called(network)} does {pictures}"
    names = told.about.names
    seen = f"in {names[0]}" if len(names) == 1 else f"in {len(names)} photographs"
    return f"What {called(network)} sees {seen}{f', and {pictures}' if pictures else ''}"
