"""Tables: as a figure, as a part of a page, and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import singledispatch

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from convscope.results import (
    Adversarial,
    Curve,
    Embedding,
    Heatmap,
    Parts,
    Pictures,
    Ranking,
    Regions,
    Result,
    Rows,
    Synthesis,
    Table,
)
from convscope.views import embed
from convscope.views.sheet import MARGIN, Plate, framed, heading, picture_name, sentence
from convscope.views.style import BODY, LIGHT, Theme, measure, measured, number, percent, shorten

MOST = 64  # rows in one figure; the rest are said
ROW = 38  # pixels
WIDEST = 560  # pixels of one column
_NUMBER = re.compile(r"[<>~]?\s?[-−+]?[\d.,]+(\s?(%|×|x|±)\s?[\d.,]*)*|[–—-]|")


def numeric(rows: Sequence[Sequence[object]], column: int) -> bool:
    """Whether a column holds numbers, which stand under each other by their right ends."""
    cells = [str(row[column]) for row in rows]
    return any(any(c.isdigit() for c in cell) for cell in cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


# ---- as a figure


def figure(result: Table, theme: Theme = LIGHT) -> Plate:
    """Rows between fine lines; of a long table the beginning and the end."""
    rows, gap = _shown(result.rows)
    right = [numeric(result.rows, c) for c in range(len(result.columns))]
    widths = [min(WIDEST, _width(column, [row[c] for row in rows])) for c, column in enumerate(result.columns)]
    starts = [sum(w + 44 for w in widths[:c]) for c in range(len(widths))]
    width, height = round(sum(widths) + 44 * (len(widths) - 1)), ROW * (len(rows) + 1 + (gap is not None)) + 12
    sheet, top = framed((width, height), heading(result), [sentence(note) for note in result.notes], theme)

    def write(row: Sequence[object], y: float, *, bold: bool = False, colour: str | None = None) -> None:
        for cell, start, room, is_right in zip(row, starts, widths, right, strict=True):
            text = shorten(str(cell), room + 2, BODY, bold)
            x = MARGIN + start + (room if is_right else 0)
            sheet.text(x, y, text, bold=bold, colour=colour, align="right" if is_right else "left")

    write(result.columns, top + 24, bold=True)
    sheet.rectangle(MARGIN, top + ROW, width, 2, theme.soft)
    y = top + ROW + 10
    for position, row in enumerate(rows):
        if position == gap:
            sheet.text(MARGIN, y + 24, f"… {len(result.rows) - len(rows)} more rows …", colour=theme.soft)
            y += ROW
        write(row, y + 24)
        if position < len(rows) - 1:
            sheet.rectangle(MARGIN, y + ROW - 3, width, 1, theme.line)
        y += ROW
    return sheet.plate


def _width(column: str, cells: Sequence[object]) -> float:
    return max(measure(column, BODY, True), *(measure(str(cell), BODY) for cell in cells), 0.0)


def _shown(rows: Sequence[Sequence[object]]) -> tuple[Sequence[Sequence[object]], int | None]:
    """The rows to draw, and the place of those that are left out."""
    if len(rows) <= MOST:
        return rows, None
    first = MOST * 2 // 3
    return [*rows[:first], *rows[first - MOST :]], first


# ---- as a part of a page


def html(result: Table, *, quality: int = embed.QUALITY) -> str:
    """A <table> that scrolls by itself."""
    right = [numeric(result.rows, c) for c in range(len(result.columns))]
    kinds = [' class="number"' if r else "" for r in right]
    head = "".join(f'<th scope="col"{k}>{embed.escape(c)}</th>' for c, k in zip(result.columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{embed.escape(cell)}</td>" for cell, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in result.rows
    )
    name = result.provenance.technique if result.provenance else "table"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {embed.escape(name)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


# ---- in the terminal


def needs_picture(result: Result) -> bool:
    """Whether a terminal cannot show what the result says."""
    return not isinstance(result, (Ranking, Table))


def terminal(result: Result, console: Console | None = None) -> None:
    """Say in text what a result holds; colours and frames only where a terminal shows them."""
    console = console or Console(highlight=False)
    for title, columns, rows in _said(result):
        if title:
            console.print(Text(title, style="bold"), soft_wrap=True)
        if console.is_terminal:
            console.print(_pretty(columns, rows))
        else:
            for line in _aligned(columns, rows):
                console.print(line, markup=False, highlight=False, soft_wrap=True)


Said = list[tuple[str, Sequence[str], list[list[str]]]]


@singledispatch
def _said(result: Result) -> Said:
    """(title, columns, rows) of each table that says a result in text."""
    return []


@_said.register
def _(result: Ranking) -> Said:
    rows = [
        [[percent(s), _bar(s), n] for n, s in zip(names, shares, strict=True)]
        for names, shares in zip(result.names, result.shares, strict=True)
    ]
    several = len(rows) > 1
    titles = [picture_name(result, i) or (f"picture {i + 1}" if several else "") for i in range(len(rows))]
    return [(title, ("share", "", "class"), each) for title, each in zip(titles, rows, strict=True)]


@_said.register
def _(result: Table) -> Said:
    return [("", result.columns, [[str(cell) for cell in row] for row in result.rows])]


@_said.register
def _(result: Heatmap) -> Said:
    rows = []
    for index, values in enumerate(result.values):
        peak = int(values.abs().argmax())
        title = result.titles[index] if index < len(result.titles) else ""
        ends = [number(float(values.min())), number(float(values.max()))]
        place = f"{peak // values.shape[1]}, {peak % values.shape[1]}"
        rows.append([picture_name(result, index) or str(index + 1), title, *ends, place])
    return [(result.quantity, ("picture", "explained", "minimum", "maximum", "strongest at row, column"), rows)]


@_said.register
def _(result: Regions) -> Said:
    rows = []
    for index, boxes in enumerate(result.boxes.tolist()):
        title = result.titles[index] if index < len(result.titles) else ""
        name, area = picture_name(result, index) or str(index + 1), percent(float(result.masks[index].float().mean()))
        rows += [[name, title, *map(str, box), area] for box in boxes if box[2]] or [[name, title, *"–" * 4, area]]
    return [("", ("picture", "explained", "top", "left", "height", "width", "area of the parts"), rows)]


@_said.register
def _(result: Pictures) -> Said:
    return [(title, (), []) for title in result.titles]


@_said.register
def _(result: Synthesis) -> Said:
    rows = []
    for index in range(len(result.values)):
        ends = [] if result.trace is None else [number(float(e), 3) for e in result.trace[[0, -1], index]]
        title = result.titles[index] if index < len(result.titles) else ""
        rows.append([str(index + 1), title, *ends])
    curve = () if result.trace is None else (f"{result.quantity} at first", "at last")
    return [("", ("picture", "", *curve), rows)] if any(result.titles) or curve else []


@_said.register
def _(result: Curve) -> Said:
    columns = result.values.T.tolist()
    cells = [[number(v, 3) if v == v else "–" for v in column] for column in columns]
    rows = [[point, *row] for point, row in zip(result.points, cells, strict=True)]
    return [("", (result.axis.split(",")[0], *result.series), rows)]


@_said.register
def _(result: Parts) -> Said:
    return [(title, columns, rows) for title, part in result.parts for _, columns, rows in _said(part)]


@_said.register
def _(result: Adversarial) -> Said:
    """A row a picture: both of its classes, their probabilities before and after, and whether the file fools."""
    rows = []
    for index, (names, before, after) in enumerate(zip(result.names, result.before, result.after, strict=True)):
        shares = [f"{percent(b)} → {percent(a)}" for b, a in zip(before[:2], after[:2], strict=True)]
        pairs = [cell for pair in zip(names[:2], shares, strict=True) for cell in pair]
        change = result.captions[index][0] if index < len(result.captions) and result.captions[index] else ""
        name = picture_name(result, result.place(index)) or str(result.place(index) + 1)
        rows.append([name, *pairs, change, "fooled" if result.success[index] else "not fooled"])
    return [("", ("picture", "its class", "", "other class", "", "change", "file"), rows)]


@_said.register
def _(result: Rows) -> Said:
    rows = []
    for row, title in enumerate(result.titles):
        title = title or picture_name(result, row) or f"picture {row + 1}"
        section = result.sections[row] if result.sections else ""
        under = result.subtitles[row].replace("\n", ", ") if result.subtitles else ""
        said = [_line(panel.captions[row]) if panel.captions else "" for panel in result.panels]
        rows.append([section, title, under, *said])
    columns = ["", "", "", *(panel.name for panel in result.panels)]
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return [("", [columns[place] for place in kept], [[row[place] for place in kept] for row in rows])]


def _line(captions: Sequence[str]) -> str:
    return ", ".join(caption.replace("\n", " ") for caption in captions if caption)


@_said.register
def _(result: Embedding) -> Said:
    measures = {name: value for name, value in result.summaries[0].items() if isinstance(value, (int, float))}
    return [("", ("measure", ""), [[name.replace("_", " "), measured(value)] for name, value in measures.items()])]


def _bar(share: float, width: int = 20) -> str:
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def _pretty(columns: Sequence[str], rows: list[list[str]]) -> Grid | Text:
    if not columns:
        return Text("")
    grid = Grid(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for index, column in enumerate(columns):
        grid.add_column(Text(column), justify="right" if numeric(rows, index) else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def _aligned(columns: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Plain lines of full width: nothing is cut where no one sees it."""
    if not columns:
        return []
    lines = [list(columns), *rows]
    widths = [max(len(line[c]) for line in lines) for c in range(len(columns))]
    right = [numeric(rows, c) for c in range(len(columns))]

    def aligned(line: Sequence[str]) -> str:
        cells = zip(line, widths, right, strict=True)
        return "   ".join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in cells)

    return [aligned(line).rstrip() for line in lines]
