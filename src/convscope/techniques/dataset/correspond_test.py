"""correspond: points, bends and pieces against loops, and matches whose truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import OptionError
from convscope.index import Index
from convscope.network import Network
from convscope.techniques.dataset._places import (
    Grid,
    at,
    describe,
    errors_of,
    find,
    grid_of,
    points_of,
    sift,
    warp,
)  # fmt: skip
from convscope.techniques.dataset.correspond import TOLERANCES, correspond, put_together


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textured(side: int = 96, seed: int = 0, coarse: int = 12) -> Tensor:
    """(3, S, S): soft blobs in colour, no two places of which are alike."""
    noise = torch.rand(1, 3, coarse, coarse, generator=chance(seed))
    return F.interpolate(noise, (side, side), mode="bicubic", align_corners=False)[0].clamp(0, 1)


def test_cells_and_pixels_are_each_others_inverse() -> None:
    grid = Grid((5, 7), (3.5, 2.0), (8.0, 6.0))
    places = torch.rand(20, 2, generator=chance()) * torch.tensor([4.0, 6.0])
    torch.testing.assert_close(grid.places(grid.pixels(places)), places)
    assert grid.centres()[8].tolist() == [3.5 + 8, 2.0 + 6]
    assert grid.places(torch.tensor([[-50.0, 500.0]])).tolist() == [[0, 6]]


def test_the_grid_is_that_of_the_receptive_field() -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                nn.Linear(4, 2)), input_size=(32, 32))  # fmt: skip
    assert grid_of(net, "1", (15, 15), (32, 32)) == Grid((15, 15), (1.0, 1.0), (2.0, 2.0))


def test_reading_between_cells_is_bilinear() -> None:
    maps = torch.randn(4, 5, 6, generator=chance())
    for row, column in [(0.0, 0.0), (1.25, 3.5), (4.0, 5.0), (3.9, 0.1)]:
        top, left = min(int(row), 3), min(int(column), 4)
        down, across = row - top, column - left
        expected = sum(
            weight * maps[:, top + i, left + j]
            for i, j, weight in [(0, 0, (1 - down) * (1 - across)), (0, 1, (1 - down) * across),
                                 (1, 0, down * (1 - across)), (1, 1, down * across)]
        )  # fmt: skip
        found = at(maps, torch.tensor([[row, column]]))[0]
        torch.testing.assert_close(found, expected / expected.norm(), rtol=1e-4, atol=1e-5)


def test_the_best_place_is_that_of_a_search_and_lies_on_the_parabola() -> None:
    maps = F.normalize(torch.randn(6, 7, 8, generator=chance()), dim=0)
    wanted = F.normalize(torch.randn(3, 6, generator=chance(1)), dim=1)
    places, cosines = find(wanted, maps)
    for each, place, cosine in zip(wanted, places, cosines, strict=True):
        best = max((float(each @ maps[:, r, c]), r, c) for r in range(7) for c in range(8))
        assert float(cosine) == pytest.approx(best[0], abs=1e-6)
        assert (place - torch.tensor(best[1:])).abs().max() <= 0.5
    rows, columns = torch.arange(9.0)[:, None], torch.arange(9.0)[None]
    hill = 1 - 0.01 * ((rows - 3.3) ** 2 + (columns - 5.8) ** 2)
    found, _ = find(torch.ones(1, 1), hill[None])
    torch.testing.assert_close(found, torch.tensor([[3.3, 5.8]]), rtol=1e-3, atol=1e-3)


def test_a_bent_picture_shows_where_each_pixel_came_from() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    image = torch.stack([rows / 63, columns / 79, torch.zeros(64, 80)])
    bent = warp(image, chance(3))
    inside = ((bent.sources >= 0) & (bent.sources <= torch.tensor([63.0, 79.0]))).all(-1)
    assert inside.float().mean() > 0.6
    seen = torch.stack([bent.image[0] * 63, bent.image[1] * 79], -1)
    torch.testing.assert_close(seen[inside], bent.sources[inside], rtol=0, atol=1e-3)
    points = points_of(bent, 50, chance(1))
    assert len(points) == 50
    assert inside[points[:, 0].long(), points[:, 1].long()].all()
    moved = (bent.sources - torch.stack([rows, columns], -1)).norm(dim=-1)
    assert moved.mean() > 2  # it is bent indeed


class Looking(nn.Module):
    """Features are the colours of 11 x 11 pixels around a place, every four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv2d(3, 363, 11, stride=4, padding=5, bias=False)
        with torch.no_grad():
            self.around.weight.copy_(torch.eye(363).view(363, 3, 11, 11))
        self.scores = nn.Linear(363, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.around(x).mean((2, 3)))


def test_a_layer_that_sees_colours_finds_bent_points_and_chance_does_not() -> None:
    net = Network(Looking(), input_size=(96, 96))
    errors = errors_of(net, "around", torch.stack([textured(seed=s) for s in (0, 1)]), 40, 0)
    assert len(errors["network"]) == 80
    assert float((errors["network"] < 0.06).float().mean()) > 0.85
    assert float((errors["SIFT"] < 0.1).float().mean()) > 0.5
    assert float((errors["anywhere"] < 0.1).float().mean()) < 0.05


