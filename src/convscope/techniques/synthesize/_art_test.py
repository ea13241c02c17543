from __future__ import annotations

import torch

from convscope.techniques.synthesize._art import PALETTE, _painted, swirls


def test_a_share_is_a_colour_of_the_palette_or_between_two() -> None:
    found = _painted(torch.tensor([[0.0, 0.25, 0.375, 1.0]]))
    between = [(a + b) / 2 for a, b in zip(PALETTE[1], PALETTE[2], strict=True)]
    torch.testing.assert_close(found[:, 0].T, torch.tensor([PALETTE[0], PALETTE[1], between, PALETTE[4]]))


def test_strokes_are_long_and_one_seed_gives_one_picture() -> None:
    picture = swirls(96, seed=1)
    assert picture.shape == (3, 96, 96)
    assert 0 <= float(picture.min()) < 0.3 < 0.7 < float(picture.max()) <= 1
    assert torch.equal(picture, swirls(96, seed=1))
    assert not torch.equal(picture, swirls(96, seed=2))
    grey = picture.mean(0)
    fine = grey - torch.nn.functional.avg_pool2d(grey[None], 5, 1, 2)[0]
    down, right = torch.gradient(fine)
    # The structure tensor of strokes has one strong direction almost everywhere; noise has none.
    tensor = torch.stack([down * down, right * right, down * right])
    a, b, c = torch.nn.functional.avg_pool2d(tensor, 9, 1)
    coherence = ((a - b).square() + 4 * c.square()).sqrt() / (a + b)
    assert float(coherence.median()) > 0.5
