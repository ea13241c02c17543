"""One self-contained page: no network access, no script, light and dark, for the screen and for paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from convscope import __version__
from convscope.registry import FAMILIES
from convscope.views.embed import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi:(10\.[^\s,;]*[^\s,;.])")


@dataclass(frozen=True)
class Section:
    """One technique on the page.

    ``body`` is HTML, as ``convscope.views.html`` makes it; everything else is plain text. ``error`` is said in its
    place when there is no result. ``verdict`` says how far the picture can be trusted, and ``doubtful`` that it
    cannot.
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

    @property
    def anchor(self) -> str:
        """Its address on the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "section"


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """A whole HTML document: a heading, a table of contents, and the sections by family, each under its question.

    ``introduction`` is HTML; the title is text.
    """
    families = _grouped(sections)
    body = "\n".join(_family(family, members) for family, members in families.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{styles()}</style>
</head>
<body>
<div class="sheet">
<header>
<p class="brand">convscope</p>
<h1>{escape(title)}</h1>
{introduction}
</header>
{_contents(families)}
<main>
{body}
</main>
<footer>
<p>Made by convscope {escape(__version__)}. Every picture is drawn from raw numbers, whose scale stands beside it.</p>
</footer>
</div>
</body>
</html>
"""


def styles() -> str:
    """The style sheet of all pages."""
    return "".join(
        files(package).joinpath(name).read_text(encoding="utf-8")
        for package, name in (("convscope.reporting", "page.css"), ("convscope.views", "fragments.css"))
    )


def _grouped(sections: Sequence[Section]) -> dict[str, list[Section]]:
    """Sections by family, in the families' order; unknown families at the end."""
    order = [*FAMILIES, *(s.family for s in sections)]
    names = [f for f in dict.fromkeys(order) if any(s.family == f for s in sections)]
    return {family: [s for s in sections if s.family == family] for family in names}


def _question(family: str) -> str:
    return FAMILIES.get(family, family)


def _contents(families: dict[str, list[Section]]) -> str:
    def links(members: Sequence[Section]) -> str:
        return "".join(f'<li><a href="#{s.anchor}">{escape(s.name)}</a></li>' for s in members)

    items = "\n".join(
        f'<li><a href="#family-{escape(family)}">{escape(_question(family))}</a><ul>{links(members)}</ul></li>'
        for family, members in families.items()
    )
    return f'<nav aria-label="Contents">\n<ul>\n{items}\n</ul>\n</nav>' if families else ""


def _family(family: str, members: Sequence[Section]) -> str:
    heading = f'<h2 id="family-{escape(family)}">{escape(_question(family))}</h2>'
    return f'<section class="family">\n{heading}\n' + "\n".join(_article(s) for s in members) + "\n</section>"


def _article(section: Section) -> str:
    parts = [
        f'<article id="{section.anchor}">',
        f'<h3><a href="#{section.anchor}">{escape(section.name)}</a></h3>',
        f'<p class="claim">{escape(section.summary)}</p>' if section.summary else "",
        _reading(section),
        _trust(section),
        f'<p class="failed">{escape(section.error)}</p>' if section.error else section.body,
        _said(section.notes),
        _source(section),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _reading(section: Section) -> str:
    kinds = (("see", "What to see", section.see), ("caution", "What it does not prove", section.caution))
    said = [f'<p class="{kind}"><b>{label}</b>{escape(text)}</p>' for kind, label, text in kinds if text]
    return f'<div class="notes">{"".join(said)}</div>' if said else ""


def _trust(section: Section) -> str:
    """The verdict, its first words as its head."""
    head, _, rest = section.verdict.partition(": ")
    kind = "verdict doubtful" if section.doubtful else "verdict"
    rest = rest[:1].upper() + rest[1:]
    return f'<p class="{kind}"><b>{escape(head)}</b>{escape(rest)}</p>' if section.verdict else ""


def _said(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note[:1].upper() + note[1:])}</li>" for note in notes)
    return f'<ul class="said">{items}</ul>' if items else ""


def _source(section: Section) -> str:
    paper = f"<p>{_linked(section.paper)}</p>" if section.paper else ""
    shell, python = "On the command line", "In Python"
    if "PHOTO" in section.command:
        shell, python = f"{shell}, with a photograph of your own", f"{python}, with these very photographs"
    code = _code(shell, section.command) + _code(python, section.python)
    again = f"<details><summary>Make it again</summary>{code}</details>" if code else ""
    return f'<div class="source">{paper}{again}</div>' if paper or again else ""


def _code(label: str, text: str) -> str:
    return f"<p>{label}</p><pre><code>{escape(text)}</code></pre>" if text else ""


def _linked(paper: str) -> str:
    """The paper's text, with its arXiv number or DOI as a link that is followed only by a click."""
    text = _ARXIV.sub(r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>', escape(paper))
    return _DOI.sub(r'<a href="https://doi.org/\1" rel="noreferrer">doi:\1</a>', text)
