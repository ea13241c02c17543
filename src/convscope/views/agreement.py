"""People and a network on the same pictures: who is right how often, who errs alike, and what is taken for what."""

from __future__ import annotations

import math

import numpy as np

from convscope.results import Agreement
from convscope.views import embed, tables
from convscope.views.colour import scale_of
from convscope.views.pixels import Pixels, resized
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import BODY, DARK, HEAD, LIGHT, SMALL, Theme, settled, shorten

NAMES, PLOT, APART = 210, 400, 70  # pixels: of participants' names, of a panel, and between two
ROW, TOP, BOTTOM = 34, 70, 84
DOT, MOST = 12, 14  # of a mark; participants that are drawn, the network among them
CELL, LABEL = 44, NAMES  # of a confusion, at most, and the room for a category's name


def figure(result: Agreement, theme: Theme = LIGHT) -> Plate:
    """Accuracy and consistency of each participant, and two confusions under them."""
    drawn = len(_shown(result))
    notes = footer(result, len(result.participants), drawn, "participants")
    sheet, top = framed(_size(result), heading(result), notes, theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _shown(result: Agreement) -> list[int]:
    """The first people, and the network, which comes last."""
    last = len(result.participants) - 1
    return [*range(min(last, MOST - 1)), last]


def _cell(result: Agreement) -> int:
    return max(6, min(CELL, 420 // len(result.names)))


def _square(result: Agreement) -> tuple[int, int]:
    """(height, width) of a confusion."""
    return _cell(result) * len(result.names), _cell(result) * (len(result.names) + 1)


def _step(result: Agreement) -> int:
    """From one confusion to the other, each beneath its panel where it is no wider."""
    return max(PLOT, _square(result)[1]) + APART


def _size(result: Agreement) -> tuple[int, int]:
    high = _square(result)[0]
    return LABEL + 2 * _step(result) - APART, TOP + ROW * len(_shown(result)) + BOTTOM + 90 + high + LABEL


def _draw(sheet: Sheet, result: Agreement, x: int, y: int) -> None:
    rows, values, ends = _shown(result), result.values.double().numpy(), result.kappa_ends.double().numpy()
    low = min([0.0, *(v for v in (*values[:, 3], *ends[:, 0]) if math.isfinite(v))])
    accuracy, kappa = x + NAMES, x + NAMES + PLOT + APART
    _panel(sheet, accuracy, y, len(rows), "right", "share of pictures", 0.0, ("0", "1"))
    under = "kappa; 0: as by chance, 1: the same pictures"
    _panel(sheet, kappa, y, len(rows), "errs as the network", under, low, (f"{low:.2g}" if low else "0", "1"))
    for place, index in enumerate(rows):
        middle, network = y + TOP + ROW * place + ROW / 2, index == len(result.participants) - 1
        colour = sheet.theme.accent if network else sheet.theme.series[0]
        name = shorten(result.participants[index], NAMES - 24, BODY, network)
        sheet.text(x + NAMES - 18, middle + 8, name, align="right", bold=network, colour=colour if network else None)
        _mark(sheet, accuracy, middle, tuple(values[index, :3]), 0.0, colour)
        mean = (values[index, 3], *(ends[index] if not network else (math.nan, math.nan)))
        _mark(sheet, kappa, middle, mean, low, colour)
        if network and math.isfinite(values[index, 3]):
            at = kappa + (values[index, 3] - low) / (1 - low) * PLOT
            sheet.text(at + 16, middle + 7, "mean over people", size=SMALL, colour=sheet.theme.soft)
    _confusions(sheet, result, x, y + TOP + ROW * len(rows) + BOTTOM + 60)


def _panel(
    sheet: Sheet, x: int, y: int, rows: int, title: str, under: str, low: float, ends: tuple[str, str]
) -> None:  # fmt: skip
    theme, bottom = sheet.theme, y + TOP + ROW * rows
    sheet.text(x, y + 24, title, size=HEAD, bold=True)
    sheet.text(x, y + 50, under, size=SMALL, colour=theme.soft)
    for share in (0.0, 0.5, 1.0):
        sheet.rectangle(x + share * PLOT, y + TOP, 1, bottom - y - TOP, theme.line)
    if low < 0:
        sheet.rectangle(x - low / (1 - low) * PLOT, y + TOP, 1, bottom - y - TOP, theme.soft)
    for row in range(rows):
        sheet.rectangle(x, y + TOP + ROW * (row + 1) - 1, PLOT, 1, theme.line)
    for words, at, align in ((ends[0], x, "left"), (ends[1], x + PLOT, "right")):
        sheet.text(at, bottom + 24, words, size=SMALL, colour=theme.soft, align=align)


def _mark(sheet: Sheet, x: int, y: float, mean: tuple[float, ...], low: float, colour: str) -> None:
    """A mean with its interval; nothing where it is not known."""
    at = [x + (value - low) / (1 - low) * PLOT if math.isfinite(value) else math.nan for value in mean]
    if math.isfinite(at[1]) and math.isfinite(at[2]):
        sheet.rectangle(at[1], y - 1, at[2] - at[1], 2, colour)
    if math.isfinite(at[0]):
        sheet.rectangle(at[0] - DOT / 2, y - DOT / 2, DOT, DOT, colour)


def _confusions(sheet: Sheet, result: Agreement, x: int, y: int) -> None:
    """Rows are what was there, columns what was answered; each row in shares of its own sum."""
    (high, wide), cell, theme = _square(result), _cell(result), sheet.theme
    size = min(SMALL, 72 * cell / 200 * 0.8)
    for place, name in enumerate(result.names):
        words = shorten(name, LABEL - 14, size)
        sheet.text(x + LABEL - 10, y + (place + 0.5) * cell + 7, words, size=size, align="right", colour=theme.soft)
    words = "a row for what it is, a column for the answer; bright is often"
    sheet.text(x + LABEL, y - 50, words, size=SMALL, colour=theme.soft)
    for side, title in enumerate(("people answered", f"{result.participants[-1]} answered")):
        left = x + LABEL + side * _step(result)
        sheet.text(left, y - 16, shorten(title, _step(result) - 10, HEAD, True), size=HEAD, bold=True)
        sheet.picture(resized(shares(result, side), (high, wide), smooth=False), left, y, title)
        for place, name in enumerate([*result.names, "none of them"]):
            sheet.plate.text(
                (left + (place + 0.5) * cell) / sheet.width, 1 - (y + high + 10) / sheet.height,
                shorten(name, LABEL - 20, size), fontsize=size, color=theme.soft, rotation=90, ha="center", va="top",
                parse_math=False,
            )  # fmt: skip


def shares(result: Agreement, side: int) -> Pixels:
    """(K, K + 1, 3): how often each answer was given to each category, dark for never and bright for always."""
    counts = result.confusions[side].double().numpy()
    found = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return scale_of(np.array([0.0, 1.0]), signed=False, robust=None).colours(found)


def html(result: Agreement, *, quality: int = embed.QUALITY) -> str:
    """The panels as one drawing, and the table beneath them."""
    alt = f"Accuracy, error consistency and confusions of {', '.join(result.participants)}"
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}</figure>{tables.html(result, quality=quality)}'


def _on_page(result: Agreement, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
