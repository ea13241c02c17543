"""Series over a common axis, in panels below each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from convscope.results import Curve
from convscope.views import embed
from convscope.views.colour import Array
from convscope.views.pixels import Pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import BODY, DARK, HEAD, LIGHT, SMALL, Theme, measure, number, settled, shorten

PANEL, BETWEEN = 230, 74  # pixels of a panel, and between two of them
SLANT, UPRIGHT = 40, 24  # pixels that a name takes along the axis at 45 degrees and upright
LEFT = 96  # room for numbers


def figure(result: Curve, theme: Theme = LIGHT) -> Plate:
    """A panel for each group of series; names of points at the bottom."""
    size = _size(result)
    sheet, top = framed(size, heading(result), [*footer(result, 0, 0, ""), *_hidden(result)], theme)
    _draw(sheet, result, MARGIN, top, size)
    return sheet.plate


def _names(result: Curve) -> list[str]:
    return [shorten(name, 300, SMALL) for name in result.points]


def _size(result: Curve) -> tuple[int, int]:
    """(width, height) of the panels with everything that is written around them."""
    width = int(np.clip(46 * len(result.points), 900, 1700))
    slanted = width / max(len(result.points), 1) >= SLANT
    long = max((measure(name, SMALL) for name in _names(result)), default=0.0)
    bottom = round((0.72 if slanted else 1) * long) + 40 + (48 if result.axis else 0)
    return width + LEFT, len(result.panels) * (PANEL + BETWEEN) - BETWEEN + 50 + bottom


def _draw(sheet: Sheet, result: Curve, x: int, y: int, size: tuple[int, int]) -> None:
    theme, width = sheet.theme, size[0] - LEFT
    for place, (label, series, logarithmic) in enumerate(result.panels):
        top = y + 50 + place * (PANEL + BETWEEN)
        axes = sheet.axes(x + LEFT, top, width, PANEL, f"panel {place}")
        _panel(sheet, axes, result, series, logarithmic)
        _label(sheet, result, label, series, x, top - 18)
        last = place == len(result.panels) - 1
        _points(axes, _names(result) if last else [], len(result.points), width, theme)
    if result.axis:
        words = result.axis + (" →" if "," in result.axis else "")
        sheet.text(x + LEFT, y + size[1] - 12, words, size=SMALL, colour=theme.soft)


def _values(result: Curve, name: str) -> Array:
    values: Array = result.values[list(result.series).index(name)].double().numpy()
    return values


def _hidden(result: Curve) -> list[str]:
    """Zeros have no place on a logarithmic axis."""
    shown = [_values(result, name) for _, series, logarithmic in result.panels if logarithmic for name in series]
    count = sum(int((values <= 0).sum()) for values in shown)
    return [f"{count} values of zero or less have no place on the logarithmic axes."] if count else []


def _panel(sheet: Sheet, axes: Axes, result: Curve, series: Sequence[str], logarithmic: bool) -> None:
    theme = sheet.theme
    drawn = []
    for place, name in enumerate(series):
        values = _values(result, name)
        good = np.isfinite(values) & ((values > 0) | (not logarithmic))
        at = np.flatnonzero(good)
        drawn.append(values[good])
        colour = theme.series[place % len(theme.series)]
        size = 3.2 if len(values) <= 60 else 0
        axes.plot(at, values[good], color=colour, linewidth=1.0, alpha=0.45 if size else 1.0, zorder=3)
        axes.plot(at, values[good], color=colour, linewidth=0, marker="o", markersize=size, markeredgewidth=0, zorder=4)
    _style(axes, theme)
    _scale(axes, np.concatenate(drawn) if drawn else np.zeros(0), logarithmic)


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.quiet)
    axes.spines["bottom"].set_linewidth(0.6)
    axes.tick_params(axis="y", length=0, labelsize=SMALL, labelcolor=theme.soft, pad=4)
    axes.grid(axis="y", color=theme.line, linewidth=0.5, zorder=0)


def _scale(axes: Axes, values: Array, logarithmic: bool) -> None:
    """Few, round numbers at the side, whatever the range."""
    if logarithmic and values.size:
        axes.set_yscale("log")
        low, high = float(values.min()), float(values.max())
        axes.set_ylim(low / 1.6, high * 1.6)
        narrow = high / low < 30
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if narrow else (1,), numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        if values.size and values.min() >= 0 and values.max() <= 1:
            axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _label(sheet: Sheet, result: Curve, label: str, series: Sequence[str], x: float, y: float) -> None:
    """What the panel shows, and the names of its lines in their colours."""
    sheet.text(x, y, label, size=HEAD, bold=True)
    if len(series) == 1 and series[0] == label:
        return
    x += measure(label, HEAD, True) + 36
    for place, name in enumerate(series):
        there = bool(np.isfinite(_values(result, name)).any())
        colour = sheet.theme.series[place % len(sheet.theme.series)] if there else sheet.theme.quiet
        words = name if there else f"{name}: none"
        sheet.rectangle(x, y - 10, 26, 5, colour)
        sheet.text(x + 36, y, words, colour=colour)
        x += 36 + measure(words, BODY) + 36


def _points(axes: Axes, names: Sequence[str], count: int, width: int, theme: Theme) -> None:
    """Names of points: slanted where all fit so, else upright, and then only every second or third if need be."""
    axes.set_xlim(-0.6, max(count, 1) - 0.4)
    room = width / max(count, 1)
    every = max(1, math.ceil(UPRIGHT / room))
    at = list(range(0, count, every)) if names else []
    axes.set_xticks(at, [names[i] for i in at], fontsize=SMALL, color=theme.soft, parse_math=False)
    turn = {"rotation": 45, "ha": "right"} if room >= SLANT else {"rotation": 90, "ha": "right", "va": "center"}
    for label in axes.get_xticklabels():
        label.set(rotation_mode="anchor", **turn)
    axes.tick_params(axis="x", length=2, color=theme.quiet, pad=4)


def html(result: Curve, *, quality: int = embed.QUALITY) -> str:
    """The panels as one drawing, in the page's colours."""
    series = ", ".join(result.series)
    ends = f"{result.points[0]} to {result.points[-1]}" if result.points else "nothing"
    alt = f"Curves of {series} over {len(result.points)} points, from {ends}"
    hidden = "".join(f'<p class="unit">{embed.escape(sentence)}</p>' for sentence in _hidden(result))
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}{hidden}</figure>'


def _on_page(result: Curve, theme: Theme) -> Pixels:
    with settled():
        sheet = bare((_size(result)[0] + 16, _size(result)[1]), theme)
        _draw(sheet, result, 0, 0, _size(result))
        return sheet.plate.pixels()
