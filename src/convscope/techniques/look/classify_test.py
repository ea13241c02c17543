"""classify against a softmax worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.network import Network
from convscope.techniques.look.classify import classify


class Means(nn.Module):
    """The logits are the picture's mean red, green and blue, times ten."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * 10


NETWORK = Network(Means(), labels=("red", "green", "blue"), name="means", input_size=(4, 4))


def plain(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32).view(3, 1, 1).expand(3, 4, 4)


def test_predictions_are_best_first_with_softmax_probabilities() -> None:
    result = classify(NETWORK, plain(0.2, 0.5, 0.1), top=2)
    total = math.exp(2) + math.exp(5) + math.exp(1)
    first, second = result.summaries[0]["predictions"]
    assert (first["label"], first["index"]) == ("green", 1)
    assert first["probability"] == pytest.approx(math.exp(5) / total, rel=1e-5)
    assert (second["label"], second["index"]) == ("red", 0)
    assert second["probability"] == pytest.approx(math.exp(2) / total, rel=1e-5)
    torch.testing.assert_close(result.values, torch.tensor([[2.0, 5.0, 1.0]]))


def test_one_picture_is_one_object_and_several_are_a_list() -> None:
    one = json.loads(classify(NETWORK, plain(1, 0, 0)).to_json())
    assert one["predictions"][0]["label"] == "red"
    assert one["provenance"]["technique"] == "classify"
    several = json.loads(classify(NETWORK, torch.stack([plain(1, 0, 0), plain(0, 0, 1)])).to_json())
    assert [o["predictions"][0]["label"] for o in several] == ["red", "blue"]


def test_more_classes_than_there_are_names_them_all() -> None:
    assert len(classify(NETWORK, plain(0, 0, 1), top=50).summaries[0]["predictions"]) == 3


def test_no_classes_is_an_error_that_says_so() -> None:
    with pytest.raises(OptionError, match="top should be greater than or equal to 1, not 0"):
        classify(NETWORK, plain(0, 0, 1), top=0)
