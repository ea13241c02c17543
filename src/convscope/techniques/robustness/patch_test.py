from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import convscope
from convscope.errors import ConvscopeError, OptionError
from convscope.network import Network
from convscope.techniques.robustness._pasting import Pasted, Place, Placing, covered, pasted
from convscope.techniques.robustness.patch import patch

LABELS = ("red", "green", "blue")


class Means(nn.Module):
    def __init__(self, scale: float = 40.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((2, 3))


NETWORK = Network(Means(), labels=LABELS, name="means", input_size=(24, 30))


def pictures(count: int = 10, size: tuple[int, int] = (24, 30)) -> Tensor:
    """Noise, a little redder than blue."""
    noise = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))
    return (0.3 + 0.3 * noise + torch.tensor([0.15, 0.0, 0.0]).view(3, 1, 1)).clamp(0, 1)


# ---- pasting


def test_a_square_on_whole_pixels_is_an_assignment() -> None:
    piece, images = torch.rand(3, 6, 6), pictures(2)
    found = pasted(piece, images, [Place(10, 12, 6, 0.0), Place(3, 27, 6, 0.0)], "square")
    expected = images.clone()
    expected[0, :, 7:13, 9:15] = piece
    expected[1, :, 0:6, 24:30] = piece
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_those_of_the_array(quarter: int) -> None:
    piece, images = torch.rand(3, 8, 8), pictures(1)
    found = pasted(piece, images, [Place(12, 15, 8, quarter * math.pi / 2)], "square")
    torch.testing.assert_close(found[0, :, 8:16, 11:19], torch.rot90(piece, -quarter, (1, 2)), rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0.01, 0.5), form=st.sampled_from(["circle", "square"]), degrees=st.floats(0, 180),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_all_of_a_patch_lies_in_the_picture_and_covers_its_share(
    share: float, form: Any, degrees: float, seed: int
) -> None:
    placing = Placing((40, 56), form, degrees)
    if share > placing.most:
        with pytest.raises(OptionError, match="is larger than the picture"):
            placing.check(share)
        return
    place = placing.drawn(share, torch.Generator().manual_seed(seed))
    shown = pasted(torch.ones(3, 4, 4), torch.zeros(1, 3, 40, 56), [place], form)[0, 0]
    assert float(shown.mean()) == pytest.approx(share, abs=0.012)


def test_the_gradient_reaches_the_patch_and_nothing_outside_a_disc() -> None:
    laid = Pasted(
        torch.full((3, 16, 16), 0.5), pictures(), Placing((24, 30), "circle", 30), shares=(0.1, 0.3), batch=4, seed=0
    )
    (slope,) = torch.autograd.grad(laid.images().sum(), laid.parameters())
    assert bool((slope[0, :, covered("circle", 16)] > 0).float().mean() > 0.95)
    assert float(slope[0, :, 0, 0].abs().max()) == 0
    again = Pasted(
        torch.full((3, 16, 16), 0.5), pictures(), Placing((24, 30), "circle", 30), shares=(0.1, 0.3), batch=4, seed=0
    )
    first, second = again.images(), again.images()
    assert not torch.equal(first, second)


# ---- the patch


def test_where_the_best_patch_is_known_it_is_found_and_its_success_is_right() -> None:
    """Means of colours: nothing pulls towards blue as pure blue does, and one can say where that is enough."""
    images = pictures(20)
    result = patch(NETWORK, images, target="blue", shares=[0.1, 0.2, 0.3], steps=60, batch=4, form="square", rotation=0)
    inside = result.values[0][:, result.covered]
    assert float((inside - torch.tensor([0.0, 0.0, 1.0])[:, None]).abs().max()) < 0.02
    assert result.summaries[0]["held_out_pictures"] == 8
    for share, rate, control in zip(result.shares, result.rates, result.controls, strict=True):
        # the mean of a picture whose share is blue is (1 - share) times its own, and share more of blue
        gap = 0.15 * (1 - share)
        sure = share > 1.3 * gap
        assert float(rate[0]) == (1.0 if sure else 0.0 if share < 0.7 * gap else pytest.approx(float(rate[0])))
        assert float(control[0]) == 0.0
        assert float(rate[1]) <= float(rate[0]) <= float(rate[2])


