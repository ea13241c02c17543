from __future__ import annotations

from dataclasses import replace

import torch

from convscope.results import Checkup
from convscope.views import figure, html


def checkup(*, sound: bool = False) -> Checkup:
    nan = float("nan")
    findings = [] if sound else [("conv1", "half of the channels are dead", "the rate is too high", True)]
    return Checkup(
        values=torch.tensor([[16, 0.5, 0.4], [32, 0.0, nan]], dtype=torch.float64), columns=["layer", "dead"],
        rows=[["conv1", "50 %"], ["conv2", "0 %"]], numeric=["channels", "dead", "smoothness"],
        verdict="sound" if sound else "ailing", sound=sound, findings=findings,
        bars=[("dead", 1.0), ("smoothness", 1.0)],
        bad=torch.tensor([[not sound, False], [False, False]]), filters=torch.rand(4, 3, 5, 5) - 0.5, summaries=[{}],
        notes=["ailing: 90 pictures", "conv1: half of the channels are dead"], per_picture=False,
    )  # fmt: skip


def test_verdict_findings_and_numbers_are_written() -> None:
    texts = [text.get_text() for text in figure(checkup()).texts]
    for words in (
        "Ailing",
        "conv1: half of the channels are dead",
        "The rate is too high.",
        "50 %",
        "–",
        "90 pictures.",
    ):
        assert words in texts, words
    assert "Nothing is out of order." in [text.get_text() for text in figure(checkup(sound=True)).texts]


def test_bars_are_as_long_as_their_shares_and_coloured_where_out_of_order() -> None:
    def bars(result: Checkup) -> list[tuple[float, str]]:
        return [(round(box.get_width() * drawn.get_figwidth() * drawn.dpi), box.get_facecolor())
                for box in drawn.artists] if (drawn := figure(result)) else []  # fmt: skip

    ailing, sound = bars(checkup()), bars(checkup(sound=True))
    assert any(width == 75 for width, _ in ailing)  # half of 150
    assert {colour for width, colour in ailing if width == 75} != {colour for width, colour in sound if width == 75}


def test_the_page_has_the_table_as_well() -> None:
    text = html(checkup())
    assert "<table>" in text
    assert "ailing: conv1: half of the channels are dead" in text


def test_long_names_of_layers_are_written_in_full() -> None:
    name = "features.denseblock4.denselayer32.norm1"
    long = replace(checkup(), rows=[[name, "50 %"], ["conv2", "0 %"]])
    drawn = figure(long)
    assert name in [text.get_text() for text in drawn.texts]
    text = next(text for text in drawn.texts if text.get_text() == name)
    heads = [text.get_window_extent().x0 for text in drawn.texts if text.get_text() == "dead"]
    assert text.get_window_extent().x1 < heads[0]
