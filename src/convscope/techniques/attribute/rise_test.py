"""rise against its formula in a loop, its masks, and a network that sees one pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network
from convscope.techniques.attribute.rise import Masks, rise

pytest_plugins = "convscope.techniques.attribute._examples_test"


@pytest.mark.parametrize(("max_batch", "of", "centred"), [(32, "probability", False), (7, "score", True)])
def test_equals_the_formula_in_a_loop(deep: Network, pictures: Tensor, max_batch: int, of: str, centred: bool) -> None:
    object.__setattr__(deep, "max_batch", max_batch)
    found = rise(deep, pictures, target=[0, 1, 2], of=of, samples=20, cells=3, keep=0.4, centred=centred, seed=6)
    masks = Masks(20, 3, 0.4, (8, 10), 6)[slice(0, 20)]
    for number in range(3):
        logits = [deep.module(deep.normalise((pictures[number] * mask)[None]))[0] for mask in masks]
        scores = [float((all_.softmax(0) if of == "probability" else all_)[number]) for all_ in logits]
        level = sum(scores) / 20 if centred else 0.0
        expected = sum((score - level) * mask for score, mask in zip(scores, masks, strict=True)) / (20 * 0.4)
        torch.testing.assert_close(found.values[number], expected, rtol=1e-4, atol=1e-5)


def test_without_the_mean_two_seeds_are_less_alike(deep: Network, pictures: Tensor) -> None:
    def alike(centred: bool) -> float:
        one, two = (
            rise(deep, pictures, samples=60, cells=3, centred=centred, seed=seed).values.flatten(1) for seed in (0, 1)
        )
        return float(torch.cosine_similarity(one - one.mean(1, True), two - two.mean(1, True)).mean())

    assert alike(True) > alike(False)


def test_masks_are_a_shifted_grid_enlarged_and_the_same_in_any_parts() -> None:
    masks = Masks(500, 4, 0.3, (16, 20), 1)
    whole = masks[slice(0, 500)]
    assert whole.shape == (500, 16, 20)
    assert torch.equal(torch.cat([masks[slice(0, 77)], masks[slice(77, 500)]]), whole)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    assert float(whole.mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(Masks(500, 4, 0.3, (16, 20), 1)[slice(3, 4)], whole[3:4])
    assert not torch.equal(Masks(500, 4, 0.3, (16, 20), 2)[slice(3, 4)], whole[3:4])


def test_masks_that_are_always_open_give_the_score_everywhere(deep: Network, pictures: Tensor) -> None:
    found = rise(deep, pictures[:1], samples=3, keep=1.0, centred=False)
    assert float(found.values.min()) == pytest.approx(found.summary["score"], abs=1e-5)
    assert float(found.values.max()) == pytest.approx(found.summary["score"], abs=1e-5)


def test_the_one_pixel_that_a_network_sees_is_found() -> None:
    class OnePixel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 5, 14].mean(1, keepdim=True)

    net = Network(OnePixel(), input_size=(20, 20))
    found = rise(net, torch.ones(1, 3, 20, 20), target=0, of="score", samples=2000, seed=3)
    assert found.signed
    strongest = found.summary["strongest"]
    assert abs(strongest["row"] - 5) <= 1
    assert abs(strongest["column"] - 14) <= 1
    assert float(found.values[0, 15:, :5].mean()) == pytest.approx(0, abs=0.03), "no influence elsewhere"
