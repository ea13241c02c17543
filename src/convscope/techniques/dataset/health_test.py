"""health: its numbers against loops, and networks of which it is known what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convscope import example
from convscope.hooks import observe
from convscope.index import Index
from convscope.network import Network
from convscope.results import Checkup
from convscope.techniques.dataset.health import COLUMNS, health, structure


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Callable[[nn.Module], Checkup]:
    """What is found in a module that has seen 90 pictures."""
    folder = tmp_path_factory.mktemp("examined")
    pictures = example.write(example.shapes(90, seed=2), folder / "pictures")

    def run(module: nn.Module) -> Checkup:
        number = len(list(folder.iterdir()))
        return health(example.scan(example.wrapped(module), pictures, folder / f"{number}.index"))

    return run


def column(found: Checkup, name: str) -> dict[str, float]:
    values = found.values[:, COLUMNS.index(name)].tolist()
    return dict(zip((str(row[0]) for row in found.rows), values, strict=True))


def signs(found: Checkup) -> str:
    return " ".join(f"{where}: {sign}" for where, sign, _, _ in found.findings)


def test_a_good_network_is_sound(shapes_index: Index) -> None:
    found = health(shapes_index)
    assert found.verdict == "sound", found.notes
    assert not any(grave for _, _, _, grave in found.findings)
    assert found.summaries[0]["accuracy"]["low"] > found.summaries[0]["chance"]


def test_an_untrained_network_is_told(examined: Callable[[nn.Module], Checkup]) -> None:
    for seed in (0, 1):
        found = examined(example.untrained(seed=seed, gain=1.0))
        assert found.verdict == "untrained"
        assert "no more structure than shuffled ones" in signs(found)
        assert "most common class" in signs(found)


def test_too_high_a_learning_rate_leaves_dead_units(examined: Callable[[nn.Module], Checkup]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip
    optimizer = torch.optim.SGD(module.parameters(), 1.5, momentum=0.9)
    for loss in example.losses(module, example.shapes(150), 25):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = examined(module)
    assert found.verdict == "ailing"
    assert "never rise above zero in 90 pictures" in signs(found)
    assert any("learning rate is too high" in meaning for _, _, meaning, grave in found.findings if grave)


def test_too_little_training_leaves_noisy_filters(examined: Callable[[nn.Module], Checkup]) -> None:
    module = example.untrained(gain=1.0)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for loss in example.losses(module, example.shapes(300), 30):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = examined(module)
    assert found.verdict == "ailing"
    assert "filters have a smoothness of" in signs(found)
    assert any("too little training" in meaning for _, _, meaning, _ in found.findings)


def test_dead_and_nearly_dead_channels_are_counted_as_a_loop_does(shapes_network: Network, tmp_path: Path) -> None:
    module = example.untrained()
    module.load_state_dict(shapes_network.module.state_dict())
    with torch.no_grad():
        module[1].weight[[2, 5]] = 0.0  # behind the norm these two are below zero everywhere
        module[1].bias[[2, 5]] = -1.0
    network = example.wrapped(module)
    pictures = example.write(example.shapes(60, seed=4), tmp_path / "pictures")
    index = example.scan(network, pictures, tmp_path / "index")
    found = health(index, silent=0.6)
    images = torch.stack([index.prepared(int(id)) for id in index.ids])
    with torch.no_grad():
        for layer in index.layers:
            maps = observe(network, images, [layer])[layer]
            silent = [np.mean([bool((maps[n, c] <= 0).all()) for n in range(60)]) for c in range(maps.shape[1])]
            assert column(found, "dead")[layer] == pytest.approx(np.mean([share == 1 for share in silent]))
            assert column(found, "nearly_dead")[layer] == pytest.approx(np.mean([0.6 <= s < 1 for s in silent]))
            assert column(found, "zeros")[layer] == pytest.approx(float((maps == 0).double().mean()), abs=1e-6)
    assert column(found, "dead")[index.layers[0]] == pytest.approx(2 / 16)
    assert "12 % of the channels never rise above zero in 60 pictures" in signs(found)


def test_structure_is_one_for_noise_of_any_kind_and_more_where_outputs_share() -> None:
    generator = torch.Generator().manual_seed(0)
    for noise in (
        torch.randn(32, 48, generator=generator),
        torch.rand(32, 12, 2, 2, generator=generator) - 0.5,
        torch.randn(24, 40, generator=generator) ** 3,
    ):
        assert structure(noise) == pytest.approx(1, abs=0.08)
    shared = torch.randn(32, 1, generator=generator) @ torch.randn(1, 48, generator=generator)
    weight = torch.randn(32, 48, generator=generator) + 0.5 * shared
    values = weight.double().numpy()
    chance = np.random.default_rng(0)
    reference = np.mean([np.linalg.svd(chance.permutation(values.ravel()).reshape(32, 48))[1][0] for _ in range(60)])
    assert structure(weight) == pytest.approx(np.linalg.svd(values)[1][0] / reference, rel=0.04)
    assert structure(weight) > 1.3
    assert np.isnan(structure(torch.zeros(8, 8)))
    assert np.isnan(structure(torch.randn(32, 1, 3, 3, generator=generator)[:2]))


def test_gradients_are_relative_to_the_middle_layer(shapes_index: Index) -> None:
    told = shapes_index.gradients()
    weights = told.counts / told.counts.sum()
    means = [sum(float(w * m) for w, m in zip(weights, row, strict=True)) for row in told.layer_mean.T]
    found = column(health(shapes_index), "gradient")
    for layer, mean in zip(told.layers, means, strict=True):
        assert found[layer] == pytest.approx(mean / np.median(means))


def test_classes_that_are_not_known_are_no_fault(shapes_network: Network, tmp_path: Path) -> None:
    pictures = example.write(example.shapes(30, seed=4), tmp_path / "pictures")
    for place, folder in enumerate(sorted(pictures.iterdir())):
        folder.rename(pictures / f"kind{place}")
    found = health(example.scan(shapes_network, pictures, tmp_path / "index"))
    assert found.summaries[0]["accuracy"] is None
    assert "of classes that are not known" in found.notes[0]
