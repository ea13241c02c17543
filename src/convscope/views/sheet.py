"""A sheet that is laid out in whole pixels, with its heading and its notes.

Figures are made without pyplot and do not depend on the user's matplotlibrc. Small pictures are enlarged by whole
factors and placed on whole pixels, so that every value of a map is a square of one colour.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from convscope.registry import discover
from convscope.results import Result
from convscope.views.pixels import Pixels
from convscope.views.style import BODY, DPI, LIGHT, SMALL, TITLE, Theme, settled, shorten, wrap

MARGIN = 56  # pixels around a sheet
LINE = 30  # pixels from one line of BODY to the next


class Plate(Figure):
    """A figure whose files depend on nothing but what it shows: no dates, no settings of the user."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """As matplotlib's, without the time of day in PDF and SVG."""
        kind = str(options.get("format") or os.path.splitext(str(fname))[1].lstrip(".")).lower()
        date = {"pdf": "CreationDate", "svg": "Date"}.get(kind)
        if date:
            options["metadata"] = {date: None, **(options.get("metadata") or {})}
        with settled():
            super().savefig(fname, **options)

    def pixels(self) -> Pixels:
        """(H, W, 4) as it is drawn."""
        with settled():
            canvas = FigureCanvasAgg(self)
            canvas.draw()
            return np.array(canvas.buffer_rgba())


class Sheet:
    """A figure that is laid out in pixels from its top left corner."""

    def __init__(self, width: int, height: int, theme: Theme = LIGHT) -> None:
        self.width, self.height, self.theme = width, height, theme
        self.plate = Plate(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=theme.paper)

    def axes(self, x: int, y: int, width: int, height: int, label: str = "") -> Axes:
        """Axes over that rectangle."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.plate.add_axes(box, label=label)

    def chart(self, x: int, y: int, width: int, height: int, label: str) -> Axes:
        """Axes for lines over a number: a bottom line, quiet rules across, and no box."""
        axes = self.axes(x, y, width, height, label)
        axes.set_facecolor("none")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(self.theme.quiet)
        axes.spines["bottom"].set_linewidth(0.6)
        soft = {"labelsize": SMALL, "labelcolor": self.theme.soft, "pad": 4}
        axes.tick_params(axis="y", length=0, **soft)
        axes.tick_params(axis="x", length=2, color=self.theme.quiet, **soft)
        axes.grid(axis="y", color=self.theme.line, linewidth=0.5, zorder=0)
        return axes

    def picture(self, pixels: Pixels, x: int, y: int, label: str = "") -> None:
        """Pixels as they are, one for one."""
        height, width = pixels.shape[:2]
        axes = self.axes(x, y, width, height, label)
        axes.set_axis_off()
        axes.imshow(pixels, interpolation="nearest", aspect="auto")

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        box = Rectangle(
            (x / self.width, 1 - (y + height) / self.height), width / self.width, height / self.height,
            facecolor=colour, edgecolor="none", transform=self.plate.transFigure,
        )  # fmt: skip
        self.plate.add_artist(box)

    def text(
        self, x: float, y: float, text: str, *, size: float = BODY, colour: str | None = None, bold: bool = False,
        align: str = "left", vertical: str = "baseline",
    ) -> None:  # fmt: skip
        """One line of text; dollars and underscores are only themselves."""
        self.plate.text(
            x / self.width, 1 - y / self.height, text, fontsize=size, color=colour or self.theme.ink,
            fontweight="bold" if bold else "normal", ha=align, va=vertical, parse_math=False,
        )  # fmt: skip


# ---- what a result says about itself


@dataclass(frozen=True)
class Heading:
    """What stands above a picture: the technique, what it shows in a sentence, and what it was asked of."""

    title: str
    claim: str
    under: str


def heading(result: Result, *more: str) -> Heading:
    """The heading of a result's picture; ``more`` is said after network and layer."""
    made = result.provenance
    layer = f"layer {result.layer}" if result.layer else ""
    under = " · ".join(filter(None, [made.network if made else "", layer, *more]))
    if made is None:
        return Heading("", "", under)
    known = discover().get(made.technique)
    return Heading(made.technique, known.summary if known else "", under)


def picture_name(result: Result, index: int) -> str:
    """The name of a photograph without its folder, or nothing where it has none."""
    names = result.provenance.photographs if result.provenance else ()
    return os.path.basename(names[index].rstrip("/\\")) if index < len(names) else ""


def sentence(note: str) -> str:
    """A note with a capital and a full stop."""
    return note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".")


def footer(result: Result, total: int, drawn: int, things: str) -> list[str]:
    """The sentences under a picture: the result's notes, and what was left out."""
    left_out = [f"{drawn} of {total} {things} are drawn; the raw numbers hold all."] if drawn < total else []
    return [*map(sentence, result.notes), *left_out]


def bare(body: tuple[int, int], theme: Theme) -> Sheet:
    """A sheet without heading, margins and paper, for a page that has them."""
    sheet = Sheet(*body, theme)
    sheet.plate.set_facecolor("none")
    return sheet


def framed(body: tuple[int, int], head: Heading, footer: Sequence[str], theme: Theme) -> tuple[Sheet, int]:
    """A sheet around a body of (width, height) pixels, and the row at which the body begins."""
    width = max(body[0], 480)
    notes = [line for note in footer for line in wrap(note, width)]
    lines = [(line, theme.ink) for line in wrap(head.claim, width)]
    lines += [(line, theme.soft) for line in wrap(head.under, width)]
    top = MARGIN + (40 if head.title else 0) + LINE * len(lines)
    top += 34 if top > MARGIN else 0
    sheet = Sheet(width + 2 * MARGIN, top + body[1] + (26 + LINE * len(notes) if notes else 0) + MARGIN, theme)
    row = MARGIN
    if head.title:
        sheet.text(MARGIN, row + 26, shorten(head.title, width, TITLE, True), size=TITLE, bold=True)
        row += 40
    for line, colour in lines:
        row += LINE
        sheet.text(MARGIN, row, line, colour=colour)
    for position, line in enumerate(notes):
        sheet.text(MARGIN, top + body[1] + 26 + LINE * position + 20, line, colour=theme.soft)
    return sheet, top


def blocks(
    count: int, width: int, height: int, *, columns: int, gap: int, down: int
) -> tuple[int, int, list[tuple[int, int]]]:
    """(width, height) of ``count`` equal blocks in columns, and the corner (x, y) of each."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    corners = [((i % columns) * (width + gap), (i // columns) * (height + down)) for i in range(count)]
    return columns * (width + gap) - gap, rows * (height + down) - down, corners
