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
CROWDED = 3  # lines in a panel, beyond which their intervals would only hide them


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
        axes = sheet.chart(x + LEFT, top, width, PANEL, f"panel {place}")
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
    """Zeros have no place on a logarithmic axis; and what a dashed line means."""
    shown = [_values(result, name) for _, series, logarithmic in result.panels if logarithmic for name in series]
    count = sum(int((values <= 0).sum()) for values in shown)
    said = [f"{count} values of zero or less have no place on the logarithmic axes."] if count else []
    return [*said, *([f"Dashed: {result.dash}."] if result.dashed else [])]


def _panel(sheet: Sheet, axes: Axes, result: Curve, series: Sequence[str], logarithmic: bool) -> None:
    theme = sheet.theme
    drawn = []
    colours = _colours(result, series, theme)
    for name in series:
        values, dashed = _values(result, name), name in result.dashed
        good = np.isfinite(values) & ((values > 0) | (not logarithmic))
        at = np.flatnonzero(good)
        drawn.append(values[good])
        colour = colours[name]
        size = 3.2 if len(values) <= 60 else 0
        few = len(values) <= 12  # a line through few points is what is to be seen
        axes.plot(
            at, values[good], color=colour, linestyle=(0, (3, 2)) if dashed else "-", zorder=3,
            linewidth=1.6 if few else 1.0, alpha=0.45 if size and not few else 1.0,
        )  # fmt: skip
        if not dashed:
            axes.plot(
                at, values[good], color=colour, linewidth=0, marker="o", markersize=size, markeredgewidth=0, zorder=4
            )
            if len(series) <= CROWDED:
                _interval(axes, result, name, colour, good)
    _scale(axes, np.concatenate(drawn) if drawn else np.zeros(0), logarithmic)


def _colours(result: Curve, series: Sequence[str], theme: Theme) -> dict[str, str]:
    """One each; a dashed one has that of the one before it."""
    found: dict[str, str] = {}
    solid = -1
    for name in series:
        solid += not (name in result.dashed and found)
        found[name] = theme.series[solid % len(theme.series)]
    return found


def _interval(axes: Axes, result: Curve, name: str, colour: str, good: Array) -> None:
    if result.lows is None or result.highs is None:
        return
    place, at = list(result.series).index(name), np.flatnonzero(good)
    low, high = (end[place].double().numpy()[good] for end in (result.lows, result.highs))
    axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)


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
    colours = _colours(result, series, sheet.theme)
    for name in (each for each in series if each not in result.dashed):
        there = bool(np.isfinite(_values(result, name)).any())
        colour = colours[name] if there else sheet.theme.quiet
        words = _short(name, label) if there else f"{_short(name, label)}: none"
        sheet.rectangle(x, y - 10, 26, 5, colour)
        sheet.text(x + 36, y, words, colour=colour)
        x += 36 + measure(words, BODY) + 36


def _short(name: str, label: str) -> str:
    """Without what the panel's label says already."""
    return name.removeprefix(label).strip(" ,+") or "alone"


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
