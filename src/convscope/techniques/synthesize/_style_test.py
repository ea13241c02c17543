from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.errors import ImageError, OptionError
from convscope.network import Network
from convscope.objectives import grams
from convscope.techniques.synthesize._gram import Aim, Region, Tiled, grams_of, moments, shares_of
from convscope.techniques.synthesize._run import collected
from convscope.techniques.synthesize._style import Plan, Pyramid, levels, scaled, smoothing, weights
from convscope.techniques.synthesize._tiles import LARGEST, Cover, covering, grids_of, maps_of

LAYERS = ["0", "3", "5"]


def picture(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(*, smooth: bool = False) -> Network:
    """Strides, padding, and pooling that overlaps; without kinks for finite differences."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        act, pool = (nn.Softplus, nn.AvgPool2d) if smooth else (nn.ReLU, nn.MaxPool2d)
        module = nn.Sequential(
            nn.Conv2d(3, 5, 5, 2, 2), act(), pool(3, 2, 1), nn.Conv2d(5, 6, 3, padding=1), act(), nn.Conv2d(6, 4, 3, 2)
        )
    return Network(module.double().eval(), mean=torch.full((3,), 0.4), std=torch.full((3,), 0.3), input_size=(64, 64))


def aim(net: Network, size: tuple[int, int], *, count: int = 1, masks: bool = False, centred: bool = False) -> Aim:
    whole = Cover(LAYERS)
    content = maps_of(net, picture(count, 3, *size, seed=1), ["3"], whole)
    regions = [
        Region(
            grams_of(net, picture(1, 3, 40, 48, seed=2 + r), LAYERS, whole, centred=centred),
            weight=r + 0.5,
            shares=shares_of(picture(*size, seed=9 + r), grids_of(net, picture(1, 3, *size), LAYERS, whole))
            if masks
            else None,
        )
        for r in range(2 if masks else 1)
    ]
    return Aim(net, content, regions, {"3": 0.7}, {"0": 1.0, "3": 2.0, "5": 0.5}, centred)


# ---- Gram matrices


@pytest.mark.parametrize("shared", [False, True])
def test_gram_matrices_are_those_of_a_loop(shared: bool) -> None:
    maps = picture(2, 3, 4, 5)
    share = picture(4, 5, seed=3) if shared else torch.ones(4, 5, dtype=torch.float64)
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for n, i, j, row, column in product(range(2), range(3), range(3), range(4), range(5)):
        expected[n, i, j] += share[row, column] ** 2 * maps[n, i, row, column] * maps[n, j, row, column]
    expected /= sum(float(share[row, column]) ** 2 for row in range(4) for column in range(5))
    torch.testing.assert_close(moments(maps, share if shared else None).gram(), expected)


def test_centred_gram_matrices_are_covariances() -> None:
    maps, share = picture(1, 3, 4, 5), picture(4, 5, seed=3)
    flat = maps[0].flatten(1).numpy()
    found = moments(maps, centred=True).gram(centred=True)
    np.testing.assert_allclose(found[0], np.cov(flat, bias=True), rtol=1e-9)
    found = moments(maps, share, centred=True).gram(centred=True)
    np.testing.assert_allclose(found[0], np.cov(flat, bias=True, aweights=share.flatten().square()), rtol=1e-9)


def test_half_precision_is_summed_in_parts_that_do_not_swallow_small_numbers() -> None:
    maps = picture(2, 5, 70, 61).bfloat16()
    expected = moments(maps.float(), centred=True).gram(centred=True)
    for order in (torch.contiguous_format, torch.channels_last):
        found = moments(maps.to(memory_format=order), centred=True).gram(centred=True)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    maps = picture(1, 3, 6, 5)
    parts = moments(maps[..., :2, :], centred=True) + moments(maps[..., 2:, :], centred=True)
    torch.testing.assert_close(parts.gram(centred=True), moments(maps, centred=True).gram(centred=True))


# ---- the objective


def by_hand(net: Network, wanted: Aim, images: Tensor) -> Tensor:
    """The formula of the docstring, one position at a time."""
    found, values = {}, net.normalise(images)
    for number, part in enumerate(net.module):
        found[str(number)] = values = part(values)
    score = torch.zeros(len(images), dtype=torch.float64)
    for n in range(len(images)):
        for name, target in wanted.content.items():
            score[n] -= wanted.alpha[name] * (found[name][n] - target[n]).pow(2).sum() / target[n].pow(2).sum()
        for region, (name, weight) in product(wanted.regions, wanted.beta.items()):
            maps, total, gram, mean = found[name][n], 0.0, 0.0, 0.0
            for row, column in product(range(maps.shape[1]), range(maps.shape[2])):
                share = 1.0 if region.shares is None else float(region.shares[name][row, column])
                vector = maps[:, row, column]
                total, gram = total + share**2, gram + share**2 * torch.outer(vector, vector)
                mean = mean + share**2 * vector
            gram = gram / total - (torch.outer(mean, mean) / total**2 if wanted.centred else 0)
            target = region.grams[name][0]
            score[n] -= region.weight * weight * (gram - target).pow(2).sum() / target.pow(2).sum()
    return score


def score_of(wanted: Aim, images: Tensor) -> Tensor:
    objective = wanted.objective()
    return objective(convscope.hooks.observe(wanted.network, images, objective.layers))


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_the_objective_is_the_formula(masks: bool, centred: bool) -> None:
    net = network()
    wanted, images = aim(net, (32, 40), count=2, masks=masks, centred=centred), picture(2, 3, 32, 40, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(score_of(wanted, images), by_hand(net, wanted, images))


def test_without_content_and_regions_it_is_the_objective_of_gram_matrices() -> None:
    net, images = network(), picture(2, 3, 32, 40)
    found = grams_of(net, picture(1, 3, 40, 48, seed=2), LAYERS, Cover(LAYERS), centred=True)
    plain = grams(net, found, {"0": 1.0, "3": 2.0, "5": 0.5}, centred=True)
    wanted = Aim(net, {}, [Region(found)], {}, {"0": 1.0, "3": 2.0, "5": 0.5}, True)
    seen = convscope.hooks.observe(net, images, LAYERS)
    torch.testing.assert_close(wanted.objective()(seen), plain(seen))


@pytest.mark.parametrize("masks", [False, True])
def test_its_gradient_is_that_of_finite_differences(masks: bool) -> None:
    wanted = aim(network(smooth=True), (16, 20), masks=masks, centred=masks)
    torch.autograd.gradcheck(
        lambda x: score_of(wanted, x), picture(1, 3, 16, 20, seed=7).requires_grad_(), fast_mode=True
    )


# ---- tiles


@pytest.mark.parametrize(("height", "width"), [(150, 203), (64, 131), (97, 96)])
@pytest.mark.parametrize(("masks", "centred"), [(False, False), (True, True)])
def test_tiles_give_score_and_gradient_of_the_whole(height: int, width: int, masks: bool, centred: bool) -> None:
    net = network()
    wanted = aim(net, (height, width), count=2, masks=masks, centred=centred)
    images = picture(2, 3, height, width, seed=7).requires_grad_()
    score = score_of(wanted, images)
    slope = torch.autograd.grad(score.sum(), images)[0]
    parts = Cover.tiled(net, LAYERS, 32).parts((height, width))
    assert len(parts) > 4
    found, slopes = Tiled(wanted, parts).sweep(net, images.detach())
    torch.testing.assert_close(found, score.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slopes, slope, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["builtin", "torchvision:squeezenet1_0", "torchvision:resnet18"])
def test_targets_of_tiles_are_those_of_the_whole_on_real_networks(name: str) -> None:
    net = convscope.load_network(name, weights="default" if name == "builtin" else "random")
    layers = {"builtin": ["relu1", "relu3_2"], "torchvision:squeezenet1_0": ["features.1", "features.7"]}.get(
        name, ["relu", "layer2"]
    )
    images, tiled, whole = picture(1, 3, 280, 250).float(), Cover.tiled(net, layers, 64), Cover(layers)
    assert len(tiled.parts((280, 250))) > 6
    for make in (maps_of, lambda *given: grams_of(*given, centred=True)):
        found, expected = make(net, images, layers, tiled), make(net, images, layers, whole)
        for layer in layers:
            torch.testing.assert_close(found[layer], expected[layer], rtol=1e-4, atol=1e-4)
    assert grids_of(net, images, layers, tiled) == grids_of(net, images, layers, whole)


class Placed(nn.Module):
    """Knows where it looks."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(x.shape[-1], dtype=x.dtype)


class Mean(nn.Module):
    """Sees everything."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (Mean(), "sees the whole picture"),
        (nn.BatchNorm2d(4, track_running_stats=False), "sees the whole picture"),
        (nn.InstanceNorm2d(4), "sees the whole picture"),
        (Placed(), "depends on where"),
        (nn.Upsample(scale_factor=2), "does not stand at every so many pixels"),
        (nn.AdaptiveAvgPool2d(8), "depends on where|sees the whole picture|every so many"),
    ],
    ids=["mean", "batch norm", "instance norm", "place", "upsampled", "adaptive"],
)
def test_networks_that_are_not_local_have_no_tiles(part: nn.Module, why: str) -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), part, nn.Conv2d(4, 4, 1)).eval(), input_size=(32, 32))
    with pytest.raises(OptionError, match=why):
        Cover.tiled(net, ["2"], 64)
    Cover.tiled(net, ["0"], 64)


def test_large_pictures_go_in_tiles_where_the_network_has_them() -> None:
    local = network()
    unlocal = Network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Mean()).eval(), input_size=(32, 32))
    assert covering(local, ["0"], (LARGEST, 64), None)[0].grid is None
    cover, notes = covering(local, ["0"], (LARGEST + 1, 64), None)
    assert cover.grid is not None
    assert notes == []
    cover, notes = covering(unlocal, ["1"], (LARGEST + 1, 64), None)
    assert cover.grid is None
    assert "sees the whole picture" in notes[0]


# ---- runs


def test_sizes_double_and_none_is_too_small() -> None:
    assert levels((200, 300), 3) == [(50, 75), (100, 150), (200, 300)]
    assert levels((200, 300), 4) == [(50, 75), (100, 150), (200, 300)]
    assert levels((20, 300), 4) == [(20, 300)]
    assert levels((384, 512), None) == [(192, 256), (384, 512)]
    assert levels((300, 390), None) == [(300, 390)]
    assert levels((2048, 1024), None)[0] == (256, 128)


def plan(optimizer: str = "lbfgs", steps: int = 4) -> Plan:
    net, painting, photograph = network(), picture(1, 3, 64, 72, seed=2), picture(1, 3, 64, 80, seed=3)

    def wanted(size: tuple[int, int]) -> Aim:
        content = maps_of(net, scaled(photograph, size), ["3"], Cover(LAYERS))
        target = grams_of(net, painting, LAYERS, Cover(LAYERS), centred=False)
        return Aim(net, content, [Region(target)], {"3": 0.1}, dict.fromkeys(LAYERS, 1.0))

    return Plan(
        net, [(32, 40), (64, 80)], wanted, steps, optimizer, {"lbfgs": 1.0, "adam": 0.05}[optimizer], Cover(LAYERS),
        lambda size: smoothing(0.1, size),
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_run_that_was_stopped_ends_at_the_same_pixels(optimizer: str, stop: int) -> None:
    begin = picture(1, 3, 64, 80, seed=3)
    expected = collected(Pyramid(plan(optimizer), begin).steps())
    for step in Pyramid(plan(optimizer), begin).steps():
        if step.number == stop:
            state = step.state()
            assert step.images.shape == begin.shape
    found = collected(Pyramid(plan(optimizer), begin, state).steps())
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=0)
    torch.testing.assert_close(found.trace, expected.trace[-len(found.trace) :], rtol=0, atol=0)
    with pytest.raises(OptionError, match="another run"):
        Pyramid(plan(optimizer), begin, {**state, "level": 7})


def test_the_score_rises_at_each_size() -> None:
    trace = collected(Pyramid(plan(steps=12), picture(1, 3, 64, 80, seed=3)).steps()).trace[:, 0]
    assert trace[11] > 0.5 * trace[0]
    assert trace[23] > 0.5 * trace[12]
    assert bool((trace < 0).all())


# ---- what does not fit


@pytest.mark.parametrize("call", [lambda: shares_of(torch.zeros(8, 8), {"0": (4, 4)})])
def test_black_masks_get_a_sentence(call: Callable[[], object]) -> None:
    with pytest.raises(ImageError, match="black all over"):
        call()


def test_weights_sum_to_one_and_fit() -> None:
    assert weights([1.0, 3.0], 2, "weights", "paintings") == [0.25, 0.75]
    assert weights(None, 4, "weights", "paintings") == [0.25] * 4
    assert weights(5.0, 1, "weights", "paintings") == [1.0]
    with pytest.raises(OptionError, match="2 weights for 3 paintings"):
        weights([1.0, 3.0], 3, "weights", "paintings")
