from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from convscope.views import embed
from convscope.views.colour import scale_of


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


NOISE = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)


def test_small_pixel_art_is_exact() -> None:
    pixels = NOISE[:16, :16]
    assert (np.asarray(decoded(embed.data_uri(pixels)).convert("RGB")) == pixels).all()


def test_lossless_is_lossless_with_transparency() -> None:
    pixels = np.dstack([NOISE, NOISE[..., :1]])
    assert (np.asarray(decoded(embed.data_uri(pixels, lossless=True)).convert("RGBA")) == pixels).all()


def test_photographs_are_smaller_at_lower_quality() -> None:
    sizes = [len(embed.data_uri(NOISE, quality=quality)) for quality in (90, 50, 20)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < sizes[0] / 2


def test_without_webp_there_is_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed.features, "check", lambda feature: False)
    assert embed.data_uri(NOISE).startswith("data:image/png;base64,")


def test_pictures_larger_than_a_page_shows_are_made_smaller() -> None:
    tag = embed.image(np.zeros((2000, 1000, 3), np.uint8), "x")
    assert decoded(re.search(r'src="([^"]*)"', tag)[1]).size == (224, 448)  # type: ignore[index]
    assert 'width="1000" height="2000"' in tag


def test_descriptions_cannot_break_out() -> None:
    assert 'alt="&quot;&gt;&lt;script&gt;"' in embed.image(NOISE, '"><script>')


def test_a_colour_bar_holds_its_ends_and_what_lies_beyond() -> None:
    bar = embed.colour_bar(scale_of(np.append(np.linspace(0, 1, 1000), 9.0), signed=False))
    assert "<span>0</span>" in bar
    assert "max 9" in bar
    assert bar.count("#") == 17
    assert embed.colour_bar(scale_of(np.zeros(3), signed=True)) == '<p class="constant">constant, 0 everywhere</p>'
