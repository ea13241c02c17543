"""attributes: bins, intervals and chances against loops, scipy's test and planted dependences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import chi2_contingency
from torch import Tensor

from convscope.errors import IndexUnusable, OptionError
from convscope.index import Index
from convscope.techniques.dataset.attributes import MEASURED, attributes, binned, box_of, holm, read_boxes, shuffled


class Told:
    """An index that knows just what it is told."""

    path = Path("told.index")
    provenance: dict[str, Any] = {}  # noqa: RUF012
    network = None

    def __init__(self, columns: dict[str, Any]) -> None:
        count = len(columns["correct"])
        places = np.arange(count)
        self.columns = {
            "id": places, "path": [f"photos/{i:04d}.png" for i in range(count)], "label_index": places % 4,
            "height": np.full(count, 100), "width": np.full(count, 200),
            **{name: np.random.default_rng(9).random(count) for name in MEASURED}, **columns,
        }  # fmt: skip

    def pictures(self, columns: list[str], where: str) -> pa.Table:
        assert where == "error is null and correct is not null"
        return pa.table({name: self.columns[name] for name in columns})

    def thumbnail(self, id: int) -> Tensor:
        return torch.full((3, 40, 60), id / 4000)


def asked(told: Told, **options: Any) -> Any:
    return attributes.function(told, **{o.name: o.default for o in attributes.options} | options)


CHANCE = np.random.default_rng(0)
COUNT = 1200


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Ends by bisection of |share - p| = 1.96 sqrt(p (1 - p) / n), from which the formula comes."""

    def end(low: float, high: float) -> float:
        for _ in range(80):
            middle = (low + high) / 2
            inside = abs(hits / total - middle) <= 1.959963985 * math.sqrt(middle * (1 - middle) / total)
            low, high = (low, middle) if inside == (end_is_low) else (middle, high)
        return low

    end_is_low = True
    first = end(0.0, hits / total)
    end_is_low = False
    return first, end(hits / total, 1.0)


def test_shares_and_intervals_are_those_of_a_loop_over_bins() -> None:
    brightness = CHANCE.random(COUNT)
    correct = CHANCE.random(COUNT) < 0.5 + 0.4 * brightness
    found = asked(Told({"correct": correct, "brightness": brightness}), bins=5)
    row = found.names.index("brightness")
    order = np.argsort(brightness)
    for place in range(5):
        part = order[240 * place : 240 * (place + 1)]
        middle, share, low, high = found.values[row, place].tolist()
        assert share == pytest.approx(correct[part].mean())
        assert middle == pytest.approx(np.median(brightness[part]))
        assert (low, high) == pytest.approx(wilson(int(correct[part].sum()), 240), abs=1e-6)
        assert int(found.counts[row, place]) == 240


def test_a_number_that_matters_is_told_from_those_that_do_not_and_comes_first() -> None:
    clutter = CHANCE.random(COUNT)
    correct = CHANCE.random(COUNT) < 0.9 - 0.5 * clutter
    found = asked(Told({"correct": correct, "clutter": clutter}))
    assert found.names[0] == "clutter"
    assert list(found.marks) == [True, False, False, False, False, False]
    said = found.summaries[0]["attributes"][0]
    assert said["change"]["high"] < 0
    assert said["p"] < 0.001
    assert said["p_within_classes"] == pytest.approx(6 / 1000)  # the least that 999 shuffles can say, of six numbers


def test_what_only_the_class_makes_matter_is_told_apart() -> None:
    classes = CHANCE.integers(0, 4, COUNT)
    sharpness = classes + 0.5 * CHANCE.random(COUNT)
    correct = CHANCE.random(COUNT) < 0.3 + 0.2 * classes
    found = asked(Told({"correct": correct, "sharpness": sharpness, "label_index": classes}))
    row = found.names.index("sharpness")
    assert found.verdicts[row].startswith("between classes only")
    assert not found.marks[row]


def test_the_chi_squared_chance_is_scipys() -> None:
    values, right = CHANCE.random(300), CHANCE.random(300) < 0.7
    trend = binned("x", values, right, 6)
    assert trend is not None
    told = Told({"correct": right, "contrast": values})
    found = asked(told, bins=6).summaries[0]["attributes"]
    plain = {each["name"]: each["p"] for each in found}
    chances = []
    for name in plain:
        each = binned(name, np.asarray(told.columns[name], float), right, 6)
        assert each is not None
        table = np.stack([each.hits, each.counts - each.hits])
        chances.append(chi2_contingency(table, correction=False).pvalue)
    assert list(plain.values()) == pytest.approx(holm(chances), rel=1e-9)


