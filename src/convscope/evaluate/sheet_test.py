"""Maps beside each other: untouched values, tiles by hand, and the verdicts of the check itself."""

from __future__ import annotations

import pytest
import torch

from convscope.errors import OptionError
from convscope.evaluate.conftest import spots
from convscope.evaluate.methods import methods_of
from convscope.evaluate.randomisation import cascade, checked
from convscope.evaluate.sheet import beside
from convscope.network import Network

METHODS = "saliency, gradient-x-input, saliency rule=plain signed=true reduce=sum"


def test_maps_are_untouched_and_tiles_are_shares_of_their_own_end(network: Network) -> None:
    images = spots(4)[0]
    found = beside(network, images, methods=METHODS)
    names = [told["name"] for told in found.summaries[0]["methods"]]
    assert names == ["gradient-x-input", "saliency rule=plain signed=true reduce=sum", "saliency"]
    targets = network(images).argmax(1).tolist()
    for number, method in enumerate(methods_of(names)):
        heat = method(network, images[:1], targets[:1])[0]
        assert torch.equal(found.values[number], heat)
        shown = heat - heat.min() if number == 2 else heat  # the last has no sign
        end = sorted(shown.abs().flatten().tolist())[round(0.995 * heat.numel()) - 1] or 1.0  # the last is constant
        torch.testing.assert_close(found.tiles[0, number, 0], (shown / end).clamp(-1, 1))


def test_verdicts_are_those_of_the_check(network: Network) -> None:
    images = spots(4)[0]
    found = beside(network, images, methods=METHODS, seed=3)
    targets = network(images).argmax(1).tolist()
    stages = [random for _, random in cascade(network, seed=3)]
    for told, mark in zip(found.summaries[0]["methods"], found.marks[0], strict=True):
        method = methods_of(told["name"])[0]
        expected = checked(stages, method, images, targets, method(network, images, targets))
        assert told["check"] == expected.word
        assert bool(mark) == (expected.word == "fails")


def test_what_takes_too_long_is_said_to_be_unchecked(network: Network) -> None:
    found = beside(network, spots(4)[0], methods="saliency", seconds=0)
    assert found.tile_titles == ["saliency\nnot checked"]


def test_methods_that_do_not_work_are_named(network: Network) -> None:
    found = beside(network, spots(4)[0], methods="saliency, gradcam layer=nowhere")
    assert any("gradcam layer=nowhere is left out" in note for note in found.notes)
    with pytest.raises(OptionError, match="no method works on colours"):
        beside(network, spots(4)[0], methods="gradcam layer=nowhere")
