"""Lines over a number, as SVG within a page: drawn in a moment, and in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convscope.views.embed import escape
from convscope.views.style import number

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 30
MOST = 300  # points of a line; of more, each run's mean is drawn
_FIRST, _LAST = (0x2F, 0x7F, 0xB8), (0xD0, 0x58, 0x3A)  # colours of the first and the last line, on either paper


@dataclass(frozen=True)
class Line:
    """A named line; points whose value is not finite are left out."""

    name: str
    at: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class _Axes:
    low: float
    high: float
    first: float
    last: float
    logarithmic: bool

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - self.first) / ((self.last - self.first) or 1.0)

    def y(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / ((high - low) or 1.0))


def colours(count: int) -> list[str]:
    """From cold to warm, in the lines' order."""
    shares = [i / max(count - 1, 1) for i in range(count)]
    mixed = [[round(a + (b - a) * s) for a, b in zip(_FIRST, _LAST, strict=True)] for s in shares]
    return ["#" + bytes(colour).hex() for colour in mixed]


def lines(
    given: Sequence[Line], alt: str, *, logarithmic: bool = False, guide: float | None = None, axis: str = "step",
    unit: bool = False,
) -> str:  # fmt: skip
    """An <svg> of lines, the first cold and the last warm; each says its name where a pointer rests on it.

    ``guide`` is a value to compare with; ``unit`` shows the whole of 0 to 1.
    """
    drawn = [_good(line, logarithmic) for line in given]
    kept = [(line, colour) for line, colour in zip(drawn, colours(len(given)), strict=True) if line.at]
    if not kept:
        return f'<p class="constant">{escape(alt)}: nothing to draw yet</p>'
    axes = _axes([line for line, _ in kept], logarithmic, guide, unit)
    parts = [_frame(axes, axis), _guide(axes, guide), *(_path(axes, line, colour) for line, colour in kept)]
    return (
        f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">'
        + "".join(parts)
        + "</svg>"
    )


def _good(line: Line, logarithmic: bool) -> Line:
    pairs = [
        (at, value)
        for at, value in zip(line.at, line.values, strict=True)
        if math.isfinite(value) and (value > 0 or not logarithmic)
    ]
    run = math.ceil(len(pairs) / MOST) or 1
    groups = [pairs[i : i + run] for i in range(0, len(pairs), run)]
    return Line(line.name, *([sum(pair[k] for pair in g) / len(g) for g in groups] for k in (0, 1)))


def _axes(given: Sequence[Line], logarithmic: bool, guide: float | None, unit: bool) -> _Axes:
    values = [v for line in given for v in line.values] + ([guide] if guide is not None else [])
    at = [a for line in given for a in line.at]
    low, high = min(values), max(values)
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high) + 1e-9)
    elif unit:
        low, high = min(low, 0.0), 1.0
    else:
        room = 0.06 * ((high - low) or abs(high) or 1.0)
        low, high = (0.0 if 0 <= low < (high - low) else low - room), high + room
    return _Axes(low, high, min(at), max(max(at), min(at) + 1), logarithmic)


def _ticks(axes: _Axes) -> list[float]:
    if axes.logarithmic:
        low, high = round(math.log10(axes.low)), round(math.log10(axes.high))
        return [10.0**power for power in range(low, high + 1, max(1, math.ceil((high - low) / 4)))]
    step = 10 ** math.floor(math.log10(axes.high - axes.low))
    step *= next(f for f in (0.2, 0.25, 0.5, 1, 2) if (axes.high - axes.low) / (step * f) <= 5)
    return [step * i for i in range(math.ceil(axes.low / step), math.floor(axes.high / step + 1e-9) + 1)]


def _frame(axes: _Axes, axis: str) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axes.y(v):.1f}" y2="{axes.y(v):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{axes.y(v) + 4:.1f}" text-anchor="end">{escape(number(v))}</text>'
        for v in _ticks(axes)
    )
    ends = (
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{escape(axis)} {escape(number(axes.first, 6))}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(number(axes.last, 6))}</text>'
    )
    return rows + ends


def _guide(axes: _Axes, guide: float | None) -> str:
    if guide is None:
        return ""
    y = f"{axes.y(guide):.1f}"
    return f'<line class="guide" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'


def _path(axes: _Axes, line: Line, colour: str) -> str:
    places = [f"{axes.x(a):.1f},{axes.y(v):.1f}" for a, v in zip(line.at, line.values, strict=True)]
    title = f"<title>{escape(line.name)}: {escape(number(line.values[-1]))} at the end</title>"
    if len(places) == 1:
        x, y = places[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}">{title}</circle>'
    return f'<polyline points="{" ".join(places)}" stroke="{colour}">{title}</polyline>'
