"""Pictures inside a page: as small as they can be without being seen to be, and described for those who do not see."""

from __future__ import annotations

import base64
import html as html_module
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, features

from convscope.views.colour import Scale
from convscope.views.pixels import Pixels, resized
from convscope.views.style import DPI

QUALITY = 90
SHARPNESS = 1.6  # pixels of a drawing for one of the page
LARGEST = 448  # pixels of a side: twice of what a page shows
_SMALL = 6_000  # bytes below which nothing is gained by losing anything


def escape(text: object) -> str:
    """Text for a page, also within attributes."""
    return html_module.escape(str(text), quote=True)


def data_uri(pixels: Pixels, *, quality: int = QUALITY, lossless: bool = False) -> str:
    """A data URI of pixels (H, W, 3 or 4): WebP or PNG, exact where that costs little."""
    picture = Image.fromarray(pixels)
    if not features.check("webp"):
        return _uri(_encoded(picture, "PNG", optimize=True), "png")
    if not lossless:
        # How large an exact one would be: quickly, and to some per cent; its best form takes four times as long.
        exactly = len(_encoded(picture, "WEBP", lossless=True, exact=True, method=1))
        near = _encoded(picture, "WEBP", quality=quality, method=4) if exactly > _SMALL else b""
        if near and len(near) < 0.7 * exactly:
            return _uri(near, "webp")
    return _uri(_encoded(picture, "WEBP", lossless=True, exact=True, method=4), "webp")


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _uri(encoded: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def image(
    pixels: Pixels, alt: str, *, quality: int = QUALITY, lossless: bool = False, pixelated: bool = False,
    shown: tuple[int, int] | None = None, largest: int = LARGEST,
) -> str:  # fmt: skip
    """An <img>; ``pixelated`` keeps the squares of small pictures when the page enlarges them.

    ``shown`` (height, width) is the size of the <img> and its proportions, where they are not those of its pixels.
    What is larger than ``largest`` is made smaller, unless it is lossless.
    """
    height, width = shown or pixels.shape[:2]
    if max(pixels.shape[:2]) > largest and not lossless:
        share = largest / max(pixels.shape[:2])
        smaller = (max(1, round(pixels.shape[0] * share)), max(1, round(pixels.shape[1] * share)))
        pixels = resized(pixels, smaller, smooth=True)
    kind = ' class="pixelated"' if pixelated else ""
    ratio = f' style="aspect-ratio: {width} / {height}"' if shown else ""
    uri = data_uri(pixels, quality=quality, lossless=lossless)
    return f'<img{kind}{ratio} src="{uri}" alt="{escape(alt)}" width="{width}" height="{height}">'


def both_themes(light: Pixels, dark: Pixels, alt: str) -> str:
    """A drawing in two colourings, of which the page shows the one that fits."""
    media = "screen and (prefers-color-scheme: dark)"
    return f'<picture><source srcset="{data_uri(dark, lossless=True)}" media="{media}">{_drawing(light, alt)}</picture>'


def _drawing(pixels: Pixels, alt: str) -> str:
    """An <img> of a drawing, whose words come out as large as those of the page."""
    height, width = (round(side / SHARPNESS) for side in pixels.shape[:2])
    uri = data_uri(pixels, lossless=True)
    return (
        f'<img class="drawing" style="width: {width}px" src="{uri}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}">'
    )


def colour_bar(scale: Scale) -> str:
    """The scale as a bar with its numbers and what lies beyond it."""
    if scale.constant:
        return f'<p class="constant">{escape(scale.remark)}</p>'
    stops = ", ".join("#" + bytes(colour.tolist()).hex() for colour in scale.gradient(17))
    ticks = "".join(f"<span>{escape(text)}</span>" for _, text in scale.ticks())
    beyond = f'<p class="beyond">{escape(scale.beyond)}</p>' if scale.beyond else ""
    bar = f'<div class="bar" style="background: linear-gradient(90deg, {stops})"></div>'
    return f'{bar}<div class="ticks">{ticks}</div>{beyond}'


def caption(title: str, parts: Sequence[str] = (), *, stacked: bool = False) -> str:
    """A <figcaption> with a title and smaller words beside it, or beneath."""
    words = " · ".join(escape(part) for part in parts if part)
    after = f"<span>{words}</span>" if words else ""
    kind = ' class="stacked"' if stacked else ""
    return f"<figcaption{kind}><strong>{escape(title)}</strong>{after}</figcaption>" if title or words else ""


def plotted(figure: Figure, alt: str) -> str:
    """An <img> of any matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return _drawing(np.asarray(Image.open(buffer).convert("RGB")), alt)
