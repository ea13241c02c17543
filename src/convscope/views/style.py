"""What all pictures share: paper and ink, a scale of type, and how numbers are written."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

FONT = "DejaVu Sans"  # comes with matplotlib: the same letters everywhere
DPI = 200
TITLE, HEAD, BODY, SMALL = 12.0, 8.5, 7.5, 6.5  # points


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not data."""

    paper: str
    ink: str
    soft: str
    line: str
    quiet: str
    accent: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff", ink="#1b1c20", soft="#696c75", line="#dcdee3", quiet="#c3c7d0", accent="#b9472b",
    series=("#2f5f8c", "#b9472b", "#c08a2b", "#4d7f5c", "#7a5688", "#6b6e76"),
)  # fmt: skip
DARK = Theme(
    paper="#17181c", ink="#eceae6", soft="#9a9ca5", line="#34363d", quiet="#555963", accent="#e57b5b",
    series=("#7fb0dc", "#e57b5b", "#e0b35c", "#8dc19b", "#bd9bcb", "#a5a8b0"),
)  # fmt: skip

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "svg.hashsalt": "convscope",
    "pdf.fonttype": 42,
    "axes.unicode_minus": True,
}
_LOCK = threading.RLock()  # matplotlib's settings are global


@contextmanager
def settled() -> Iterator[None]:
    """Matplotlib's own defaults with ours on top, whatever the user has set; theirs come back afterwards."""
    with _LOCK, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


# ---- text


@lru_cache(maxsize=1)
def _renderer() -> RendererAgg:
    return RendererAgg(8, 8, DPI)


@lru_cache(maxsize=4096)
def measure(text: str, size: float = BODY, bold: bool = False) -> float:
    """Width of a line in pixels."""
    weight = "bold" if bold else "normal"  # all is said, so that the user's settings are not asked
    font = FontProperties(family=FONT, style="normal", variant="normal", weight=weight, stretch="normal", size=size)
    return float(_renderer().get_text_width_height_descent(text, font, False)[0])


def shorten(text: str, width: float, size: float = BODY, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    text = " ".join(text.split())
    if measure(text, size, bold) <= width:
        return text
    kept = bisect.bisect_right(range(2, len(text)), width, key=lambda n: measure(text[:n].rstrip() + "…", size, bold))
    return text[: kept + 1].rstrip() + "…"


def wrap(text: str, width: float, size: float = BODY) -> list[str]:
    """Lines that fit, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and measure(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, size))
    return lines


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 2) -> str:
    """A number as it is printed: ``0.31``, ``1,234``, ``1.2·10⁻⁵``, ``−3.4``."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    size = abs(value)
    if size == 0:
        return "0"
    if 1e-3 <= size < 1e5:
        whole = f"{size:,.0f}" if size >= 10 ** (digits + 1) else f"{float(f'{size:.{digits}g}'):g}"
    else:
        mantissa, power = f"{size:.{digits - 1}e}".split("e")
        ten = f"10{str(int(power)).translate(_SUPERSCRIPT)}"
        whole = ten if float(mantissa) == 1 else f"{float(mantissa):g}·{ten}"
    return ("−" if value < 0 else "") + whole


def measured(value: float) -> str:
    """A count as it is, ``1,649``, and anything else to three digits."""
    return f"{value:,}" if isinstance(value, int) else number(float(value), 3)


def percent(share: float) -> str:
    """``93 %``, ``4.2 %``, ``< 0.1 %``."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share:.1%}".replace("%", " %") if share < 0.9995 or share == 1 else "> 99.9 %"
