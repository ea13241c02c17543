"""A network's health: the verdict, what is wrong, and a row of bars for every layer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from convscope.results import Checkup, Pictures
from convscope.views import embed, tables
from convscope.views.montage import composed, grids
from convscope.views.pixels import Pixels, on_paper
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import BODY, DARK, LIGHT, SMALL, TITLE, Theme, measure, number, settled, shorten, wrap

ROW, BAR, NUMBER = 30, 150, 84  # pixels
NAMES, WIDEST = 250, 620  # of names of layers, at least and at most
LINE, SAID = 28, 1120  # of findings
FILTERS = 340
HEADS = 62
MOST = 70  # layers that are drawn


def figure(result: Checkup, theme: Theme = LIGHT) -> Plate:
    """The verdict and the findings beside the first layer's filters, and the layers below."""
    left_out = [f"The first {MOST} of {len(result.rows)} layers are drawn."] if len(result.rows) > MOST else []
    sheet, top = framed(_size(result), heading(result), [*footer(_plain(result), 0, 0, ""), *left_out], theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _plain(result: Checkup) -> Checkup:
    """Without the notes that are drawn as findings."""
    return replace(result, notes=[note.partition(": ")[2] for note in result.notes[:1]])


def _names(result: Checkup) -> int:
    """Pixels of the column of names."""
    widest = max((measure(str(row[0]), SMALL) for row in result.rows[:MOST]), default=0.0)
    return min(max(NAMES, math.ceil(widest) + 24), WIDEST)


def _width(result: Checkup) -> int:
    return _names(result) + len(result.bars) * (BAR + NUMBER)


def _findings(result: Checkup) -> list[tuple[list[str], list[str], bool]]:
    """Lines of each finding: what was found, what it means, and whether it is grave."""
    return [
        (wrap(f"{where}: {sign}", SAID - 40, BODY), wrap(f"{meaning[:1].upper()}{meaning[1:]}.", SAID - 40, SMALL), bad)
        for where, sign, meaning, bad in result.findings
    ]


def _upper(result: Checkup) -> int:
    """Pixels of verdict and findings."""
    lines = sum(LINE * (len(head) + len(text)) + 22 for head, text, _ in _findings(result))
    return max(84 + lines, FILTERS + 30 if len(result.filters) else 0)


def _size(result: Checkup) -> tuple[int, int]:
    rows = min(len(result.rows), MOST)
    return max(_width(result), SAID + FILTERS + 40), _upper(result) + 40 + HEADS + ROW * rows


def _draw(sheet: Sheet, result: Checkup, x: int, y: int) -> None:
    theme = sheet.theme
    colour = theme.series[3] if result.sound else theme.accent
    sheet.text(x, y + 34, result.verdict[:1].upper() + result.verdict[1:], size=TITLE, bold=True, colour=colour)
    if not result.findings:
        sheet.text(x, y + 84, "Nothing is out of order.", colour=theme.soft)
    top = y + 84
    for head, text, grave in _findings(result):
        height = LINE * (len(head) + len(text))
        sheet.rectangle(x, top - 22, 5, height, theme.accent if grave else theme.quiet)
        for place, line in enumerate([*head, *text]):
            what = place < len(head)
            sheet.text(x + 22, top + LINE * place, line, size=BODY if what else SMALL, bold=what,
                       colour=theme.ink if what else theme.soft)  # fmt: skip
        top += height + 22
    _filters(sheet, result, x + SAID + 40, y)
    _layers(sheet, result, x, y + _upper(result) + 40)


def _filters(sheet: Sheet, result: Checkup, x: int, y: int) -> None:
    if not len(result.filters):
        return
    shown = Pictures(values=result.filters, summaries=[], tiles=result.filters[None], signed=True, each=True)
    pixels = on_paper(composed(grids(shown)[0], FILTERS)[0], sheet.theme.paper)
    sheet.picture(pixels[: FILTERS - 20], x, y + 30, "filters")
    sheet.text(x, y + 18, "Filters of the first layer", size=SMALL, colour=sheet.theme.soft)


def _layers(sheet: Sheet, result: Checkup, x: int, y: int) -> None:
    theme, names = sheet.theme, _names(result)
    sheet.text(x, y + 24, "layer", size=BODY, bold=True)
    for place, (name, _) in enumerate(result.bars):
        sheet.text(x + names + place * (BAR + NUMBER), y + 24, name.replace("_", " "), size=BODY, bold=True)
    sheet.rectangle(x, y + 38, _width(result), 2, theme.soft)
    for row in range(min(len(result.rows), MOST)):
        top = y + HEADS + ROW * row
        sheet.text(x, top + 8, shorten(str(result.rows[row][0]), names - 24, SMALL), size=SMALL)
        for place in range(len(result.bars)):
            _bar(sheet, result, row, place, x + names + place * (BAR + NUMBER), top)


def _bar(sheet: Sheet, result: Checkup, row: int, place: int, x: int, y: int) -> None:
    theme, (name, whole) = sheet.theme, result.bars[place]
    column = list(result.numeric).index(name)
    value = float(result.values[row, column])
    bad = bool(result.bad[row, place])
    colour = theme.accent if bad else theme.series[0]
    sheet.rectangle(x, y - 6, BAR, 14, theme.line)
    if not math.isfinite(value):
        sheet.text(x + BAR + 10, y + 8, "–", size=SMALL, colour=theme.quiet)
        return
    share = _share(result, column, value, whole)
    sheet.rectangle(x, y - 6, max(1.5, BAR * share) if share > 0 else 0, 14, colour)
    words = f"{100 * value:.0f} %" if whole == 1 and name != "smoothness" else number(value)
    sheet.text(x + BAR + 10, y + 8, words, size=SMALL, colour=theme.accent if bad else theme.soft)


def _share(result: Checkup, column: int, value: float, whole: float) -> float:
    """How much of a bar is full: of the whole, or where there is none of the range of logarithms."""
    if whole:
        return min(max(value / whole, 0.0), 1.0)
    known = result.values[:, column].double().numpy()
    known = np.log(known[np.isfinite(known) & (known > 0)])
    if value <= 0 or not known.size:
        return 0.0
    low, high = min(float(known.min()), 0.0) - 0.3, max(float(known.max()), 0.7)
    return min(max((math.log(value) - low) / (high - low), 0.0), 1.0)


def html(result: Checkup, *, quality: int = embed.QUALITY) -> str:
    """The drawing in the page's colours, and the table beneath it."""
    found = "; ".join(f"{where}: {sign}" for where, sign, _, _ in result.findings) or "nothing is out of order"
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), f"{result.verdict}: {found}")
    return f'<figure class="drawn">{drawing}</figure>{tables.html(result, quality=quality)}'


def _on_page(result: Checkup, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
