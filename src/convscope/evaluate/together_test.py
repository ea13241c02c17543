from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from convscope.errors import OptionError
from convscope.evaluate import evaluate, together
from convscope.evaluate.conftest import spots
from convscope.evaluate.sample import Sample
from convscope.evaluate.together import MEASURES, judge
from convscope.network import Network

METHODS = "saliency, gradient-x-input, gradcam"


def test_every_measure_of_every_method_and_picture(given: Sample) -> None:
    result = judge(given, methods=METHODS)
    assert result.methods == ["saliency", "gradient-x-input", "gradcam", "(noise)", "(middle)"]
    titles = [column.title for measure in MEASURES.values() for column in measure.columns]
    assert result.measures == titles
    assert result.values.shape == result.lows.shape == (5, len(titles))
    known = result.values.isfinite()
    assert known[1:3].all()  # the network is linear: its gradient is the same everywhere, and has no ranks
    assert bool((result.lows[known] <= result.values[known] + 1e-9).all())
    assert bool((result.values[known] <= result.highs[known] + 1e-9).all())
    found = json.loads(result.to_json())
    assert "NaN" not in result.to_json()
    assert [picture["predicted"] for picture in found["pictures"]] == ["red", "green", "blue", "grey"] * 2
    for place, method in enumerate(found["methods"]):
        for measure in MEASURES.values():
            for column in measure.columns:
                if column.key in method["scores"]:
                    numbers = [n for n in method["scores"][column.key]["each"] if n is not None]
                    expected = float(result.values[place, titles.index(column.title)])
                    assert not numbers or np.mean(numbers) == pytest.approx(expected)
    assert len(found["methods"][0]["scores"]["inside"]["each"]) == 8
    assert found["provenance"]["technique"] == "evaluate"
    assert found["provenance"]["options"]["methods"] == ["saliency", "gradient-x-input", "gradcam"]


def test_the_table_holds_what_the_values_do(given: Sample) -> None:
    result = judge(given, methods="gradient-x-input", measures="inside, randomisation", controls=False)
    assert result.columns[0] == "method"
    assert result.columns[-1] == "random weights"
    assert result.rows[0][0] == "gradient-x-input"
    assert float(str(result.rows[0][2]).split(" ")[0]) == pytest.approx(float(result.values[0, 1]), abs=0.006)
    assert result.rows[0][-1] in ("passes", "fails", "unclear", "–")
    assert list(result.marks) == [result.rows[0][-1] == "fails"]


def test_the_same_seed_gives_the_same_numbers_and_no_generator_moves(given: Sample) -> None:
    state = torch.get_rng_state()
    one, two = (judge(given, methods="gradcam", measures="grid,road,sensitivity,randomisation") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(one.values, two.values, equal_nan=True, rtol=0, atol=0)
    other = judge(replace(given, seed=1), methods="gradcam", measures="road,sensitivity")
    assert not torch.equal(other.values, one.values[:, 1:3])


def test_what_fails_is_a_note_and_spares_the_rest(given: Sample) -> None:
    few = judge(replace(given, probabilities=[0.1] * 8), methods="gradcam,saliency rule=guided", measures="grid,road")
    assert few.methods == ["gradcam", "(noise)", "(middle)"]
    assert any(
        note.startswith("saliency rule=guided is left out: the guided rule found no rectifier") for note in few.notes
    )
    assert any(note.startswith("no grid: mosaics need pictures of four classes") for note in few.notes)
    assert bool(few.values[:, 0].isnan().all())
    assert bool(few.values[:, 1].isfinite().all())


def test_without_masks_nothing_is_said_of_the_inside(network: Network) -> None:
    images, _ = spots()
    result = evaluate(network, images, methods=["gradcam"], measures=None, controls=False)
    assert "share on the object" not in result.measures
    assert result.summaries[0]["pictures"][0]["label"] is None


def test_when_none_is_named_all_cheap_ones_are_judged(given: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [method for method in together.all_methods() if method.technique in ("saliency", "gradcam", "rise")]
    monkeypatch.setattr(together, "all_methods", lambda: few)
    result = judge(given, measures="cost")
    assert result.methods == ["saliency", "gradcam", "(noise)", "(middle)"]
    assert any("judged only when named" in note and "rise" in note for note in result.notes)
    passes = result.values[: len(result.methods) - 2, result.measures.index("passes a picture")]
    assert float(passes.max()) <= 40


@pytest.mark.parametrize(
    ("measures", "said"), [("gird", "there is no measure 'gird'; did you mean 'grid'"), (",", "no measure is named")]
)
def test_what_is_no_measure_gets_one_sentence(given: Sample, measures: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        judge(given, methods="gradcam", measures=measures)


def test_no_method_that_works_is_an_error(given: Sample) -> None:
    with pytest.raises(OptionError, match="no method works on colours"):
        judge(given, methods="saliency rule=guided")
