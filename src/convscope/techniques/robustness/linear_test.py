from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convscope.errors import ImageError, OptionError
from convscope.images import write_image
from convscope.results import Adversarial, Curve, Pictures
from convscope.techniques.robustness import linear as module
from convscope.techniques.robustness.linear import linear, regression


@pytest.fixture(scope="module")
def model() -> module._Model:
    source = module._Generated(30, 1)
    return module._Model.trained(source, 8, module._split([30] * 4, 1), 1e-3)


def test_the_weights_are_those_of_softmax_regression() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    rows, labels = generator.normal(size=(60, 7)), generator.integers(0, 3, 60)
    weights, biases = regression(rows, labels, 3, 0.01)
    theirs = sklearn.LogisticRegression(C=1 / (60 * 0.01), tol=1e-8, max_iter=2000).fit(rows, labels)
    np.testing.assert_allclose(weights, theirs.coef_, atol=2e-3)
    np.testing.assert_allclose(biases - biases.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)


def test_what_is_needed_is_just_enough(model: module._Model) -> None:
    flat, nearest = model.needed(1)
    rows = model.pictures.flatten(1).double().numpy() - 0.5
    for place in model.right()[:5]:
        own = model.labels[place]
        for share, falls in ((0.999, False), (1.001, True)):
            fallen = []
            for other in range(4):
                change = -share * flat[place] * np.sign(model.weights[own] - model.weights[other])
                scores = model.weights @ (rows[place] + change) + model.biases
                fallen.append(other != own and scores[other] > scores[own])
            assert any(fallen) == falls
            assert not falls or fallen[nearest[place]]


def test_in_l2_too(model: module._Model) -> None:
    straight, nearest = model.needed(2)
    rows = model.pictures.flatten(1).double().numpy() - 0.5
    for place in model.right()[:5]:
        own = model.labels[place]
        way = model.weights[own] - model.weights[nearest[place]]
        at = rows[place] - straight[place] * way / np.linalg.norm(way)
        scores = model.weights @ at + model.biases
        assert scores[nearest[place]] == pytest.approx(scores[own], abs=1e-9)


def test_the_files_fool_with_the_next_level(model: module._Model) -> None:
    shown, needed = module._attacked(model, 0)
    assert len(needed) == module.SHOWN
    assert all(shown.success)
    for summary, by_algebra in zip(shown.summaries, needed, strict=True):
        # a level is the least step of a file, and pixels that are cut at 0 and 1 may take another
        assert by_algebra - 1e-6 <= summary["linf"] <= by_algebra + 2 / 255
        assert summary["needed"] == by_algebra


def test_the_more_numbers_the_less_each_must_change() -> None:
    found = linear(sides=[4, 8, 16], side=8, limit=30)
    dimension, accuracy, flat, straight, sums = found.values
    assert dimension.tolist() == [48, 192, 768]
    assert bool((accuracy > 0.8).all())
    assert bool((flat >= straight / dimension.sqrt() - 1e-12).all())
    assert flat[2] < 0.7 * flat[1] < 0.5 * flat[0]
    assert sums[2] > sums[0]
    templates, attacked, curve = (part for _, part in found.parts)
    assert isinstance(templates, Pictures)
    assert templates.tiles.shape == (1, 4, 3, 8, 8)
    assert isinstance(attacked, Adversarial)
    assert isinstance(curve, Curve)
    torch.testing.assert_close(curve.values[0], flat * 255)
    assert [each["side"] for each in found.summary["sides"]] == [4, 8, 16]


def folders(path: Path, counts: dict[str, int]) -> Path:
    for place, (name, count) in enumerate(counts.items()):
        (path / name).mkdir()
        for number in range(count):
            noise = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(100 * place + number))
            write_image(0.5 * noise + 0.5 * (place == 0), path / name / f"{number}.png")
    return path


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    folder = folders(tmp_path, {"bright": 6, "dark": 6, "odd": 6})
    found = linear(folder=folder, sides=[3, 6], side=6, classes=["bright", "dark"], limit=5)
    assert found.summary["classes"] == ["bright", "dark"]
    assert found.values[1].tolist() == [1.0, 1.0]
    assert all(each["success"] for each in found.summary["attacked"])


def test_bad_folders_get_one_sentence(tmp_path: Path) -> None:
    folder = folders(tmp_path, {"few": 1, "many": 3})
    with pytest.raises(OptionError, match="has no folder 'none'; it has few, many"):
        linear(folder=folder, classes=["none", "few"])
    with pytest.raises(ImageError, match="fewer than two pictures"):
        linear(folder=folder)
    with pytest.raises(OptionError, match="two or more classes"):
        linear(folder=folder, classes=["many"])
    with pytest.raises(OptionError, match="two or more classes"):
        linear(folder=tmp_path / "absent")
    with pytest.raises(OptionError, match="sides should lie between 2 and 256"):
        linear(sides=[1, 4])
