from __future__ import annotations

import contextlib
import math

import matplotlib
import pytest

from convscope.views.style import BODY, measure, number, percent, settled, shorten, wrap


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.314159, "0.31"), (-0.5, "−0.5"), (1.0, "1"), (12, "12"), (150.4, "150"), (1234.5, "1,234"),
        (99_999, "99,999"), (1.23e-5, "1.2·10⁻⁵"), (1e-4, "10⁻⁴"), (-1e-4, "−10⁻⁴"), (2.5e7, "2.5·10⁷"),
        (math.nan, "NaN"), (-math.inf, "−∞"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_readers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.931, "93.1 %"), (0.04, "4.0 %"), (1e-5, "< 0.1 %"), (0.99999, "> 99.9 %"), (1, "100.0 %"), (0, "0.0 %")],
)
def test_shares_never_round_to_certainty(share: float, text: str) -> None:
    assert percent(share) == text


def test_text_is_shortened_to_its_width_and_not_more() -> None:
    text = "a name that is much too long for its place"
    short = shorten(text, 200)
    assert short.endswith("…")
    assert measure(short, BODY) <= 200 < measure(text[: len(short) + 1] + "…", BODY)
    assert shorten("short", 200) == "short"


def test_wrapping_keeps_every_word() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = wrap(text, 200)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert all(measure(line, BODY) <= 200 for line in lines)


def test_the_settings_of_the_user_come_back_also_after_an_error() -> None:
    with matplotlib.rc_context({"font.size": 33}):
        seen = []
        with contextlib.suppress(ValueError), settled():
            seen.append(matplotlib.rcParams["font.size"])
            raise ValueError
        assert [*seen, matplotlib.rcParams["font.size"]] == [10, 33]
