"""One self-contained page: no network access, no script, light and dark, for the screen and for paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from convscope import __version__
from convscope.registry import FAMILIES
from convscope.views.embed import escape
from convscope.views.pages import shell

LIMIT = 9_500_000  # bytes of a page
QUALITIES = (90, 75, 55, 35)  # of pictures, tried until the page is below the limit
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi:(10\.[^\s,;]*[^\s,;.])")


@dataclass(frozen=True)
class Section:
    """One technique on the page.

    ``body`` is HTML, as ``convscope.views.html`` makes it; everything else is plain text. ``error`` is said in its
    place when there is no result. ``verdict`` says how far the picture can be trusted, and ``doubtful`` that it
    cannot. ``title`` stands over it instead of the name, and ``within`` is the anchor of its chapter, where sections of
    one name stand in several.
    """

    name: str
    family: str
    summary: str
    body: str = ""
    see: str = ""
    caution: str = ""
    paper: str = ""
    command: str = ""
    python: str = ""
    notes: Sequence[str] = ()
    error: str = ""
    verdict: str = ""
    doubtful: bool = False
    title: str = ""
    within: str = ""

    @property
    def anchor(self) -> str:
        """Its address on the page."""
        return anchored(f"{self.within} {self.name}") or "section"

    @property
    def heading(self) -> str:
        """What stands over it."""
        return self.title or self.name


@dataclass(frozen=True)
class Chapter:
    """Sections under a question or a photograph's name; ``lead`` is HTML between the heading and the first of them."""

    title: str
    sections: Sequence[Section]
    anchor: str
    lead: str = ""


def anchored(text: str) -> str:
    """Text as an address on the page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def by_family(sections: Sequence[Section]) -> list[Chapter]:
    """A chapter for each family, in the families' order; unknown ones at the end."""
    order = dict.fromkeys([*FAMILIES, *(s.family for s in sections)])
    grouped = {family: [s for s in sections if s.family == family] for family in order}
    return [Chapter(FAMILIES.get(f, f), members, f"family-{f}") for f, members in grouped.items() if members]


@dataclass(frozen=True)
class Opening:
    """What a page begins with, as HTML: a picture that stands beside the title, and the words beneath the title."""

    picture: str
    words: str


def page(
    title: str, introduction: str, chapters: Sequence[Chapter], *, opening: Opening | None = None, end: str = ""
) -> str:  # fmt: skip
    """A whole HTML document: a heading, a table of contents, and the chapters.

    ``introduction`` and ``end`` are HTML; the title is text.
    """
    chapters = [chapter for chapter in chapters if chapter.sections]
    body = "\n".join(_chapter(chapter) for chapter in chapters)
    sheet = f"""<div class="sheet">
<header>
{_title(title, opening)}
{introduction}
</header>
{_contents(chapters)}
<main>
{body}
</main>
<footer>
{end}
<p>Made by convscope {escape(__version__)}. Every picture is drawn from raw numbers, whose scale stands beside it.</p>
</footer>
</div>"""
    return shell(title, sheet, styles())


def covered(opening: Opening, head: str = "") -> str:
    """A large picture with its words beside it, beneath ``head``, which is HTML."""
    return f'<div class="cover">{opening.picture}<div><div>{head}</div><div>{opening.words}</div></div></div>'


def below_limit(draw: Callable[[int], str], qualities: Sequence[int] = QUALITIES) -> str:
    """What ``draw`` makes at the first quality of photographs that keeps it below the limit, or at the last one."""
    text = ""
    for quality in qualities:
        text = draw(quality)
        if len(text.encode()) < LIMIT:
            break
    return text


def styles() -> str:
    """The style sheet of all pages."""
    return "".join(
        files(package).joinpath(name).read_text(encoding="utf-8")
        for package, name in (("convscope.reporting", "page.css"), ("convscope.views", "fragments.css"))
    )


