"""How results look: ``figure(result)`` for print, ``html(result)`` for pages, ``terminal(result)`` for text.

``page(result)`` is a whole document of one result, which its ``save("x.html")`` writes; ``cell(result)`` is what a
notebook shows of it.

Another package's kind of result is drawn by registering a function for it::

    @convscope.views.figure.register
    def _(result: MyResult, theme: Theme = LIGHT) -> Figure: ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import singledispatch

from matplotlib.figure import Figure

from convscope.errors import OutputError
from convscope.results import (
    Adversarial,
    Agreement,
    Bias,
    Checkup,
    Clusters,
    Comparison,
    Curve,
    Embedding,
    Heatmap,
    Matches,
    Parts,
    Patch,
    Pictures,
    Ranking,
    Regions,
    Result,
    Rows,
    Scatter,
    Spots,
    Synthesis,
    Table,
    Trends,
)
from convscope.views import (
    adversarial,
    agreement,
    bias,
    checkup,
    clusters,
    comparison,
    curves,
    embed,
    embedding,
    heatmaps,
    matches,
    montage,
    notebook,
    pages,
    parts,
    patches,
    plane,
    ranking,
    regions,
    rows,
    scatter,
    spots,
    synthesis,
    tables,
    trends,
)
from convscope.views.style import DARK, LIGHT, Theme, settled
from convscope.views.tables import needs_picture, terminal

__all__ = ["DARK", "LIGHT", "Theme", "cell", "figure", "html", "needs_picture", "page", "terminal"]


@singledispatch
def figure(result: Result, theme: Theme = LIGHT) -> Figure:
    """A matplotlib figure of a result, made without pyplot and free of the user's settings."""
    raise OutputError(
        f"nothing draws a {type(result).__name__}; register a function for it with convscope.views.figure.register"
    )


@singledispatch
def html(result: Result, *, quality: int = embed.QUALITY) -> str:
    """A result as a part of a page, pictures embedded; its looks are in ``fragments.css``.

    ``quality``, from 1 to 100, is of photographs, and below 90 also of maps and tiles.
    """
    return _plotted(result)


def _plotted(result: Result) -> str:
    name = result.provenance.technique if result.provenance else type(result).__name__
    return f'<figure class="drawn">{embed.plotted(figure(result), f"Picture of {name}")}</figure>'


@singledispatch
def page(result: Result) -> str:
    """A result as a whole HTML document, which needs nothing beside it and no network."""
    return pages.document(result, html(result))


def cell(result: Result) -> str:
    """A result as notebooks show it: its part of a page with its own looks, which touch nothing else on the page."""
    body = html(result, quality=notebook.QUALITY)
    return notebook.cell(result, body if len(body) < notebook.LARGEST else _plotted(result))


def _settled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def drawn(result: Result, theme: Theme = LIGHT) -> Figure:
        with settled():
            return draw(result, theme)

    return drawn


for _kind, _view in (
    (Heatmap, heatmaps), (Pictures, montage), (Ranking, ranking), (Table, tables), (Curve, curves), (Scatter, scatter),
    (Bias, bias), (Synthesis, synthesis), (Comparison, comparison), (Regions, regions),
    (Adversarial, adversarial), (Spots, spots), (Agreement, agreement), (Patch, patches), (Rows, rows),
    (Embedding, embedding),
    (Trends, trends), (Clusters, clusters), (Checkup, checkup), (Matches, matches), (Parts, parts),
):  # fmt: skip
    figure.register(_kind, _settled(_view.figure))
    html.register(_kind, _view.html)

page.register(Embedding, plane.page)
