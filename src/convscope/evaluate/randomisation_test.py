from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.evaluate.conftest import Fixed
from convscope.evaluate.methods import methods_of
from convscope.evaluate.randomisation import (
    Alike,
    alike,
    cascade,
    checked,
    draw,
    likeness,
    run,
    spearman,
    weighty,
    word,
)  # fmt: skip
from convscope.evaluate.sample import Sample, sample
from convscope.images import read_image
from convscope.network import Network
from convscope.zoo import load_network


class Scaled(nn.Module):
    """Has a parameter of its own and no way of its own to draw it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(3 + 0.5 * torch.randn(4000))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.mean()


@pytest.fixture
def chain() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), Scaled(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )  # fmt: skip
    return Network(module.eval(), name="chain", input_size=(16, 16))


def test_rank_correlation_against_scipy() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        one, other = random.integers(0, 6, (9, 11)), random.integers(0, 6, (9, 11))  # with many equal numbers
        assert spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-12)
        assert spearman(one, one**3) == pytest.approx(1.0)
        assert spearman(one, -one) == pytest.approx(-1.0)
    assert math.isnan(spearman(one, np.ones((9, 11))))


def test_likeness_of_equal_negated_and_constant_maps() -> None:
    heat = torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(0))
    same, negated, constant = alike(heat, 2 * heat)[0], alike(heat, -heat)[0], alike(heat, torch.zeros(2, 12, 10))[0]
    assert (same.signed, same.size, same.ssim) == pytest.approx((1, 1, 1))
    assert (negated.signed, negated.size) == pytest.approx((-1, 1))
    assert math.isnan(constant.signed)
    assert math.isnan(constant.ssim)


def test_the_larger_of_both_correlations_counts_over_pictures_and_stages() -> None:
    nan = math.nan
    stages = [
        [Alike(0.9, 0.1, 0), Alike(-0.1, 0.3, 0), Alike(nan, nan, 0)],
        [Alike(0.5, 0.3, 0), Alike(nan, nan, 0), Alike(nan, nan, 0)],
    ]
    found = likeness(stages)
    assert found[:2] == pytest.approx([0.7, -0.1])  # signed: mean 0.3 against 0.25 of sizes
    assert math.isnan(found[2])
    assert word([0.3, 0.1, nan]) == "passes"
    assert word([0.7, 0.5]) == word([-0.9]) == "fails"
    assert word([0.7, 0.2]) == word([-0.7, -0.2]) == "unclear"
    assert word([nan]) == word([]) == "–"


def test_layers_are_drawn_from_the_last_to_the_first_and_the_network_stays(chain: Network) -> None:
    assert weighty(chain) == ["8", "5", "3", "1", "0"]
    before = {name: tensor.clone() for name, tensor in chain.module.state_dict().items()}
    state = torch.get_rng_state()
    stages = list(cascade(chain, stages=5, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert [number for number, _ in stages] == [1, 2, 3, 4, 5]
    for number, network in stages:
        now = network.module.state_dict()
        fresh = {name.split(".")[0] for name in before if not torch.equal(now[name], before[name])}
        assert fresh <= set(weighty(chain)[:number])
        assert fresh >= set(weighty(chain)[:number]) - {"1"}  # a fresh batch norm may be what this one was
    assert all(torch.equal(tensor, before[name]) for name, tensor in chain.module.state_dict().items())
    again = dict(cascade(chain, stages=5, seed=3))[5].module.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in stages[-1][1].module.state_dict().items())
    for (_, one), (_, two) in pairwise(stages):
        assert torch.equal(one.module[8].weight, two.module[8].weight)  # drawn once, kept on


def test_fewer_layers_than_stages_and_weights_that_are_shared(chain: Network, network: Network) -> None:
    assert [number for number, _ in cascade(network, stages=5)] == [1, 2]
    half = next(cascade(chain, stages=2))[1].module
    assert half[0].weight is chain.module[0].weight  # type: ignore[index]
    assert half[8].weight is not chain.module[8].weight  # type: ignore[index]


def test_weights_that_two_layers_share_are_not_drawn_in_the_network_itself() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module[2].weight = module[0].weight
    before = module[0].weight.detach().clone()
    tied = Network(module, name="tied", input_size=(8, 8))
    list(cascade(tied, stages=2))
    assert torch.equal(module[0].weight, before)


def test_what_a_layer_draws_inside_itself_is_not_drawn_in_the_network_itself() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(3, 1, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(2).transpose(1, 2)
            return self.inner(rows, rows, rows)[0].mean(1)

    module = Attends().eval()
    with torch.no_grad():
        module.inner.out_proj.bias.fill_(7.0)  # which the attention's own drawing sets to zero
    list(cascade(Network(module, name="attends", input_size=(4, 4)), stages=5))
    assert module.inner.out_proj.bias.tolist() == [7.0] * 3


def test_without_a_way_of_its_own_a_normal_of_the_same_mean_and_spread() -> None:
    part = Scaled()
    before = part.weight.detach().clone()
    draw(part)
    assert not torch.equal(part.weight, before)
    assert part.weight.mean().item() == pytest.approx(3, abs=0.05)
    assert part.weight.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_network_without_weights_is_told() -> None:
    bare = Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="bare", input_size=(8, 8))
    with pytest.raises(NetworkError, match="bare has no weights"):
        next(cascade(bare))


def test_a_map_that_looks_at_the_picture_alone_fails(given: Sample) -> None:
    edges = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(0))
    fixed = Fixed(edges)
    found = run([fixed], given, {"fixed": edges})["fixed"]
    assert found.values["randomised"] == pytest.approx([1.0] * 8)
    assert [stage["random_layers"] for stage in found.more["stages"]] == [1, 2]
    verdict = checked([network for _, network in cascade(given.network)], fixed, given.images, given.targets, edges)
    assert verdict.word == "fails"
    assert (verdict.likeness, verdict.pictures) == (pytest.approx(1.0), 8)


@pytest.mark.slow
def test_the_verdicts_of_the_literature_on_the_built_in_network() -> None:
    """Adebayo et al. 2018, table of section 5: gradient and Grad-CAM pass, the guided kinds fail."""
    from skimage import data

    network = load_network("builtin")
    photographs = [data.chelsea(), data.coffee(), data.rocket(), data.astronaut()]
    given = sample(network, torch.stack([network.prepare(read_image(photograph)) for photograph in photographs]))
    methods = methods_of("saliency, gradcam, saliency rule=guided, guided-gradcam")
    maps = {m.name: m(network, given.images, given.targets) for m in methods}
    values = {name: scores.values["randomised"] for name, scores in run(methods, given, maps).items()}
    found = {name: word(numbers) for name, numbers in values.items()}
    assert found == {
        "saliency": "passes", "gradcam": "passes", "saliency rule=guided": "fails", "guided-gradcam": "fails",
    }  # fmt: skip
    stages = [network for _, network in cascade(network)]
    for method in methods:
        verdict = checked(stages, method, given.images, given.targets, maps[method.name])
        assert verdict.word == found[method.name]
        assert verdict.likeness == pytest.approx(abs(np.mean(values[method.name])))
