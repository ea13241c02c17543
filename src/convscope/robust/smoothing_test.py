from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network
from convscope.robust.smoothing import certify, lower_bound, radius, votes


class Half(nn.Module):
    """Class 1 where the sum of the picture is above a bound: what noise does to it is known in closed form."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1) - self.bound
        return torch.stack([-total, total], 1)


def halved(bound: float) -> Network:
    return Network(Half(bound), name="half", input_size=(4, 4))


@pytest.mark.parametrize(
    ("hits", "draws", "alpha"), [(100, 100, 0.001), (95, 100, 0.001), (60, 100, 0.05), (1, 10, 0.1), (0, 10, 0.05)]
)
def test_the_bound_is_where_so_many_hits_would_be_rare(hits: int, draws: int, alpha: float) -> None:
    """By its definition: at the bound, so many hits or more have probability alpha."""
    bound = lower_bound(hits, draws, alpha)
    tail = sum(math.comb(draws, k) * bound**k * (1 - bound) ** (draws - k) for k in range(hits, draws + 1))
    assert tail == pytest.approx(1.0 if hits == 0 else alpha, rel=1e-6)


def test_hand_values() -> None:
    assert lower_bound(100, 100, 0.001) == pytest.approx(0.001 ** (1 / 100))  # all hits: p^n = alpha
    assert radius(0.8413447460685429, 0.25) == pytest.approx(0.25)  # one standard deviation
    assert radius(0.9772498680518208, 0.5) == pytest.approx(1.0)  # two
    assert radius(0.5, 1.0) == radius(0.3, 1.0) == 0
    # the largest radius that 100 draws at alpha = 0.001 allow: sigma * Phi^-1(0.001^0.01)
    assert radius(lower_bound(100, 100, 0.001), 1.0) == pytest.approx(1.4996, abs=2e-3)


def test_of_a_half_space_the_radius_is_below_the_true_distance() -> None:
    """The smoothed half space is the half space, whose distance is (sum - bound) / sqrt(48)."""
    image = torch.full((3, 4, 4), 0.5)
    for bound, distance in ((24 - 2, 2 / math.sqrt(48)), (24 - 0.5, 0.5 / math.sqrt(48))):
        found = certify(halved(bound), image, sigma=0.25, draws=4000, alpha=0.001)
        assert found.label == 1
        assert 0.8 * distance - 0.02 < found.radius <= distance
        share = 0.5 * (1 + math.erf(distance / 0.25 / math.sqrt(2)))
        assert float(found.votes[1]) / 4000 == pytest.approx(share, abs=0.03)


def test_where_it_is_open_it_abstains() -> None:
    found = certify(halved(24.0), torch.full((3, 4, 4), 0.5), sigma=0.25, draws=200)
    assert found.label is None
    assert found.radius == 0
    assert int(found.votes.sum()) == 200


def test_certificates_hold() -> None:
    """Pictures moved straight towards the bound by just less than the radius keep their class."""
    image, bound = torch.full((3, 4, 4), 0.5), 23.0
    found = certify(halved(bound), image, sigma=0.5, draws=1000)
    moved = image - 0.99 * found.radius / math.sqrt(48)
    counted = votes(halved(bound), moved, 0.5, 4000, torch.Generator().manual_seed(1))
    assert int(counted.argmax()) == found.label == 1


def test_the_same_seed_draws_the_same() -> None:
    image = torch.full((3, 4, 4), 0.5)
    first, again, other = (certify(halved(23.0), image, sigma=0.3, draws=300, seed=s) for s in (4, 4, 5))
    assert torch.equal(first.votes, again.votes)
    assert not torch.equal(first.votes, other.votes)
