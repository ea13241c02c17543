"""What training exports is the network that was trained: folding and cutting change no score."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import train_builtin as training
from architecture import build


def trained_looking(classes: int) -> nn.Sequential:
    """Random weights, with statistics in the batch norms that are far from those of a fresh network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(classes, batch_norm=True).eval()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for values, low, high in (
                    (layer.weight.data, 0.5, 2), (layer.bias.data, -0.3, 0.3),
                    (layer.running_mean, -0.5, 0.5), (layer.running_var, 0.5, 2),
                ):  # fmt: skip
                    values.uniform_(low, high)
        network.fc5.bias.data[::3] = -1e3  # units that nothing can move
    return network


def photographs() -> training.Photographs:
    generator = torch.Generator().manual_seed(0)
    side = training.STORED
    pixels = torch.randint(0, 256, (6, 3, side, side), generator=generator, dtype=torch.uint8)
    return training.Photographs(pixels, torch.tensor([0.5, 1, 1.5, 2, 1, 1]), torch.arange(6))


def normalised() -> Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_folding_the_batch_norms_changes_no_score() -> None:
    network = trained_looking(5)
    with torch.no_grad():
        torch.testing.assert_close(training.fold(network, 5)(normalised()), network(normalised()), rtol=1e-3, atol=1e-4)


def test_silent_codes_are_cut_off_and_no_score_changes() -> None:
    plain = training.fold(trained_looking(5), 5)
    cut = training.without_silent_codes(plain, photographs(), 5, passes=1)
    assert cut.fc5.out_features <= 512 - 171
    assert cut.fc5.out_features == cut.fc6.in_features
    training_pictures = training.augment(photographs(), torch.arange(6), 128, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(cut(training_pictures), plain(training_pictures), rtol=1e-3, atol=1e-4)


def test_the_schedule_only_falls_after_the_warm_up_and_ends_at_zero() -> None:
    recipe = training.Recipe()
    epochs = [e / 4 for e in range(4 * recipe.epochs)]
    rates = [training.learning_rate(training.progress_at(e, recipe), recipe) for e in epochs]
    peak = rates.index(max(rates))
    assert rates[0] == 0
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert training.learning_rate(1.0, recipe) < 1e-9


def test_crops_stay_inside_the_picture_unless_they_are_rotated() -> None:
    aspect = torch.tensor([0.5, 1.0, 2.0]).repeat(50)
    maps = training.crops(aspect, torch.Generator().manual_seed(0))
    straight = maps[maps[:, 1, 0] == 0]
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    assert len(straight) > 20
    assert float((straight @ corners.T).abs().max()) <= 1 + 1e-5


def test_mixing_keeps_the_targets_a_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.eye(8)
    for _ in range(10):
        images, mixed = training.mix(torch.rand(8, 3, 32, 32, generator=generator), targets, generator)
        torch.testing.assert_close(mixed.sum(1), torch.ones(8))
        assert images.shape == (8, 3, 32, 32)
