"""Several results below each other, each as it is drawn alone."""

from __future__ import annotations

from convscope.results import Parts, Result
from convscope.views import embed
from convscope.views.pixels import Pixels, on_paper
from convscope.views.sheet import MARGIN, Plate, footer, framed, heading
from convscope.views.style import HEAD, LIGHT, Theme, shorten

TITLE, GAP = 46, 56  # pixels for a part's title, and between two parts


def figure(result: Parts, theme: Theme = LIGHT) -> Plate:
    """One heading, and each part with its title."""
    drawn = [(title, _drawn(part, theme)) for title, part in result.parts]
    width = max(pixels.shape[1] for _, pixels in drawn)
    height = sum(TITLE + pixels.shape[0] for _, pixels in drawn) + GAP * (len(drawn) - 1)
    sheet, y = framed((width, height), heading(result), footer(result, 0, 0, ""), theme)
    for number, (title, pixels) in enumerate(drawn):
        sheet.text(MARGIN, y + 24, shorten(title, width, HEAD, True), size=HEAD, bold=True)
        sheet.picture(pixels, MARGIN, y + TITLE, f"part {number + 1}")
        y += TITLE + pixels.shape[0] + GAP
    return sheet.plate


def _drawn(part: Result, theme: Theme) -> Pixels:
    """The figure of a part without the margins that a figure has."""
    from convscope import views  # which imports this file

    plate = views.figure(part, theme)
    assert isinstance(plate, Plate)
    return on_paper(plate.pixels(), theme.paper)[MARGIN:-MARGIN, MARGIN:-MARGIN]


def html(result: Parts, *, quality: int = embed.QUALITY) -> str:
    """A section for each part."""
    from convscope import views

    sections = (
        f'<section class="part"><h3>{embed.escape(title)}</h3>{views.html(part, quality=quality)}</section>'
        for title, part in result.parts
    )
    return "\n".join(sections)
