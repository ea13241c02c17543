"""directions on codes into which an answer was planted, and its score and test against loops."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from convscope.errors import OptionError
from convscope.index import Index
from convscope.techniques.dataset import directions as module
from convscope.techniques.dataset.directions import _scores, difference_of, directions, permuted, strongest


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_the_score_is_the_mean_cosine_over_pairs() -> None:
    chance = np.random.default_rng(0)
    codes = chance.normal(size=(40, 6)) + 3
    members = np.stack([chance.choice(40, 5, replace=False) for _ in range(7)])
    found = _scores(lambda places: codes[places], members, codes.mean(0))
    centred = codes - codes.mean(0)
    for score, each in zip(found, members, strict=True):
        assert score == pytest.approx(np.mean([cosine(centred[a], centred[b]) for a, b in combinations(each, 2)]))


def test_pictures_at_random_are_not_alike() -> None:
    chance = np.random.default_rng(0)
    codes = chance.normal(size=(500, 8)) + 5
    members = np.stack([chance.choice(500, 8, replace=False) for _ in range(300)])
    assert _scores(lambda places: codes[places], members, codes.mean(0)).mean() == pytest.approx(0, abs=0.01)


def test_the_strongest_are_found_and_equals_stay_in_order() -> None:
    assert strongest(np.array([[1.0, 5, 5, 2], [0, 0, 0, 1]]), 3).tolist() == [[1, 2, 3], [3, 0, 1]]


def test_the_permutation_test_counts_what_is_as_far() -> None:
    """Of the 20 ways to share out six numbers, two put them as far apart as they are."""
    first, second = np.array([1.0, 2, 3]), np.array([11.0, 12, 13])
    assert permuted(first, second, 0) == pytest.approx(2 / 20, abs=0.01)
    assert permuted(first, first, 0) == 1
    chance = np.random.default_rng(0)
    under_chance = [permuted(*chance.normal(size=(2, 8)), 0) for _ in range(30)]
    assert 0.3 < float(np.mean(under_chance)) < 0.7


def test_the_interval_of_the_difference_holds_it() -> None:
    chance = np.random.default_rng(0)
    found = difference_of(chance.normal(1, 1, 200), chance.normal(0, 1, 200), 0)
    assert found.low < 1 < found.high
    assert found.half == pytest.approx(1.96 * np.sqrt(2 / 200), rel=0.15)


class Planted:
    """An index of 400 pictures of 40 kinds; a channel fires for one kind, or for a mixture of all."""

    path, code_layers = "planted.index", ("codes", "judge")

    def __init__(self, special: bool) -> None:
        chance = np.random.default_rng(1)
        kinds = np.arange(400) % 40
        axes = np.eye(40)[kinds] + 0.05 * chance.random((400, 40))
        turned = np.linalg.qr(chance.normal(size=(40, 40)))[0]
        self.held = {"codes": axes if special else np.abs(axes @ turned), "judge": np.eye(40)[kinds]}

    def codes(self, layer: str | None = None) -> np.ndarray:
        return self.held[layer or "codes"].astype(np.float32)


@pytest.mark.parametrize("special", [True, False])
def test_channels_are_found_special_where_they_are(special: bool) -> None:
    index: Any = Planted(special)
    chance = np.random.default_rng(0)
    sets = module._sets(index.codes(), 40, 6, chance)
    judged, said = module._judge(index, "codes", None)
    assert said == "codes of layer judge"
    scores = [_scores(judged, kind.members, judged(np.arange(400)).mean(0)) for kind in sets]
    told = module._compared(sets, scores, 0)
    if special:
        assert scores[0].mean() > 0.95  # every channel's pictures are of one kind
        assert told["p"] < 0.01
        assert told["answer"] == "channels are more alike in their pictures than random directions"
    assert told["chance"]["low"] < 0.05
    assert told["difference"]["mean"] == pytest.approx(scores[0].mean() - scores[1].mean())


def test_no_difference_is_said_to_be_none() -> None:
    assert module.answer(0.1, 0.2) == "no difference beyond chance between channels and random directions"
    assert module.answer(-0.1, 0.001) == "channels are less alike in their pictures than random directions"


def test_sets_are_the_largest_products_of_the_index(colour_index: Index) -> None:
    found = directions(colour_index, directions=4, count=3, shown=3, judge="pixels")
    codes = colour_index.codes()
    paths = colour_index.pictures(["path"], "error is null")["path"].to_pylist()
    assert found.values.shape == (3, 4)
    for title, captions in zip(found.titles[:3], found.panels[0].captions[:3], strict=True):
        channel = int(title.removeprefix("channel "))
        best = np.argsort(-codes[:, channel], kind="stable")[:3]
        assert list(captions) == [paths[place].split("/")[-2] for place in best]
    assert found.summary["judge"] == "pixels"
    assert [row["score"] for row in found.summary["rows"]] == [
        *found.values[0, :3].tolist(), *found.values[1, :3].tolist()
    ]  # fmt: skip


def test_blind_sets_are_shuffled_and_have_no_names(colour_index: Index) -> None:
    options: dict[str, Any] = {"directions": 4, "count": 3, "shown": 3, "seed": 2}
    open_, blind = (directions(colour_index, blind=b, **options) for b in (False, True))
    assert blind.titles == [f"set {n}" for n in range(1, 7)]
    assert not blind.sections
    assert not blind.subtitles
    key = [blind.summary["rows"][title]["name"] for title in blind.titles]
    assert sorted(key) == sorted(open_.titles)
    assert key != list(open_.titles)
    where = [list(open_.titles).index(name) for name in key]
    assert [blind.panels[0].captions[n] for n in range(6)] == [open_.panels[0].captions[n] for n in where]


def test_another_index_of_the_same_pictures_judges(colour_index: Index) -> None:
    found = directions(colour_index, directions=3, count=3, judge=colour_index.path)
    assert found.summary["judge"].startswith("codes of")
    places = np.stack([[0, 1, 2], [5, 6, 7]])
    judged, _ = module._other(colour_index, colour_index)
    np.testing.assert_allclose(judged(places[0]), colour_index.codes()[places[0]])


def test_bad_judges_get_a_sentence(colour_index: Index) -> None:
    layer = colour_index.code_layers[0]
    with pytest.raises(OptionError, match="would judge itself"):
        directions(colour_index, judge=layer)
    with pytest.raises(OptionError, match="there is no judge 'nobody'"):
        directions(colour_index, judge="nobody")
    with pytest.raises(OptionError, match="too few for sets of 20"):
        directions(colour_index, count=20)