def test_under_no_dependence_shuffles_give_even_chances() -> None:
    chances = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        right, classes = generator.random(120) < 0.6, generator.integers(0, 3, 120)
        trend = binned("x", generator.random(120), right, 4)
        assert trend is not None
        chances += shuffled([trend.bins], right, classes, seed)
    assert 0.3 < np.mean(chances) < 0.7
    assert np.mean(np.array(chances) < 0.1) < 0.25


def test_holm_by_its_definition() -> None:
    given = [0.01, 0.04, 0.03, 0.005]
    ranked = sorted(given)
    expected = {}
    for place, chance in enumerate(ranked):
        expected[chance] = max(min(1.0, ranked[i] * (4 - i)) for i in range(place + 1))
    assert holm(given) == pytest.approx([expected[chance] for chance in given])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_repeated_values_share_a_bin() -> None:
    values = np.repeat([1.0, 2.0, 3.0], [40, 5, 15])
    trend = binned("x", values, np.ones(60, bool), 6)
    assert trend is not None
    assert trend.counts.sum() == 60
    assert len({(v, b) for v, b in zip(values, trend.bins, strict=True)}) == 3
    assert binned("x", np.ones(60), np.ones(60, bool), 6) is None
    missing = np.where(np.arange(60) < 10, np.nan, values)
    with_gaps = binned("x", missing, np.ones(60, bool), 4)
    assert with_gaps is not None
    assert (with_gaps.bins[:10] == -1).all()
    assert with_gaps.counts.sum() == 50


def test_boxes_give_size_and_place(tmp_path: Path) -> None:
    correct = np.arange(COUNT) % 3 > 0
    lines = [f"{i:04d}.png,0,{i % 100},{10 + i % 50},20" for i in range(COUNT)]
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join(["path,top,left,height,width", *lines]))
    found = asked(Told({"correct": correct}), boxes=file, bins=4)
    assert {"object size", "distance from the middle"} <= set(found.names)
    row = found.names.index("object size")
    sizes = np.array([(10 + i % 50) * 20 / 20000 for i in range(COUNT)])
    assert float(found.values[row, 0, 0]) == pytest.approx(np.median(np.sort(sizes)[: int(found.counts[row, 0])]))
    far = found.names.index("distance from the middle")
    away = [math.hypot((10 + i % 50) / 2 - 50, i % 100 + 10 - 100) / (math.hypot(100, 200) / 2) for i in range(COUNT)]
    assert float(found.values[far, 0, 0]) == pytest.approx(np.median(np.sort(away)[: int(found.counts[far, 0])]))


def test_boxes_are_found_by_the_longest_end_of_the_path() -> None:
    boxes = {"cat/1.png": (1.0, 2.0, 3.0, 4.0), "1.png": (5.0, 6.0, 7.0, 8.0)}
    assert box_of(boxes, "/data/cat/1.png") == (1, 2, 3, 4)
    assert box_of(boxes, "/data/dog/1.png") == (5, 6, 7, 8)
    assert box_of(boxes, "/data/dog/2.png") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,top\n", "has no column 'left'"),
        ("path,top,left,height,width\na,1,2,x,4\n", "line 2: top, left, height and width should be four numbers"),
        ("path,top,left,height,width\nnowhere.png,1,2,3,4\n", "names none of the pictures of the index"),
    ],
)
def test_bad_boxes_get_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    with pytest.raises(OptionError, match=said):
        asked(Told({"correct": np.arange(COUNT) % 2 == 0}), boxes=file)
    with pytest.raises(OptionError, match="cannot be read"):
        read_boxes(tmp_path / "none.csv")


def test_an_index_without_failures_or_classes_gets_one_sentence() -> None:
    with pytest.raises(IndexUnusable, match=r"all of the 50 pictures .* are classified right"):
        asked(Told({"correct": np.ones(50, bool)}))
    with pytest.raises(IndexUnusable, match="no picture whose class the network knows"):
        asked(Told({"correct": np.ones(0, bool)}))
    with pytest.raises(IndexUnusable, match="too few"):
        asked(Told({"correct": np.arange(12) % 2 == 0}))


def test_of_a_real_index_every_picture_counts_once(colour_index: Index) -> None:
    rows = colour_index.pictures(["correct"], "error is null").to_pydict()
    if all(rows["correct"]):
        with pytest.raises(IndexUnusable, match="all of the"):
            attributes(colour_index)
        return
    found = attributes(colour_index, bins=2)
    assert found.counts.sum(1).tolist() == [len(colour_index)] * len(found.names)
    assert found.overall == pytest.approx(np.mean(rows["correct"]))
    assert found.provenance.index == str(colour_index.path)
