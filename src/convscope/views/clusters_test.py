from __future__ import annotations

import numpy as np
import torch

from convscope.results import Clusters
from convscope.views import figure, html
from convscope.views.clusters import _outlined, overlay_in_colour


def clusters() -> Clusters:
    generator = torch.Generator().manual_seed(0)
    spots = torch.zeros(2, 40, 40, dtype=torch.bool)
    spots[:, 4:14, 6:20] = True
    return Clusters(
        values=torch.rand(9, 5, 5, generator=generator), groups=torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1]),
        ids=torch.arange(9), eigenvalues=torch.linspace(0, 1, 6), chance=torch.linspace(0.2, 1, 6),
        means=torch.rand(2, 5, 5, generator=generator), mean_pictures=torch.rand(2, 3, 40, 40, generator=generator),
        spots=spots, examples=torch.rand(2, 4, 3, 40, 40, generator=generator),
        example_maps=torch.rand(2, 4, 40, 40, generator=generator), shown=[4, 3],
        facts=[["5 pictures"], ["4 pictures", "strongest at the same place"]], marks=[False, True], summaries=[{}],
        per_picture=False,
    )  # fmt: skip


def test_every_group_shows_its_mean_its_words_and_its_pictures() -> None:
    drawn = figure(clusters())
    labels = [axes.get_label() for axes in drawn.axes]
    assert [label for label in labels if label.startswith("mean")] == ["mean 0", "mean 1"]
    assert len([label for label in labels if label[:2] in ("0 ", "1 ")]) == 7
    texts = [text.get_text() for text in drawn.texts]
    assert "Group 2: look here" in texts
    assert "Group 1" in texts
    assert "as many groups as eigenvalues left of the line: 2" in texts
    assert "group 2: 4 pictures; strongest at the same place" in html(clusters())


def test_eigenvalues_are_drawn_beside_those_of_chance() -> None:
    axes = next(axes for axes in figure(clusters()).axes if axes.get_label() == "spectrum")
    found = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(found, [np.linspace(0.2, 1, 6), np.linspace(0, 1, 6)], rtol=1e-6)


def test_the_spot_is_outlined_and_not_filled() -> None:
    spot = np.zeros((20, 20), bool)
    spot[5:15, 5:15] = True
    drawn = _outlined(np.zeros((40, 40, 3), np.uint8), spot, (40, 40))
    assert (drawn[10, 10:30] == 255).all()
    assert (drawn[20, 20] == 0).all()
    assert (drawn[:8] == 0).all()


def test_where_a_map_says_nothing_the_photograph_keeps_its_colours() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    values = np.zeros((8, 8))
    values[3, 3] = 1
    drawn = overlay_in_colour(photo, values)
    kept = np.ones((8, 8), bool)
    kept[3, 3] = False
    np.testing.assert_array_equal(drawn[kept], photo[kept])
    assert (drawn[3, 3] != photo[3, 3]).any()