def facts(told: Sequence[tuple[str, str]]) -> str:
    """Names and values beside each other."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told)
    return f'<dl class="facts">{items}</dl>'


def again(command: str, python: str, where: tuple[str, str] = ("On the command line", "In Python")) -> str:
    """The lines that repeat something, folded; nothing where there are none."""
    code = "".join(
        f"<p>{label}</p><pre><code>{escape(text)}</code></pre>"
        for label, text in zip(where, (command, python), strict=True)
        if text
    )
    return f"<details><summary>Make it again</summary>{code}</details>" if code else ""


def reading(see: str, caution: str) -> str:
    """What to see in a picture, and what it does not prove."""
    kinds = (("see", "What to see", see), ("caution", "What it does not prove", caution))
    said = [f'<p class="{kind}"><b>{label}</b>{marked(text)}</p>' for kind, label, text in kinds if text]
    return f'<div class="notes">{"".join(said)}</div>' if said else ""


def marked(text: str) -> str:
    """Text as HTML, in which commands stand between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def trust(verdict: str, doubtful: bool) -> str:
    """A verdict, its first words as its head."""
    head, _, rest = verdict.partition(": ")
    kind = "verdict doubtful" if doubtful else "verdict"
    rest = rest[:1].upper() + rest[1:]
    return f'<p class="{kind}"><b>{escape(head)}</b>{escape(rest)}</p>' if verdict else ""


def said(notes: Sequence[str]) -> str:
    """Sentences that the reader must not miss."""
    items = "".join(f"<li>{escape(note[:1].upper() + note[1:])}</li>" for note in notes)
    return f'<ul class="said">{items}</ul>' if items else ""


# ---- parts of the page


def _title(title: str, opening: Opening | None) -> str:
    head = f'<p class="brand">convscope</p>\n<h1>{escape(title)}</h1>'
    if opening is None:
        return head
    return covered(opening, head)


def _contents(chapters: Sequence[Chapter]) -> str:
    def links(members: Sequence[Section]) -> str:
        return "".join(f'<li><a href="#{s.anchor}">{escape(s.heading)}</a></li>' for s in members)

    items = "\n".join(
        f'<li><a href="#{c.anchor}">{escape(c.title)}</a><ul>{links(c.sections)}</ul></li>' for c in chapters
    )
    return f'<nav aria-label="Contents">\n<ul>\n{items}\n</ul>\n</nav>' if chapters else ""


def _chapter(chapter: Chapter) -> str:
    heading = f'<h2 id="{chapter.anchor}">{escape(chapter.title)}</h2>'
    parts = [heading, chapter.lead, *(_article(section) for section in chapter.sections)]
    return '<section class="family">\n' + "\n".join(filter(None, parts)) + "\n</section>"


def _article(section: Section) -> str:
    head = [
        f'<h3><a href="#{section.anchor}">{escape(section.heading)}</a></h3>',
        f'<p class="claim">{escape(section.summary)}</p>' if section.summary else "",
        reading(section.see, section.caution),
        trust(section.verdict, section.doubtful),
    ]
    parts = [
        f'<article id="{section.anchor}">',
        f'<div class="head">{"".join(head)}</div>',
        f'<p class="failed">{escape(section.error)}</p>' if section.error else section.body,
        said(section.notes),
        _source(section),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _source(section: Section) -> str:
    name = f"<p><code>{escape(section.name)}</code></p>" if section.title and section.command else ""
    paper = f"<p>{linked(section.paper)}</p>" if section.paper else ""
    where = ("On the command line", "In Python")
    if "PHOTO.jpg" in section.command or "PHOTOGRAPHS/" in section.command:
        own = "a photograph" if "PHOTO.jpg" in section.command else "photographs"
        where = (f"{where[0]}, with {own} of your own", f"{where[1]}, with these very photographs")
    code = again(section.command, section.python, where)
    return f'<div class="source">{name}{paper}{code}</div>' if paper or code else ""


def linked(paper: str) -> str:
    """The paper's text, with its arXiv number or DOI as a link that is followed only by a click."""
    text = _ARXIV.sub(r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>', escape(paper))
    return _DOI.sub(r'<a href="https://doi.org/\1" rel="noreferrer">doi:\1</a>', text)