def test_pictures_that_are_the_target_anyway_do_not_count() -> None:
    images = pictures(10)
    images[:7, 2] = 1.0
    result = patch(NETWORK, images, target=2, shares=0.1, steps=1, batch=2)
    already = next(note for note in result.notes if "anyway" in note)
    number = int(already.split()[0])
    assert number + result.summaries[0]["held_out_pictures"] == 4
    alone = patch(NETWORK, images[:1], target=2, shares=0.1, steps=1, batch=2)
    assert math.isnan(float(alone.rates[0, 0]))
    assert any("no picture is held out" in note for note in alone.notes)


def test_held_out_pictures_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are all their own colour: what is trained on and what is judged on have none in common."""
    images = torch.linspace(0.3, 0.6, 10).view(10, 1, 1, 1).expand(10, 3, 24, 30).clone()
    from convscope.techniques.robustness import patch as module

    seen: dict[str, set[int]] = {}
    trained, judged = module._trained, module._judged  # type: ignore[attr-defined]

    def colours(shown: Tensor) -> set[int]:
        return {round(float(each[0, 0, 0]) * 255) for each in shown}

    def watched_training(job: Any, start: Tensor, shown: Tensor, *rest: Any) -> Tensor:
        seen["trained"] = colours(shown)
        return trained(job, start, shown, *rest)

    def watched_judging(job: Any, patches: Any, shown: Tensor, *rest: Any) -> Any:
        seen["judged"] = colours(shown)
        return judged(job, patches, shown, *rest)

    monkeypatch.setattr(module, "_trained", watched_training)
    monkeypatch.setattr(module, "_judged", watched_judging)
    patch(NETWORK, images, target="blue", shares=0.1, steps=1, held_out=0.3)
    assert (len(seen["trained"]), len(seen["judged"])) == (7, 3)
    assert not seen["trained"] & seen["judged"]


@pytest.mark.parametrize(("suffix", "form"), [("png", "circle"), ("pdf", "square")])
def test_the_print_has_its_size(suffix: str, form: Any, tmp_path: Path) -> None:
    path = tmp_path / f"patch.{suffix}"
    result = convscope.patch(
        NETWORK, pictures(4), target="blue", shares=0.2, steps=1, form=form, save=str(path), size_cm=7.5
    )
    if suffix == "pdf":
        box = re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+) ([0-9.]+)", path.read_bytes())
        assert box is not None
        assert [float(side) / 72 * 2.54 for side in box.groups()] == pytest.approx([7.5, 7.5], abs=0.02)
    else:
        with Image.open(path) as printed:
            width = printed.width / printed.info["dpi"][0] * 2.54
            assert (width, printed.width >= 7.5 / 2.54 * 300) == (pytest.approx(7.5, abs=0.01), True)
            assert printed.getpixel((0, 0)) == (255, 255, 255)
            middle = printed.getpixel((printed.width // 2, printed.height // 2))
            at = result.values.shape[-1] * (printed.width // 2) // printed.width
            assert list(middle) == (result.values[0, :, at, at] * 255).round().int().tolist()
    assert result.save(tmp_path / "sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "patch needs a target: --target CLASS"),
        ({"target": "violet"}, "means knows no 'violet'"),
        (
            {"target": 2, "shares": 0.9},
            r"a circle over 90% of a picture of 24x30 is larger than the picture; give at most 0.62",
        ),
        ({"target": 2, "shares": 0.6, "form": "square"}, "turned by up to 20 degrees, is larger than the picture"),
        ({"target": 2, "shares": 0.1, "steps": 1, "save": "patch.jpg"}, "printed from .png or .pdf"),
    ],
)
def test_bad_input_gets_a_remedy(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConvscopeError, match=remedy):
        patch(NETWORK, pictures(4), **options)
