from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import coffee
from torch import Tensor
from torch.testing import assert_close

import convscope
from convscope.errors import NetworkError, OptionError
from convscope.feedforward.files import find, read_stylist, save_stylist, shipped
from convscope.feedforward.painting import Brush
from convscope.feedforward.stylist import Shape, Stylist
from convscope.images import resize
from convscope.zoo.options import seeded


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("style") / "toy.safetensors"
    with seeded(2):
        made = Stylist(Shape(2, (4, 6), 1, 4), ["one", "two"]).requires_grad_(False)
    made.palette[1] = -made.palette[0]
    save_stylist(path, made, {})
    return str(path)


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, also where the machine is fast in bfloat16."""
    monkeypatch.setattr(Brush, "precision", "float32")


@pytest.mark.parametrize("size", [(32, 40), (41, 19)])
def test_it_is_the_stylists_pass_mixed_with_the_photograph(toy: str, size: tuple[int, int]) -> None:
    images = drawn(2, 3, *size)
    result = convscope.stylize(images, style=f"{toy}:two", strength=0.25, scale=1)
    expected = read_stylist(toy)(images, 1)
    assert_close(result.values, 0.75 * images + 0.25 * expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(convscope.stylize(images, style=f"{toy}:two", strength=0.0).values, images)
    assert result.summary[0] == {
        "style": "two", "weights": "toy.safetensors", "strength": 0.25, "scale": 1, "precision": "float32"
    }  # fmt: skip
    assert result.titles == ["two", "two"]


def test_size_bounds_the_longer_side(toy: str) -> None:
    image = drawn(1, 3, 30, 60)
    result = convscope.stylize(image, style=f"{toy}:one", size=40, scale=1)
    assert_close(result.values, read_stylist(toy)(resize(image, (20, 40)), 0), rtol=1e-5, atol=1e-6)


def test_small_pictures_are_painted_larger_and_made_smaller_again(toy: str) -> None:
    image, name = drawn(1, 3, 60, 80), f"{toy}:one"
    twice = resize(read_stylist(toy)(resize(image, (60, 80), mode="bicubic"), 0), (30, 40))  # of the given pixels
    assert_close(convscope.stylize(image, style=name, size=40).values, twice, rtol=1e-5, atol=1e-6)
    for width, scale in ((512, 1.0), (320, 1.6)):
        found = convscope.stylize(drawn(1, 3, 16, width), style=name)
        assert found.summary["scale"] == scale
        assert found.values.shape == (1, 3, 16, width)
    assert convscope.stylize(drawn(1, 3, 16, 512), style=name, scale=3).summary["scale"] == 3


def test_bfloat16_moves_no_pixel_far(monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = resize(torch.from_numpy(coffee()).permute(2, 0, 1)[None].float() / 255, (96, 144))
    exact = convscope.stylize(photograph).values
    monkeypatch.setattr(Brush, "precision", "bfloat16")
    rough = convscope.stylize(photograph)
    assert rough.summary["precision"] == "bfloat16"
    assert float((rough.values - exact).abs().mean()) < 1 / 255
    assert float((rough.values - exact).abs().max()) < 12 / 255


def test_unknown_styles_and_other_files_get_a_sentence(toy: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="did you mean 'starry-night'"):
        convscope.stylize(drawn(1, 3, 32, 32), style="stary-night")
    with pytest.raises(OptionError, match="several styles; give one of"):
        convscope.stylize(drawn(1, 3, 32, 32), style=toy)
    (tmp_path / "words.safetensors").write_text("no style")
    with pytest.raises(NetworkError, match="no whole safetensors"):
        convscope.stylize(drawn(1, 3, 32, 32), style=tmp_path / "words.safetensors")


def test_the_shipped_styles_change_a_photograph_and_leave_no_checkerboard_and_no_frame() -> None:
    """Neither at the strides of the networks, 2 and 4 pixels, nor within 4 pixels of the border."""
    import skimage.data

    photograph = torch.from_numpy(np.ascontiguousarray(skimage.data.coffee())).permute(2, 0, 1)[None] / 255
    photograph = resize(photograph, (160, 240))
    for name in shipped():
        values = convscope.stylize(photograph, style=name, scale=1).values
        assert float((values - photograph).abs().mean()) > 0.05
        rough = (values[..., 1:] - values[..., :-1]).abs().mean((0, 1, 2))
        phases = torch.stack([rough[8 + phase : 228 + phase : 4].mean() for phase in range(4)])
        assert float(phases.max() / phases.min()) < 1.6
        inside = values[..., 8:-8, 8:-8].mean((2, 3))
        edges = torch.cat([values[..., :4, :].flatten(2), values[..., -4:, :].flatten(2)], 2).mean(2)
        assert float((edges - inside).abs().max()) < 0.25


def test_find_names_the_shipped_file() -> None:
    assert [find(name)[0].stem for name in shipped()] == shipped()