def test_descriptors_of_sift_move_with_the_picture_and_are_like_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    image = textured(128, seed=4, coarse=24)
    points = 40 + 48 * torch.rand(60, 2, generator=chance(2)).round(decimals=2)
    points = points.round()
    own = sift(image, points, 32)
    moved = sift(image.roll((5, -7), (1, 2)), points + torch.tensor([5.0, -7.0]), 32)
    assert float((own * moved).sum(1).min()) > 0.98
    grey = (255 * (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)).round().byte().numpy()
    sigma = 32 / 2 / (3 * 2.5)  # OpenCV's descriptor sees 3 sigma for each of 4 bins, and half a bin more
    keys = [cv2.KeyPoint(float(c), float(r), 2 * sigma, 0.0) for r, c in points.tolist()]
    _, other = cv2.SIFT_create().compute(grey, keys)
    other = F.normalize(torch.from_numpy(other), dim=1)
    upper = torch.triu_indices(60, 60, 1)
    ours, theirs = (m @ m.T for m in (own, other))
    both = torch.stack([ours[upper[0], upper[1]], theirs[upper[0], upper[1]]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.75


def test_a_picture_put_together_from_itself_is_itself() -> None:
    net = Network(Looking(), input_size=(96, 96))
    pictures = torch.stack([textured(seed=7), textured(seed=8)])
    maps = describe(net, "around", pictures)
    grid = grid_of(net, "around", (24, 24), (96, 96))
    made = put_together(maps[1], maps, pictures, grid)
    torch.testing.assert_close(made[:, 8:-8, 8:-8], pictures[1][:, 8:-8, 8:-8], rtol=0, atol=1e-4)
    other = put_together(maps[1], maps[:1], pictures[:1], grid)
    assert float((other - pictures[1]).abs().mean()) > 0.02


def test_features_are_of_size_one_less_their_mean() -> None:
    net = Network(Looking(), input_size=(96, 96))
    images = torch.stack([textured(seed=1), textured(seed=2)])
    raw = net.module.around(images).detach()
    expected = raw - raw.mean((2, 3), keepdim=True)
    expected = expected / expected.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(describe(net, "around", images), expected, rtol=1e-4, atol=1e-5)


def test_on_an_index_others_are_of_the_class_and_the_picture_itself_is_left_out(shapes_index: Index) -> None:
    rows = shapes_index.pictures(["id", "label", "correct"], "error is null").to_pydict()
    place = next(i for i, (label, right) in enumerate(zip(rows["label"], rows["correct"], strict=True))
                 if label == "disc" and right)  # fmt: skip
    id = int(shapes_index.ids[place])
    images = shapes_index.prepared(id)[None]
    found = correspond(shapes_index, images, others=3, pool=6, count=4, check=2)
    label = dict(zip(rows["id"], rows["label"], strict=True))
    ids = [match["id"] for match in found.summaries[0]["matches"]]
    assert id not in ids
    assert [label[each] for each in ids] == ["disc"] * 3
    assert found.titles == ["disc"]
    assert found.values.shape == (1, 3, 4, 4)
    assert (found.values[..., :2] >= -1).all()
    assert (found.values[..., :2] <= 40).all()
    assert found.rebuilt.shape == images.shape
    assert list(found.tolerances) == list(TOLERANCES)
    rising = found.found["network"][0]
    assert (rising.diff() >= 0).all()
    given = correspond(shapes_index, images, points=["20,12", "8,30"], others=1, pool=2, check=0)
    assert given.points[0].tolist() == [[20, 12], [8, 30]]
    assert given.found == {}


def test_the_way_back_of_a_point_found_in_the_same_picture_leads_home() -> None:
    from convscope.techniques.dataset.correspond import _there_and_back

    net = Network(Looking(), input_size=(96, 96))
    maps = describe(net, "around", textured(seed=3)[None])
    grid = grid_of(net, "around", (24, 24), (96, 96))
    points = grid.pixels(torch.tensor([[5.0, 6.0], [12.0, 9.0]]))
    found = _there_and_back(maps[0], maps[0], grid, points)
    assert (found[:, :2] - points).norm(dim=1).max() < 2
    assert found[:, 3].max() < 4
    assert found[:, 2].min() > 0.999


def test_bad_points_and_pictures_get_one_sentence(shapes_index: Index, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 40, 40, generator=chance())
    for points, said in ((["5"], "'5' is no point; give ROW,COLUMN"), (["50,3"], "lies outside the picture of 40x40")):
        with pytest.raises(OptionError, match=said):
            correspond(shapes_index, images, points=points, check=0)
    with pytest.raises(OptionError, match="the picture has 20x20 pixels and those of the index 40x40"):
        correspond(shapes_index, images[..., :20, :20], check=0, layer="2")
    with pytest.raises(OptionError, match="has no spatial extent"):
        correspond(shapes_index, images, layer="12")
