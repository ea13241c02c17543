from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.network import Network
from convscope.techniques.synthesize.facets import SCHEDULE, clusters, facets, placed, shared_out

SIZE = (20, 20)


class Colourful(nn.Module):
    """Fires for red and for blue pictures alike, through two units of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.fc = nn.ReLU(), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = x.mean((2, 3)).T
        return self.fc(self.relu(torch.stack([red - green - blue, blue - green - red], 1) * 10))


def network() -> Network:
    return Network(Colourful().eval(), labels=("colourful", "grey"), input_size=SIZE, name="colourful")


def photographs(count: int) -> Tensor:
    """Red ones, then half as many blue ones, with a little noise."""
    images = 0.1 * torch.rand(count + count // 2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    images[:count, 0] += 0.7
    images[count:, 2] += 0.7
    return images


@pytest.mark.parametrize("count", [4, 16])  # without and with t-SNE
def test_each_kind_of_photograph_is_a_facet_of_its_own(count: int) -> None:
    result = facets(network(), photographs(count), facets=2, steps=8)
    (summary,) = result.summaries
    assert summary["target"]["label"] == "colourful"
    red, blue = summary["facets"]
    assert sorted(red["photographs"]) == list(range(count))
    assert sorted(blue["photographs"]) == list(range(count, count + count // 2))
    colours = result.values.mean((2, 3))
    assert colours.argmax(1).tolist() == [0, 2]
    assert result.tiles.shape[:2] == (2, min(6, count))


@pytest.mark.parametrize("schedule", ["clear", "published"])
def test_the_ascent_raises_the_score_of_the_mean_photographs(schedule: Any) -> None:
    net, images = network(), photographs(4)
    result = facets(net, images, facets=2, steps=20, schedule=schedule)
    before = net(torch.stack([images[:4].mean(0), images[4:].mean(0)]))[:, 0]
    assert bool((net(result.values)[:, 0] > before).all())


def test_points_are_principal_components_up_to_sign() -> None:
    from sklearn.decomposition import PCA

    codes = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    expected = PCA(5).fit_transform(codes.double().numpy())
    np.testing.assert_allclose(np.abs(placed(codes, 0)), np.abs(expected), atol=1e-6)


def test_clusters_are_listed_from_their_centre_outwards() -> None:
    points = np.array([[0.0], [0.1], [10.0], [10.4], [10.1]])
    assert clusters(points, 2, 0) == [[4, 2, 3], [0, 1]] or clusters(points, 2, 0)[0][0] == 4
    assert clusters(np.zeros((1, 2)), 1, 0) == [[0]]


def test_the_published_schedule_and_its_shares() -> None:
    """The authors' program for mean images: iterations, step sizes and denoising weights of the four octaves."""
    assert [o.steps for o in SCHEDULE] == [190, 150, 20, 10]
    assert [o.rate for o in SCHEDULE] == [(1, 2), (1, 1), (2, 2), (2, 2)]
    assert [o.denoise for o in SCHEDULE] == [(0.4, 0.4), (0.01, 2), (0.1, 2), (0.4, 2)]
    assert [o.scale for o in SCHEDULE] == [1, 1.2, 1, 1]
    assert [o.steps for o in shared_out(SCHEDULE, 370)] == [190, 150, 20, 10]
    assert [o.steps for o in shared_out(SCHEDULE, 37)] == [19, 15, 2, 1]
    assert sum(o.steps for o in shared_out(SCHEDULE, 4)) == 6  # at least one each


def test_too_few_photographs_are_said() -> None:
    with pytest.raises(OptionError, match="4 facets need as many photographs"):
        facets(network(), photographs(2))


def test_a_class_given_as_a_list_is_that_class_and_two_are_too_many() -> None:
    found = facets(network(), photographs(4), target=["grey"], facets=2, steps=4)
    assert found.summaries[0]["target"]["label"] == "grey"
    with pytest.raises(OptionError, match="2 targets: colourful, grey; give one"):
        facets(network(), photographs(4), target=["grey", 0, 0, 0, 0, 1], facets=2, steps=4)
