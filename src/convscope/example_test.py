"""The made-up data set: where the shapes and the tag are, and that the same seed gives the same."""

from __future__ import annotations

from pathlib import Path

import torch

from convscope import example


def test_pictures_are_what_they_say(tmp_path: Path) -> None:
    given = example.shapes(30, seed=3)
    assert given.images.shape == (30, 3, 40, 40)
    assert (given.images >= 0).all()
    assert (given.images <= 1).all()
    assert given.tagged.sum() == 5
    assert set(given.labels[given.tagged].tolist()) == {example.LABELS.index("disc")}
    top, left = example.TAG
    corner = given.images[:, :, top : top + 6, left : left + 6]
    alike = (corner - example._tag()).abs().amax((1, 2, 3)) < 1e-6
    assert torch.equal(alike, given.tagged)
    inside = given.masks.flatten(1).sum(1).double()
    assert (inside > 40).all()
    assert not given.masks[:, top : top + 6, left : left + 6][given.tagged].any()
    example.write(given, tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 30
    assert len(list((tmp_path / "disc").glob("*-tagged.png"))) == 5


def test_the_same_seed_gives_the_same_pictures_and_weights_and_leaves_chance_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (example.train(example.shapes(60), steps=3) for _ in range(2))
    for one, other in zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(example.shapes(6, seed=1).images, example.shapes(6, seed=2).images)
