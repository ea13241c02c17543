"""A result in a notebook: its part of a page with looks of its own, that reach nothing else on the page.

Notebooks put HTML into their own page, so every rule here begins with ``.convscope``. Light or dark is what Jupyter,
VS Code or Colab say that it is, and the reader's system where they say nothing.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from importlib.resources import files

from convscope.animation import webp_film
from convscope.results import Result, Synthesis
from convscope.views.embed import escape
from convscope.views.sheet import heading, sentence

QUALITY = 75  # of photographs
LARGEST = 2_000_000  # bytes of a part of a page; what needs more is drawn as one picture
FILM = 224  # pixels of a film's side
_RULE = re.compile(r"([^{}]+)\{")
_THEMES = re.compile(
    r'<picture><source srcset="([^"]*)" media="[^"]*"><img class="drawing"([^>]*) src="([^"]*)"([^>]*)></picture>'
)


def cell(result: Result, body: str) -> str:
    """``body``, which is HTML, with its looks, a line above and the notes below."""
    said = heading(result)
    above = f'<p class="title"><strong>{escape(said.title)}</strong> {escape(said.under)}</p>' if said.title else ""
    notes = "".join(f"<li>{escape(sentence(note))}</li>" for note in result.notes)
    below = f'<ul class="notes">{notes}</ul>' if notes else ""
    themed = _THEMES.sub(r'<img class="drawing light"\2 src="\3"\4><img class="drawing dark"\2 src="\1"\4>', body)
    return f'<style>{style()}</style><div class="convscope">{above}{themed}{_film(result)}{below}</div>'


def _film(result: Result) -> str:
    """How a picture came about, where it kept its frames."""
    if not isinstance(result, Synthesis) or not result.frames:
        return ""
    film = base64.b64encode(webp_film(result.film(), side=FILM, quality=QUALITY)).decode("ascii")
    alt = "How it came about, as a film"
    return f'<p class="film"><img src="data:image/webp;base64,{film}" alt="{alt}" width="{FILM}"></p>'


@cache
def style() -> str:
    """The rules of ``fragments.css`` and ``notebook.css``, each within ``.convscope``."""
    package = files("convscope.views")
    fragments, own = (package.joinpath(f"{name}.css").read_text(encoding="utf-8") for name in ("fragments", "notebook"))
    return own + scoped(fragments)


def scoped(css: str) -> str:
    """Rules that hold within ``.convscope`` only; blocks of @media stay around them."""

    def within(found: re.Match[str]) -> str:
        chosen = " ".join(found[1].split())
        if chosen.startswith("@"):
            return f"{chosen} {{"
        return ", ".join(f".convscope {each.strip()}" for each in chosen.split(",")) + " {"

    return _RULE.sub(within, re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))
