"""Methods by several measures: a panel for each, with the methods sorted and the interval of each mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convscope.results import Comparison
from convscope.views import embed, tables
from convscope.views.pixels import Pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, blocks, footer, framed, heading
from convscope.views.style import BODY, DARK, HEAD, LIGHT, SMALL, Theme, measure, number, settled, shorten

ROW, TOP, BOTTOM = 30, 62, 46  # pixels: of a method, above the first and below the last
PLOT, NAMES, COLUMNS = 330, 370, 3
GAP = 30
DOT = 11


@dataclass(frozen=True)
class Panel:
    """One measure: places of methods from best to worst, those without a number left out."""

    place: int
    title: str
    order: list[int]
    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value stands, in pixels from the left of the plot."""
        return PLOT * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def panels(result: Comparison) -> list[Panel]:
    """Every measure that has a number."""
    found = [_panel(result, place) for place in range(len(result.measures))]
    return [panel for panel in found if panel.order]


def _panel(result: Comparison, place: int) -> Panel:
    values = result.values[:, place].tolist()
    order = [i for i, value in enumerate(values) if math.isfinite(value)]
    order.sort(key=lambda i: -values[i] if result.better[place] >= 0 else values[i])
    chance = result.chances[place]
    ends = [*result.lows[order, place].tolist(), *result.highs[order, place].tolist(), 0.0]
    ends += [] if chance is None else [chance]
    low, high = min(ends), max(ends)
    if low >= 0 and 0.5 < high <= 1:
        high = 1.0
    return Panel(place, result.measures[place], order, low, high if high > low else low + 1)


def figure(result: Comparison, theme: Theme = LIGHT) -> Plate:
    """Panels in three columns, read from the top: the best method first."""
    sheet, top = framed(_size(result), heading(result), footer(result, 0, 0, ""), theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _block(result: Comparison) -> tuple[int, int]:
    return NAMES + PLOT + 24, TOP + ROW * len(result.methods) + BOTTOM


def _size(result: Comparison) -> tuple[int, int]:
    count = max(len(panels(result)), 1)
    width, height, _ = blocks(count, *_block(result), columns=COLUMNS, gap=GAP, down=GAP)
    return width, height + 24


def _draw(sheet: Sheet, result: Comparison, x: int, y: int) -> None:
    shown = panels(result)
    if not shown:
        sheet.text(x, y + 24, "nothing could be measured", colour=sheet.theme.soft)
        return
    _, height, corners = blocks(len(shown), *_block(result), columns=COLUMNS, gap=GAP, down=GAP)
    for panel, (left, top) in zip(shown, corners, strict=True):
        _draw_panel(sheet, result, panel, x + left, y + top)
    _legend(sheet, result, x, y + height + 10)


def _draw_panel(sheet: Sheet, result: Comparison, panel: Panel, x: float, y: float) -> None:
    theme, plot = sheet.theme, x + NAMES
    sheet.text(plot, y + 24, panel.title, size=HEAD, bold=True)
    arrow = {1: "more is better", -1: "less is better"}.get(result.better[panel.place], "")
    sheet.text(plot, y + 48, arrow, size=SMALL, colour=theme.soft)
    bottom = y + TOP + ROW * len(panel.order)
    chance = result.chances[panel.place]
    for value, colour, wide in ((0.0, theme.quiet, 1), (chance, theme.soft, 2)):
        if value is not None and panel.low <= value <= panel.high:
            sheet.rectangle(plot + panel.at(value), y + TOP, wide, bottom - y - TOP, colour)
    for row, method in enumerate(panel.order):
        _draw_method(sheet, result, panel, method, x, y + TOP + ROW * row)
    sheet.rectangle(plot, bottom, PLOT, 1, theme.quiet)
    for value, align in ((panel.low, "left"), (panel.high, "right")):
        sheet.text(plot + panel.at(value), bottom + 24, number(value), size=SMALL, colour=theme.soft, align=align)
    if chance is not None and panel.low <= chance <= panel.high:
        room = measure(words := f"chance {number(chance)}", SMALL) / 2 + 80  # beside the numbers at the ends
        centre = min(max(plot + panel.at(chance), plot + room), plot + PLOT - room)
        sheet.text(centre, bottom + 24, words, size=SMALL, colour=theme.soft, align="center")


def _draw_method(sheet: Sheet, result: Comparison, panel: Panel, method: int, x: float, y: float) -> None:
    theme, plot, middle = sheet.theme, x + NAMES, y + ROW / 2
    value, low, high = (float(part[method, panel.place]) for part in (result.values, result.lows, result.highs))
    colour = _colour(result, method, theme)
    control = bool(result.controls) and result.controls[method]
    name = result.methods[method]
    size = BODY if measure(name, BODY) <= NAMES - 24 else SMALL
    words = shorten(name, NAMES - 24, size)
    sheet.text(plot - 16, middle + 8, words, size=size, colour=theme.soft if control else colour, align="right")
    sheet.rectangle(plot, middle, PLOT, 1, theme.line)
    sheet.rectangle(plot + panel.at(low), middle - 1, max(1.0, panel.at(high) - panel.at(low)), 3, colour)
    sheet.rectangle(plot + panel.at(value) - DOT / 2, middle - DOT / 2, DOT, DOT, colour)


def _colour(result: Comparison, method: int, theme: Theme) -> str:
    if result.controls and result.controls[method]:
        return theme.soft
    return theme.accent if result.marks and result.marks[method] else theme.ink


def _legend(sheet: Sheet, result: Comparison, x: float, y: float) -> None:
    theme = sheet.theme
    entries = [(theme.ink, f"a {result.each}, with the 95 % interval of its mean")] if len(result.methods) else []
    entries += [(theme.accent, result.mark)] if any(result.marks) else []
    entries += [(theme.soft, "a map made without looking")] if any(result.controls) else []
    for colour, words in entries:
        sheet.rectangle(x, y - 9, DOT, DOT, colour)
        sheet.text(x + 22, y + 2, words, size=SMALL, colour=theme.soft)
        x += 22 + measure(words, SMALL) + 44


def html(result: Comparison, *, quality: int = embed.QUALITY) -> str:
    """The panels as one drawing, and the table beneath them."""
    alt = f"{len(result.methods)} {result.each}s by {', '.join(result.measures)}"
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}</figure>{tables.html(result, quality=quality)}'


def _on_page(result: Comparison, theme: Theme) -> Pixels:
    with settled():
        width, height = _size(result)
        sheet = bare((width, height), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
