"""patches: where they are cut against a network and pictures whose answers are known, gradients against autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.backward import DECONVNET, GUIDED, gradient
from convscope.conftest import colour_pictures
from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.images import write_image
from convscope.index import Index
from convscope.network import Network
from convscope.scanning import scan
from convscope.techniques.dataset.patches import patches, photograph, window_around


class Bright(nn.Module):
    """One channel that is the sum of a 4 x 4 square, every 4 pixels, behind a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4)
        self.relu = nn.ReLU()
        self.pool, self.fc = nn.AdaptiveMaxPool2d(1), nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0] = 1.0
            self.conv.bias.copy_(torch.tensor([-1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.relu(self.conv(x))).flatten(1))


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Black pictures of 64 x 96 with one white square of 8 x 8, of which the network sees the middle at half the size.

    At half the size a picture is 32 x 48, of which columns 8 to 40 are kept: the square at (top, left) of the
    original is the unit (top / 8, left / 8 - 2).
    """
    folder = tmp_path_factory.mktemp("bright")
    for number, (top, left) in enumerate([(16, 40), (0, 16), (56, 72)]):
        picture = torch.zeros(3, 64, 96)
        picture[:, top : top + 8, left : left + 8] = 1 - 0.1 * number
        write_image(picture, folder / f"{number}.png")
    network = Network(Bright().eval(), input_size=(32, 32), name="bright")
    return scan(network, folder, folder.parent / "bright.index", layers=["relu"], code_layers=["relu"])


def test_patches_are_cut_where_the_squares_are(bright: Index) -> None:
    found = patches(bright, layer="relu", unit=0, context=0, count=3)
    told = found.summary["units"][0]["patches"]
    assert [Path(each["path"]).name for each in told] == ["0.png", "1.png", "2.png"]
    assert [(each["row"], each["column"]) for each in told] == [(2, 3), (0, 0), (7, 7)]
    assert [each["place"] for each in told] == [[16, 40, 24, 48], [0, 16, 8, 24], [56, 72, 64, 80]]
    assert [each["seen"] for each in told] == [[8, 12, 12, 16], [0, 0, 4, 4], [28, 28, 32, 32]]
    # Scaling to half a size lets an eighth of the border's pixels go, but not where the picture ends.
    expected = [3 * 3.75**2 - 1, 3 * 3.875 * 3.75 * 230 / 255 - 1, 3 * 3.875 * 3.75 * 204 / 255 - 1]
    assert found.values[0].tolist() == pytest.approx(expected, rel=1e-3)
    for number, tile in enumerate(found.panels[0].tiles[0]):
        assert tile.shape == (3, 128, 128)
        inside = tile[:, 32:-32, 32:-32]  # at the edges the black beside it is mixed in
        assert torch.allclose(inside, torch.full_like(inside, round((1 - 0.1 * number) * 255) / 255))


def test_the_receptive_field_is_outlined_where_it_is(bright: Index) -> None:
    found = patches(bright, layer="relu", unit=0, context=0.5, count=3)
    for tile, box in zip(found.panels[0].tiles[0], found.panels[0].boxes[0], strict=True):
        top, left, bottom, right = (round(float(edge)) for edge in box)
        inside = torch.zeros_like(tile, dtype=torch.bool)
        inside[:, top + 3 : bottom - 3, left + 3 : right - 3] = True
        around = torch.ones_like(inside)
        around[:, max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] = False
        assert bool((tile[inside] > 0.7).all())
        assert bool((tile[around] < 0.1).all())


@pytest.mark.parametrize(("name", "rule"), [("guided", GUIDED), ("deconvnet", DECONVNET)])
def test_gradients_are_those_of_the_rule_and_nothing_lies_outside(colour_index: Index, name: Any, rule: Any) -> None:
    network = colour_index.network
    found = patches(colour_index, layer="4", unit=[0, 5], rule=name, context=0.25, count=3)
    for place, unit in enumerate(found.summary["units"]):
        for number, each in enumerate(unit["patches"]):
            path = each["path"]
            image = network.prepare(convscope.read_image(path))[None].requires_grad_()
            score = observe(network, image, ["4"])["4"][0, unit["channel"], each["row"], each["column"]]
            assert float(score.detach()) == pytest.approx(each["activation"], rel=1e-4)
            slope = gradient(score[None], image, rule)[0]
            box = found_box(found, place, number)
            top, left = each["seen"][0] - box[0], each["seen"][1] - box[1]
            tile = found.panels[1].tiles[place][number]
            expected = slope[:, top : top + tile.shape[1], left : left + tile.shape[2]]
            torch.testing.assert_close(tile, expected, rtol=1e-4, atol=1e-6)
            assert float(slope.abs().sum()) == pytest.approx(float(tile.abs().sum()), rel=1e-4)


def found_box(found: Any, row: int, number: int) -> tuple[int, int]:
    """Where the receptive field begins within the tile, in pixels of the prepared picture."""
    photograph_tile, tile = found.panels[0].tiles[row][number], found.panels[1].tiles[row][number]
    box = found.panels[0].boxes[row][number].tolist()
    return (
        round(box[0] * tile.shape[1] / photograph_tile.shape[1]),
        round(box[1] * tile.shape[2] / photograph_tile.shape[2]),
    )


def test_values_are_the_scans_and_channels_that_never_fire_are_not_drawn(bright: Index, colour_index: Index) -> None:
    found = patches(bright, layer="relu", units=5)
    assert [unit["channel"] for unit in found.summary["units"]] == [0]  # the other one is always zero
    found = patches(colour_index, layer="4", units=3, count=2)
    kept = colour_index.patches("4").values
    for row, unit in zip(found.values, found.summary["units"], strict=True):
        assert row.tolist() == pytest.approx(kept[unit["channel"], :2].tolist())
        assert unit["share"] == pytest.approx(1 - colour_index.statistics("4").silent[unit["channel"]])


def test_a_channel_that_fires_in_fewer_pictures_has_fewer_tiles(bright: Index) -> None:
    found = patches(bright, layer="relu", unit=[0, 1], count=5)
    assert [len(tiles) for tiles in found.panels[0].tiles] == [3, 0]
    assert found.values.isnan().sum(1).tolist() == [2, 5]
    assert convscope.patches is patches  # from here on results can draw themselves
    found.figure()


def test_channels_that_stand_for_classes_have_their_names(tmp_path: Path) -> None:
    convolution = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3).flip(0)[:, :, None, None])
    module = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    network = Network(module, labels=("blue, azure", "leaf_green", "red"), input_size=(32, 32))
    index = scan(network, colour_pictures(tmp_path / "pictures", each=2), tmp_path / "an.index", code_layers=["1"])
    assert patches(index, layer="1", count=1).titles == ["blue", "leaf green", "red"]


def test_layer_by_layer_in_panels(colour_index: Index) -> None:
    found = patches(colour_index, layer="stages", units=2, arrangement="panels", rule="deconvnet")
    assert found.sections == ["1", "1", "4", "4"]
    assert found.columns == 3
    assert found.layer is None
    assert "no rectifier" not in " ".join(found.notes)
    assert list(dict.fromkeys(found.sections)) == list(colour_index.layers)
    assert convscope.patches is patches  # from here on results can draw themselves
    found.figure()


def test_without_a_rectifier_the_gradient_is_plain_and_that_is_said(bright: Index, tmp_path: Path) -> None:
    folder = Path(bright.provenance["source"]["location"])
    network = Network(Bright().eval(), input_size=(32, 32), name="bright")
    index = scan(network, folder, tmp_path / "plain.index", layers=["conv"], code_layers=["relu"])
    found = patches(index, layer="conv", unit=0, count=1, context=0)
    assert "no rectifier lies between the picture and conv: its gradient is plain" in found.notes
    assert torch.equal(found.panels[1].tiles[0][0], torch.ones(3, 4, 4))


def test_pictures_that_changed_since_the_scan_are_told(tmp_path: Path) -> None:
    for name in "ab":
        write_image(torch.full((3, 32, 32), 0.9), tmp_path / f"{name}.png")
    network = Network(Bright().eval(), input_size=(32, 32), name="bright")
    index = scan(network, tmp_path, tmp_path.parent / "changed.index", layers=["relu"], code_layers=["relu"])
    write_image(torch.full((3, 32, 32), 0.5), tmp_path / "a.png")
    notes = patches(index, layer="relu", unit=0).notes
    assert "1 of 2 patches of relu fire otherwise than in the scan: the pictures changed" in notes


def test_tiles_of_photographs_of_any_proportions_are_of_one_size(tmp_path: Path) -> None:
    for number, shape in enumerate([(41, 59), (60, 37), (33, 33), (301, 200)]):
        write_image(torch.full((3, *shape), 0.9), tmp_path / f"{number}.png")
    network = Network(Bright().eval(), input_size=(32, 32), crop=0.9, name="bright")
    index = scan(network, tmp_path, tmp_path.parent / "shapes.index", layers=["relu"], code_layers=["relu"])
    for context in (0.0, 0.3, 4.0):
        found = patches(index, layer="relu", unit=0, context=context)
        assert found.panels[0].tiles[0].shape == (4, 3, 128, 128)
        assert len(found.panels[1].tiles[0]) == 4


def test_windows_stay_inside_and_are_of_one_size() -> None:
    picture = (32, 40)
    assert window_around((8, 8, 12, 12), (4, 4), 0.5, picture) == (6, 6, 14, 14)
    assert window_around((0, 0, 2, 2), (4, 4), 0.5, picture) == (0, 0, 8, 8)
    assert window_around((28, 36, 32, 40), (4, 4), 0.5, picture) == (24, 32, 32, 40)
    assert window_around((28, 28, 32, 32), (4, 4), 0, picture) == (28, 28, 32, 32)
    assert window_around((0, 3, 32, 35), (32, 32), 1, picture) == (0, 0, 32, 40)


def test_what_is_cut_need_not_lie_on_whole_pixels() -> None:
    ramp = (torch.arange(40.0) / 40).expand(3, 40, 40)
    tile = photograph(ramp, (10.0, 10.25, 20.0, 20.25), (8, 8))
    assert tile.shape == (3, 128, 128)
    assert float(tile.mean()) == pytest.approx((10.25 + 5 - 0.5) / 40, abs=2e-3)


def test_bad_options_get_a_sentence(colour_index: Index, bright: Index) -> None:
    with pytest.raises(OptionError, match="knows nothing of layer 'conv7'"):
        patches(colour_index, layer="conv7")
    with pytest.raises(OptionError, match="layer '4' has channels 0 to 11, not 12"):
        patches(colour_index, layer="4", unit=12)
