"""Shares over numbers: a panel for each, with its band, the share of all, and pictures from both ends of the axis."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from convscope.results import Trends
from convscope.views import embed
from convscope.views.pixels import Pixels, photograph, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, blocks, footer, framed, heading
from convscope.views.style import DARK, HEAD, LIGHT, SMALL, Theme, number, percent, settled, shorten

WIDTH, PLOT = 520, 250  # pixels of a panel, and the height of its plot
LEFT, TOP, UNDER, TILE = 74, 74, 48, 66
COLUMNS = 3
WIDE = 20.0  # a number that spans more than this factor is drawn on a logarithmic axis


def figure(result: Trends, theme: Theme = LIGHT) -> Plate:
    """Panels in three columns, what matters first."""
    sheet, top = framed(_size(result), heading(result), footer(result, 0, 0, ""), theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _block() -> tuple[int, int]:
    return WIDTH, TOP + PLOT + UNDER + TILE


def _size(result: Trends) -> tuple[int, int]:
    width, height, _ = blocks(len(result.names), *_block(), columns=COLUMNS, gap=56, down=54)
    return width, height


def _draw(sheet: Sheet, result: Trends, x: int, y: int) -> None:
    _, _, corners = blocks(len(result.names), *_block(), columns=COLUMNS, gap=56, down=54)
    low, high = _range(result)
    for place, (left, top) in enumerate(corners):
        _panel(sheet, result, place, x + left, y + top, (low, high))


def _range(result: Trends) -> tuple[float, float]:
    """One scale for all panels, so that they can be compared."""
    ends = result.values[..., 1:].double().numpy()
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.08 * (high - low or 1.0)
    return max(-0.02, low - room), min(1.02, high + room)


def _panel(sheet: Sheet, result: Trends, place: int, x: int, y: int, ends: tuple[float, float]) -> None:
    theme, marked = sheet.theme, result.marks[place]
    sheet.text(x, y + 22, result.names[place][:1].upper() + result.names[place][1:], size=HEAD, bold=True)
    verdict = shorten(result.verdicts[place], WIDTH, SMALL)
    sheet.text(x, y + 52, verdict, size=SMALL, colour=theme.accent if marked else theme.soft)
    axes = sheet.chart(x + LEFT, y + TOP, WIDTH - LEFT, PLOT, f"panel {place}")
    known = np.isfinite(result.values[place, :, 0].numpy())
    at, share, low, high = result.values[place].double().numpy()[known].T
    colour = theme.series[0] if marked else theme.soft
    axes.axhline(result.overall, color=theme.quiet, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)
    axes.plot(at, share, color=colour, linewidth=1.2, marker="o", markersize=3, markeredgewidth=0, zorder=3)
    axes.set_ylim(*ends)
    _scale(axes, at)
    for end, left in enumerate((x + LEFT, x + WIDTH)):
        _tiles(sheet, result.ends[place, end].float().numpy(), left, y + TOP + PLOT + UNDER, end == 1)


def _tiles(sheet: Sheet, tiles: Pixels, x: int, y: int, from_right: bool) -> None:
    size = TILE - 6
    start = x - len(tiles) * TILE + 6 if from_right else x
    for place, tile in enumerate(tiles[::-1] if from_right else tiles):
        sheet.picture(photograph(to_pixels(tile), (size, size)), start + place * TILE, y, f"end {x} {place}")


def _scale(axes: Axes, at: Pixels) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value).replace(".0 %", " %")))
    low, high = float(at.min()), float(at.max())
    if low > 0 and high / low > WIDE:
        axes.set_xscale("log")
        ticks = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        ticks = [t for t in ticks if low / 1.3 <= t <= high * 1.3] or [low, high]
        axes.set_xticks(ticks, [number(t) for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def html(result: Trends, *, quality: int = embed.QUALITY) -> str:
    """The panels as one drawing, in the page's colours."""
    matter = [name for name, mark in zip(result.names, result.marks, strict=True) if mark]
    alt = f"{result.quantity} over {', '.join(result.names)}; beyond chance: {', '.join(matter) or 'none'}"
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}</figure>'


def _on_page(result: Trends, theme: Theme) -> Pixels:
    with settled():
        sheet = bare((_size(result)[0] + 16, _size(result)[1]), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
