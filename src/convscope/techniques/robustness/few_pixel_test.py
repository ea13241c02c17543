from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.errors import OptionError
from convscope.images import read_image
from convscope.network import Network
from convscope.parameterizations import FewPixels
from convscope.perturb import Variations
from convscope.techniques.robustness._attack import logits_of, on_grid
from convscope.techniques.robustness.few_pixel import decoded, few_pixel, painted

SIDE = 8
LEVELS = (0.0, 64 / 255, 128 / 255, 192 / 255, 1.0)


def toy(seed: int, *, softly: bool = False) -> Network:
    """Two classes on 8x8: a linear network, of which the best pixel is known, or a small convolutional one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
        convolved = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * SIDE * SIDE, 2))
        module = (convolved if softly else linear).eval()
    return Network(module, labels=("ant", "bee"), name="toy", input_size=(SIDE, SIDE))


def picture(seed: int) -> Tensor:
    return on_grid(torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)))


def own(network: Network, images: Tensor, label: int) -> Tensor:
    """(N,) logarithm of the label's probability, by full passes."""
    return logits_of(network, images).double().log_softmax(1)[:, label]


def every_pixel(image: Tensor) -> Tensor:
    """All pictures with one pixel in one of 125 colours."""
    colours = torch.tensor(list(itertools.product(LEVELS, repeat=3)))
    found = image.expand(SIDE * SIDE, len(colours), 3, SIDE, SIDE).clone()
    for place in range(SIDE * SIDE):
        found[place, :, :, place // SIDE, place % SIDE] = colours
    return found.flatten(0, 1)


def balanced(network: Network, image: Tensor, margin: float) -> int:
    """The label, with the network's bias moved so that the class leads by ``margin``; the label."""
    logits = logits_of(network, image)[0]
    label = int(logits.argmax())
    with torch.no_grad():
        network.module[-1].bias[label] -= float(logits[label] - logits[1 - label]) - margin
    return label


# ---- against brute force


@pytest.mark.parametrize(("seed", "softly"), [(1, False), (2, True)])
def test_what_no_pixel_can_do_evolution_comes_as_near_to_as_brute_force(seed: int, softly: bool) -> None:
    """Out of reach, so that the search goes on to its end: it must find the best place and as good a colour."""
    network, image = toy(seed, softly=softly), picture(seed)
    label = balanced(network, image, 4.0)
    everything = own(network, every_pixel(image), label)
    place = int(everything.argmin()) // len(LEVELS) ** 3
    result = few_pixel(network, image, generations=50, candidates=100, seed=seed)
    assert result.success == [False]
    found = float(own(network, result.values, label)[0])
    start = float(own(network, image, label)[0])
    assert found <= start - 0.95 * (start - float(everything.min()))
    if not softly:  # corners of the colour cube are best, so brute force is exact
        assert result.summaries[0]["places"] == [[place // SIDE, place % SIDE]]
        assert found >= float(everything.min()) - 1e-7


@pytest.mark.parametrize("seed", [1, 2])
def test_it_fools_exactly_where_brute_force_says_that_one_pixel_can(seed: int) -> None:
    network, image = toy(seed), picture(seed)
    label = balanced(network, image, 30.0)
    logits = logits_of(network, every_pixel(image))
    reach = float((logits[:, 1 - label] - logits[:, label]).max()) + 30.0
    for margin, expected in ((0.95 * reach, True), (1.01 * reach, False)):
        assert balanced(network, image, margin) == label
        result = few_pixel(network, image, generations=50, candidates=100, seed=seed)
        assert result.success == [expected]
        assert (int(logits_of(network, result.values).argmax()) != label) is expected


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_the_gradient_finds_the_best_pixels_of_a_linear_network(count: int) -> None:
    """Each pixel adds what it adds, so the best set holds those that add the most, each at a corner of the cube.

    A long step ranks pixels by what they add but for a term that its length makes small: near ties may change places.
    """
    network, image = toy(4), picture(4)
    label = balanced(network, image, 50.0)
    weight = network.module[1].weight.detach()
    slope = (weight[1 - label] - weight[label]).view(3, SIDE, SIDE)
    gains = torch.where(slope > 0, slope * (1 - image[0]), -slope * image[0]).sum(0)
    best = gains.flatten().topk(count).indices
    result = few_pixel(network, image, pixels=count, method="gradient", steps=30)
    changed = (result.values[0] != image[0]).any(0)
    assert torch.equal(result.values[0][:, changed], (slope[:, changed] > 0).float())
    assert float(gains[changed].sum()) >= 0.99 * float(gains.flatten()[best].sum())
    assert result.summaries[0]["l0"] == int(changed.sum()) == count


def test_the_projection_against_every_choice_of_pixels() -> None:
    """The nearest of all pictures in [0, 1] of which two pixels differ."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(3, 3, 2, 3, generator=generator)
    few = FewPixels(centre, 2)
    wanted = centre + 1.5 * torch.randn(centre.shape, generator=generator)
    with torch.no_grad():
        few.pixels.copy_(wanted)
    few.project()
    for number in range(3):
        tried = []
        for places in itertools.combinations(range(6), 2):
            made = centre[number].flatten(1).clone()
            made[:, list(places)] = wanted[number].flatten(1)[:, list(places)].clamp(0, 1)
            tried.append(made.view(3, 2, 3))
        nearest = min(tried, key=lambda made: float((made - wanted[number]).square().sum()))
        torch.testing.assert_close(few.pixels[number].detach(), nearest)


# ---- what is asked and what is said


@pytest.mark.parametrize("pixels", [1, 3, 5])
def test_every_candidate_is_asked_as_a_full_pass_would(pixels: int) -> None:
    network, image = toy(5, softly=True), picture(5)[0]
    numbers = np.random.default_rng(0).uniform(0, 1, (40, pixels, 5)) * (SIDE, SIDE, 256, 256, 256)
    boxes, colours = decoded(numbers.reshape(40, -1).T, pixels)
    found = Variations(network).of(image, boxes, colours, each=pixels)
    pictures = []
    for candidate in np.floor(numbers).astype(int):
        made = image.clone()
        for row, column, *colour in candidate:
            made[:, row, column] = torch.tensor(colour) / 255
        pictures.append(made)
    expected = logits_of(network, torch.stack(pictures))
    torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-5)
    part = slice(7 * pixels, 8 * pixels)
    assert torch.equal(painted(image, boxes[part], colours[part]), pictures[7])


@pytest.mark.parametrize(("method", "pixels"), [("evolution", 1), ("evolution", 4), ("gradient", 6)])
def test_pixels_are_counted_and_success_is_seen_on_the_saved_file(method: Any, pixels: int, tmp_path: Path) -> None:
    network, images = toy(6, softly=True), torch.cat([picture(6), picture(7)])
    label = balanced(network, images[:1], 0.01)
    result = convscope.few_pixel(
        network, images, label=[label, label], pixels=pixels, method=method, generations=8, candidates=40
    )
    for path, summary, original in zip(
        result.write_pictures(tmp_path / "few.png"), result.summaries, result.originals, strict=True
    ):
        saved = read_image(path)
        differ = (saved != original).any(0)
        assert int(differ.sum()) == summary["l0"] <= pixels
        assert differ.nonzero().tolist() == summary["places"]
        assert (int(logits_of(network, saved[None]).argmax()) != label) is summary["success"]
    assert result.success[0]
    assert result.save(tmp_path / "sheet.png").stat().st_size > 10_000


def test_the_target_is_what_the_picture_is_taken_for() -> None:
    network, image = toy(8, softly=True), picture(8)
    label = balanced(network, image, 0.02)
    result = few_pixel(network, image, target=1 - label, pixels=3, generations=20, candidates=40)
    assert result.success == [True]
    assert result.summaries[0]["adversarial"]["index"] == 1 - label
    assert result.summaries[0]["candidates"] <= 21 * 40


def test_a_picture_that_is_mistaken_already_is_left_alone() -> None:
    network, image = toy(9), picture(9)
    label = balanced(network, image, 1.0)
    result = few_pixel(network, image, label=1 - label)
    assert result.summaries[0]["l0"] == result.summaries[0]["candidates"] == 0
    assert any("before any attack" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (
            {"pixels": 6},
            "evolution is lost among the places of 6 pixels; give at most 5, or choose the method gradient",
        ),
        ({"pixels": 65, "method": "gradient"}, "a picture of 8x8 has 64 pixels; give at most as many, not 65"),
        ({"candidates": 4}, "candidates should be greater than or equal to 5"),
    ],
)
def test_bad_input_gets_a_remedy(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        few_pixel(toy(1), picture(1), **options)
