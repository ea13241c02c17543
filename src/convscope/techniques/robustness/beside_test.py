from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import UnknownTarget
from convscope.network import Network
from convscope.techniques.robustness.beside import beside, smoothness


@pytest.fixture
def linear() -> Network:
    """Each class's logit is an inner product, so its gradient is known."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 100)).eval()
    return Network(module, std=torch.full((3,), 0.25), labels=(*(f"class {n}" for n in range(99)), "ant"),
                   name="linear", input_size=(64, 64), precision="float32")  # fmt: skip


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_values_are_the_gradients_of_both(linear: Network) -> None:
    found = beside(linear, pictures(), other="builtin", target="ant", steps=0)
    assert found.values.shape == (2, 2, 3, 64, 64)
    weight = linear.module[1].weight[99].detach().view(3, 64, 64) / 0.25
    torch.testing.assert_close(found.values[:, 0], weight.expand(2, 3, 64, 64))
    assert found.tiles.shape == (2, 3, 3, 256, 256)
    assert torch.equal(found.tiles[:, 0, :, ::4, ::4], pictures())
    shown = (0.5 + weight / (6 * weight.std())).clamp(0, 1)
    torch.testing.assert_close(found.tiles[0, 1, :, 1::4, 2::4], shown)
    said = found.summaries[0]["networks"]
    shares = linear(pictures())[0].softmax(0).detach()
    assert said[0]["probability_of_target"] == pytest.approx(float(shares[99]), rel=1e-4)
    assert said[0]["smoothness"] == pytest.approx(0, abs=0.03)


def test_class_images_raise_the_class(linear: Network) -> None:
    found = beside(linear, pictures(), other="builtin", target="ant", steps=8)
    image = found.tiles[:, 3, :, ::4, ::4]  # the first network's
    assert bool((linear(image).argmax(1) == 99).all())
    assert torch.equal(image[0], image[1])  # for one class, from one noise


def test_two_classes_of_one_name_are_told_apart_by_their_place(linear: Network) -> None:
    twins = replace(linear, labels=(*linear.labels[:98], "Ant", "ant"))
    weight = linear.module[1].weight[98].detach().view(3, 64, 64) / 0.25
    found = beside(twins, pictures(1), other="random", target=98, steps=0)
    torch.testing.assert_close(found.values[0, 0], weight)


def test_smoothness_by_hand() -> None:
    ramp = torch.arange(64.0).view(1, 8, 8).expand(3, 8, 8)
    assert smoothness(ramp) > 0.9
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    assert smoothness(board.float().expand(3, 8, 8)) == pytest.approx(-1)
    assert smoothness(torch.zeros(3, 8, 8)) == 0


def test_a_label_that_the_other_lacks(linear: Network) -> None:
    with pytest.raises(UnknownTarget, match="builtin knows no 'class 3'"):
        beside(linear, pictures(), other="builtin", target=3, steps=0)


def test_weights_behind_the_name(linear: Network, tmp_path: Path) -> None:
    from convscope.zoo.builtin import FILES

    path = tmp_path / "mine.safetensors"
    path.write_bytes(FILES["builtin"].read_bytes())
    found = beside(linear, pictures(1), other=f"builtin={path}", target="ant", steps=0)
    assert "mine.safetensors" in found.summary["networks"][1]["weights"]
