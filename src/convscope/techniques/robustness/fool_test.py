from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convscope.errors import OptionError
from convscope.images import read_image
from convscope.network import Network
from convscope.techniques.robustness.fool import fool


def step_by_step(network: Network, image: Tensor, label: int, epsilon: int, steps: int, confidence: float) -> Tensor:
    """One picture, one level a step, in whole levels; the first that is sure enough, or the surest."""
    levels = original = (image * 255).round()
    best, sure = original, -1.0
    for _ in range(steps):
        here = (levels / 255).requires_grad_()
        shares = network(here[None])[0].softmax(0)
        (slope,) = torch.autograd.grad(-shares[label].log(), here)
        levels = (levels + slope.sign()).clamp(0, 255).minimum(original + epsilon).maximum(original - epsilon)
        after = network((levels / 255)[None])[0].softmax(0).detach()
        found = float(after.max()) if int(after.argmax()) != label else -1.0
        if found > sure:
            best, sure = levels, found
        if sure >= confidence:
            break
    return best / 255


def test_it_ends_with_the_first_file_that_the_network_is_sure_of(
    victim: Network, images: Tensor, classes: Tensor
) -> None:
    found = fool(victim, images, epsilon="40/255", confidence=0.5, steps=40)
    for number in range(2):
        slow = step_by_step(victim, images[number], int(classes[number]), 40, 40, 0.5)
        torch.testing.assert_close(found.values[number].double(), slow, rtol=0, atol=1e-6)
        assert found.success[number]


def test_more_confidence_takes_more_change(victim: Network, images: Tensor) -> None:
    first, sure = (fool(victim, images, epsilon=0.5, confidence=c, steps=60) for c in (0.0, 0.8))
    for one, other in zip(first.summaries, sure.summaries, strict=True):
        assert one["success"]
        assert other["adversarial"]["probability"] >= one["adversarial"]["probability"]
        assert other["l2"] >= one["l2"]
    assert sum(each["adversarial"]["probability"] >= 0.8 for each in sure.summaries) >= 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_success_is_what_the_file_says(victim: Network, images: Tensor, norm: Any, tmp_path: Path) -> None:
    found = fool(victim, images, target="bee", label=[0] * 5, epsilon={"linf": 0.3, "l2": 3.0}[norm], norm=norm)
    assert any(found.success)
    for path, success in zip(found.write_pictures(tmp_path / "a.png"), found.success, strict=True):
        with torch.no_grad():
            assert (int(victim(read_image(path)[None].double()).argmax()) == 1) == success


@pytest.mark.parametrize("start", [None, "grey", "noise"])
def test_it_begins_anywhere(victim: Network, start: Any) -> None:
    found = fool(victim, start=start, epsilon=0.2, steps=3)
    assert found.originals.shape == (1, 3, 8, 9)
    assert (len(found.originals.unique()) > 100) == (start == "noise")
    if start == "noise":
        assert not torch.equal(found.originals, fool(victim, start=start, steps=1, seed=1).originals)


def test_a_photograph_and_a_start_are_too_much(victim: Network, images: Tensor) -> None:
    with pytest.raises(OptionError, match="give a photograph, or start 'grey', not both"):
        fool(victim, images, start="grey")


def test_a_target_that_it_is_already_is_refused(victim: Network, images: Tensor, classes: Tensor) -> None:
    with pytest.raises(OptionError, match="already taken for the target"):
        fool(victim, images[:1], target=int(classes[0]))


def test_a_photograph_of_its_own_size_fools_as_photographs_are_read(victim: Network, tmp_path: Path) -> None:
    cropped = replace(victim, crop=0.8)
    photograph = torch.rand(1, 3, 20, 17, generator=torch.Generator().manual_seed(5))
    found = fool(cropped, photograph, own_size=True, epsilon=0.4, steps=40)
    (path,) = found.write_pictures(tmp_path / "a.png")
    assert found.values.shape == (1, 3, 20, 17)
    assert found.success == [True]
    for picture, when in ((photograph[0], "clean"), (read_image(path), "adversarial")):
        with torch.no_grad():
            seen = cropped(cropped.prepare(((picture * 255).round() / 255).double())[None]).softmax(1)[0]
        assert found.summary[when]["index"] == int(seen.argmax())
        assert found.summary[when]["probability"] == pytest.approx(float(seen.max()), abs=1e-6)
    assert not found.notes


def test_a_network_that_crops_is_said_to(victim: Network, images: Tensor) -> None:
    assert "ask it with --crop 1" in fool(replace(victim, crop=0.8), images[:1], steps=1).notes[0]
