from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from convscope.errors import ConvscopeError, ImageError, NetworkError, OptionError, OutputError
from convscope.feedforward.augment import augment
from convscope.feedforward.files import chosen, find, read_recipe, read_stylist, save_stylist, shipped
from convscope.feedforward.painting import Brush
from convscope.feedforward.stylist import Shape, Stylist
from convscope.feedforward.training import Photographs, Recipe, Step, Training, resumed, train, train_into
from convscope.images import read_image, write_image
from convscope.network import Network
from convscope.optimize import save_state
from convscope.zoo.options import seeded

SHAPE = Shape(widths=(4, 6), blocks=1, fine=4)
RECIPE = Recipe(
    steps=4, size=32, batch=2, style_size=40, seed=5, content_layers=("relu2",), style_layers=("relu1", "relu2"),
    shape=SHAPE,
)  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def judge() -> Network:
    with seeded(0):
        layers = {
            "conv1": nn.Conv2d(3, 6, 3, 2, 1), "relu1": nn.ReLU(), "conv2": nn.Conv2d(6, 8, 3, 2, 1), "relu2": nn.ReLU()
        }  # fmt: skip
        module = nn.Sequential()
        for name, layer in layers.items():
            module.add_module(name, layer)
    return Network(module, mean=torch.full((3,), 0.5), std=torch.full((3,), 0.25), name="judge", input_size=(32, 32),
                   precision="float32")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small pictures in two folders, one of which cannot be read."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(4):
        place = root / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        write_image(drawn(3, 40 + number, 50 - number, seed=number), place / f"{number}.png")
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return root


def paintings() -> dict[str, Tensor]:
    return {"red": drawn(3, 48, 60, seed=9) * torch.tensor([1.0, 0.2, 0.1]).view(3, 1, 1), "grey": drawn(3, 50, 44)}


def weights(steps: Iterator[Step]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in list(steps)[-1].stylist.state_dict().items()}


# ---- training


def test_the_loss_is_its_formula_written_out(judge: Network, folder: Path) -> None:
    recipe = replace(RECIPE, content=3.0, style=7.0, colours=5.0, details=2.0, variation=11.0, opening=0.0)
    training = Training(judge, Photographs(folder), paintings(), recipe)
    images, styles = drawn(2, 3, 48, 48, seed=4), torch.tensor([1, 0])
    generator = torch.Generator().manual_seed(1)
    corner = tuple(torch.randint(1024, (2,), generator=generator).tolist())
    top, left = torch.randint(17, (2,), generator=generator).tolist()
    found = training._parts(images, styles, torch.Generator().manual_seed(1))
    window = (..., slice(top, top + 32), slice(left, left + 32))
    painted, images = training.stylist(images, styles, corner).detach()[window], images[window]
    pictures = [paintings()[name] for name in ("red", "grey")]
    for n, style in enumerate(styles.tolist()):
        mine, photograph = seen(judge, painted[n : n + 1]), seen(judge, images[n : n + 1])
        content = (mine[1] - photograph[1]).square().sum() / photograph[1].square().sum()
        assert_close(found["content"][n].detach(), 3 * content, rtol=1e-4, atol=1e-5)
        style_loss = sum(unlike(judge, painted[n], shrunk(pictures[style], share), share) for share in (1.0, 0.5))
        assert float(found["style"][n].detach()) == pytest.approx(7 * style_loss / 4, rel=1e-3)
        colours = [colours_apart(painted[n], shrunk(pictures[style], 1.0), size) for size in (1, 2, 4, 8, 16)]
        assert float(found["colours"][n].detach()) == pytest.approx(5 * sum(colours) / 5, rel=1e-3)
        details = [
            apart for size in (1, 2, 4) for apart in details_apart(painted[n], shrunk(pictures[style], 1.0), size)
        ]
        assert float(found["details"][n].detach()) == pytest.approx(2 * sum(details) / 12, rel=1e-3)
        down = F.pad(painted[n], (0, 0, 0, 1), "replicate").diff(dim=1).square().sum()
        across = F.pad(painted[n], (0, 1, 0, 0), "replicate").diff(dim=2).square().sum()
        assert_close(found["variation"][n].detach(), 11 * (down + across) / 32**2, rtol=1e-4, atol=1e-5)


def seen(judge: Network, pictures: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        first = judge.module.conv1((pictures - 0.5) / 0.25).relu()
        return first, judge.module.conv2(first).relu()


def shrunk(painting: Tensor, share: float) -> Tensor:
    """(3, h, w) with a shorter side of 40, or a share of it."""
    size = [round(s * 40 * share / min(painting.shape[1:])) for s in painting.shape[1:]]
    return F.interpolate(painting[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def unlike(judge: Network, painted: Tensor, painting: Tensor, share: float) -> float:
    """Of both layers together: roots of Gram distances, position by position."""
    small = painted if share == 1 else painted.view(3, 16, 2, 16, 2).mean((2, 4))
    total = 0.0
    for a, b in zip(seen(judge, small[None]), seen(judge, painting[None]), strict=True):
        mine, theirs = (
            sum(torch.outer(p, p) for p in maps[0].double().flatten(1).T) / maps[0][0].numel() for maps in (a, b)
        )
        total += float(((mine - theirs).square().sum() / theirs.square().sum() + 1e-5).sqrt())
    return total


def colours_apart(painted: Tensor, painting: Tensor, coarser: int) -> float:
    """Sorted projections beside each other."""
    return (mean_apart(*(
        picture[:, ::2, ::2] if coarser == 1 else F.avg_pool2d(picture[None], coarser)[0]
        for picture in (painted, painting)
    ))[0] + 1e-5) ** 0.5  # fmt: skip


def details_apart(painted: Tensor, painting: Tensor, coarser: int) -> list[float]:
    """The same of each pixel's differences from its four neighbours, in shares of the painting's mean square."""
    found = []
    for right, down in ((1, 0), (0, 1), (1, 1), (-1, 1)):
        pairs = []
        for picture in (painted, painting):
            small = F.avg_pool2d(picture[None], coarser)[0]
            height, width = small.shape[1] - 1, small.shape[2] - 1
            left = int(right < 0)
            there = small[:, down : down + height, left + right : left + right + width]
            step = 2 if coarser == 1 else 1
            pairs.append((there - small[:, :height, left : left + width])[:, ::step, ::step])
        apart, own = mean_apart(*pairs)
        found.append((apart / own + 1e-5) ** 0.5)
    return found


def mean_apart(painted: Tensor, painting: Tensor) -> tuple[float, float]:
    """Mean squared distance of sorted projections, and mean square of the second ones, of which as many count."""
    signs = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1),
             (1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)]  # fmt: skip
    squares, own = [], []
    for sign in signs:
        axis = torch.tensor(sign) / sum(map(abs, sign)) ** 0.5
        rows = []
        for picture in (painted, painting):
            rows.append(sorted((axis[:, None] * picture.flatten(1)).sum(0).tolist()))
        last = len(rows[1]) - 1
        steps = [round(i * last / max(1, len(rows[0]) - 1)) for i in range(len(rows[0]))]
        squares += [(value - rows[1][step]) ** 2 for value, step in zip(rows[0], steps, strict=True)]
        own += [rows[1][step] ** 2 for step in steps]
    return sum(squares) / len(squares), sum(own) / len(own)


def test_content_counts_in_full_after_the_opening(judge: Network, folder: Path) -> None:
    assert [Recipe(steps=100, content=6, opening=0.5).content_at(step) for step in (0, 49, 50, 99)] == [1, 1, 6, 6]
    images, styles = drawn(2, 3, 48, 48), torch.tensor([0, 1])
    found = []
    for opening in (0.0, 1.0):
        training = Training(judge, Photographs(folder), paintings(), replace(RECIPE, opening=opening))
        found.append(training._parts(images, styles, torch.Generator().manual_seed(1)))
    for name in ("content", "style", "colours", "details", "variation"):
        assert_close(found[1][name].detach(), found[0][name].detach() / (6 if name == "content" else 1))


def test_the_step_descends_along_the_slope_of_the_mean_loss(judge: Network, folder: Path) -> None:
    """Adam's first step is the rate, against the sign of each derivative: found by differences here."""
    training = Training(judge, Photographs(folder), paintings(), RECIPE)
    weight = training.stylist.out.convolution.bias
    before = weight.detach().clone()
    generator = torch.Generator().manual_seed(RECIPE.seed * 1_000_003)
    images = training.photographs.crops(2, 48, generator)

    def loss(bias: Tensor) -> float:
        with torch.no_grad():
            weight.copy_(bias)
        after = torch.Generator()
        after.set_state(generator.get_state())
        return float(sum(part.sum() for part in training._parts(images, torch.tensor([0, 1]), after).values()).detach())

    slopes = [loss(before + 1e-3 * axis) - loss(before - 1e-3 * axis) for axis in torch.eye(3)]
    loss(before)
    training.advance()
    assert_close(weight.detach() - before, -2e-3 * torch.tensor(slopes).sign(), rtol=1e-3, atol=1e-6)


def test_same_seed_same_weights_and_another_seed_others(judge: Network, folder: Path) -> None:
    torch.manual_seed(1)
    first = weights(train(judge, Photographs(folder), paintings(), RECIPE))
    torch.manual_seed(2)
    drawn_before = torch.get_rng_state()
    second = weights(train(judge, Photographs(folder), paintings(), RECIPE))
    assert torch.equal(torch.get_rng_state(), drawn_before)
    other = weights(train(judge, Photographs(folder), paintings(), replace(RECIPE, seed=6)))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "convolution.weight" in name)


def test_resumed_from_a_file_it_ends_with_the_same_weights(judge: Network, folder: Path, tmp_path: Path) -> None:
    whole = weights(train(judge, Photographs(folder), paintings(), RECIPE))
    steps = train(judge, Photographs(folder), paintings(), RECIPE)
    next(steps)
    save_state(tmp_path / "half.state", next(steps).state())
    state = resumed(tmp_path / "half.state")
    again = list(train(judge, Photographs(folder), paintings(), RECIPE, resume=state))
    assert [step.number for step in again] == [3, 4]
    assert all(torch.equal(whole[name], value) for name, value in again[-1].stylist.state_dict().items())


def test_the_loss_falls_and_the_judge_stays_as_it_was(judge: Network, folder: Path) -> None:
    before = copy.deepcopy(judge.module.state_dict())
    recipe = replace(RECIPE, steps=40, rate=2e-2, content=0.0, style_layers=("relu1",))
    losses = [step.loss for step in train(judge, Photographs(folder), {"red": paintings()["red"]}, recipe)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert all(torch.equal(before[name], value) for name, value in judge.module.state_dict().items())
    assert all(p.grad is None for p in judge.module.parameters())


def test_a_state_of_another_training_is_refused(judge: Network, folder: Path, tmp_path: Path) -> None:
    state = next(train(judge, Photographs(folder), paintings(), RECIPE)).state()
    with pytest.raises(OptionError, match=r"its rate was 0\.002 and is now 0\.1"):
        next(train(judge, Photographs(folder), paintings(), replace(RECIPE, rate=0.1), resume=state))
    with pytest.raises(OptionError, match="no training of a style"):
        next(train(judge, Photographs(folder), paintings(), RECIPE, resume={"parameters": [], "number": 1}))
    (tmp_path / "no.state").write_text("nothing")
    with pytest.raises(OptionError, match="no saved state"):
        resumed(tmp_path / "no.state")


def test_an_interrupt_keeps_weights_and_state(judge: Network, folder: Path, tmp_path: Path) -> None:
    def interrupted() -> Iterator[Step]:
        steps = train(judge, Photographs(folder), paintings(), RECIPE)
        yield next(steps)
        yield next(steps)
        raise KeyboardInterrupt

    path = tmp_path / "mine.safetensors"
    done = train_into(path, interrupted(), 4, {"size": 32})
    assert "stopped after 2 of 4 steps" in done.notes[0]
    assert done.wrote == [path, tmp_path / "mine.state"]
    assert read_recipe(path) == {"size": 32, "steps_done": 2}
    rest = train(judge, Photographs(folder), paintings(), RECIPE, resume=resumed(tmp_path / "mine.state"))
    done = train_into(path, rest, 4, {})
    whole = weights(train(judge, Photographs(folder), paintings(), RECIPE))
    saved = load_file(path)
    assert all(torch.equal(whole[name].half(), saved[name]) for name in whole)
    assert not (tmp_path / "mine.state").exists()


def test_where_it_cannot_write_it_does_not_begin_to_train(tmp_path: Path) -> None:
    def never() -> Iterator[Step]:
        raise AssertionError("it trained")
        yield

    for path, said in [(tmp_path / "none" / "a.safetensors", "no folder"), (tmp_path / "a.pt", "end the name")]:
        with pytest.raises(OutputError, match=said):
            train_into(path, never(), 1, {})
    assert not list(tmp_path.iterdir())


def test_an_overflow_gets_a_sentence(judge: Network, folder: Path) -> None:
    with pytest.raises(OptionError, match="overflowed at step"):
        list(train(judge, Photographs(folder), paintings(), replace(RECIPE, style=float("inf"))))


# ---- photographs


def test_crops_are_parts_of_readable_pictures_and_the_rest_is_kept_in_mind(folder: Path) -> None:
    photographs = Photographs(folder)
    crops = photographs.crops(40, 32, torch.Generator().manual_seed(0))
    assert crops.shape == (40, 3, 32, 32)
    assert list(photographs.unreadable) == [folder / "a" / "broken.jpg"]
    assert_close(crops, Photographs(folder).crops(40, 32, torch.Generator().manual_seed(0)))


def test_a_crop_of_a_flat_half_keeps_its_side_or_is_mirrored(tmp_path: Path) -> None:
    image = torch.zeros(3, 40, 40)
    image[:, :, 20:] = 1
    write_image(image, tmp_path / "half.png")
    crops = Photographs(tmp_path).crops(16, 40, torch.Generator().manual_seed(3))
    sides = {bool(crop[..., 0].mean() > crop[..., -1].mean()) for crop in crops}
    assert sides == {True, False}


def test_folders_without_pictures_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no pictures"):
        Photographs(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(ImageError, match="none of the 1 pictures can be read"):
        Photographs(tmp_path).crops(1, 32, torch.Generator())


# ---- files


def test_a_file_gives_back_the_same_stylist(tmp_path: Path) -> None:
    with seeded(1):
        made = Stylist(replace(SHAPE, styles=2), ["red", "grey"])
    save_stylist(tmp_path / "two.safetensors", made, {"steps": 7})
    read = read_stylist(tmp_path / "two.safetensors")
    assert (read.names, read.shape, read.training) == (("red", "grey"), made.shape, False)
    assert read_recipe(tmp_path / "two.safetensors") == {"steps": 7}
    for name, value in made.state_dict().items():
        assert torch.equal(value.half().float(), read.state_dict()[name])
    assert find(f"{tmp_path}/two.safetensors:grey") == (tmp_path / "two.safetensors", "grey")
    assert chosen(read, "grey", "two") == 1
    for wrong in (None, "blue"):
        with pytest.raises(OptionError, match="two:red, two:grey"):
            chosen(read, wrong, "two")


def broken(path: Path, **changes: str | None) -> Path:
    """A stylist's file with other metadata."""
    with seeded(1):
        made = Stylist(SHAPE)
    metadata = {"kind": "convscope stylist", "names": '["0"]', "shape": json.dumps(SHAPE.noted())}
    kept = {name: value for name, value in {**metadata, **changes}.items() if value is not None}
    save_file({name: value.detach().clone() for name, value in made.state_dict().items()}, path, kept)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": None}, {"shape": None}, {"shape": "[]"}, {"shape": '{"widths": 3}'}, {"names": "[]"},
        {"shape": json.dumps({**SHAPE.noted(), "blocks": 10**9})}, {"names": "{"},
        {"shape": json.dumps({**SHAPE.noted(), "blocks": 2})},
    ],
)  # fmt: skip
def test_files_of_something_else_get_a_sentence(changes: dict[str, str | None], tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as caught:
        read_stylist(broken(tmp_path / "x.safetensors", **changes))
    assert "x.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_and_absent_files_get_a_sentence(tmp_path: Path) -> None:
    assert read_stylist(broken(tmp_path / "good.safetensors")).names == ("0",)
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:300])
    with pytest.raises(NetworkError, match="no whole safetensors file"):
        read_stylist(tmp_path / "half.safetensors")
    with pytest.raises(OptionError, match="there is no style"):
        find(tmp_path / "none.safetensors")
    with seeded(1):
        made = Stylist(SHAPE)
    with torch.no_grad():
        made.out.convolution.bias[0] = torch.nan
    save_stylist(tmp_path / "nan.safetensors", made, {})
    with pytest.raises(NetworkError, match="NaN"):
        read_stylist(tmp_path / "nan.safetensors")


def test_the_shipped_styles_are_small_and_say_how_they_were_made() -> None:
    assert len(shipped()) >= 1
    for name in shipped():
        path, _ = find(name)
        assert path.stat().st_size <= 2 << 20
        assert read_stylist(path).names == (name,)
        assert {"steps", "paintings", "network", "photographs", "seed"} <= set(read_recipe(path))


# ---- a painted copy of a folder


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, also where the machine is fast in bfloat16."""
    monkeypatch.setattr(Brush, "precision", "float32")


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("style") / "toy.safetensors"
    with seeded(2):
        made = Stylist(replace(SHAPE, styles=2), ["one", "two"]).requires_grad_(False)
    made.palette[1] = -made.palette[0]
    save_stylist(path, made, {})
    return str(path)


def test_augment_keeps_folders_paints_each_and_skips_what_cannot_be_read(
    folder: Path, style: str, tmp_path: Path
) -> None:
    styles = [f"{style}:one", f"{style}:two"]
    found = augment(folder, tmp_path / "out", styles, strength=0.75, seed=5)
    assert (found.painted, found.before, list(found.unreadable)) == (4, 0, ["a/broken.jpg"])
    manifest = json.loads((tmp_path / "out" / "augment.json").read_text())
    assert list(manifest["unreadable"]) == ["a/broken.jpg"]
    stylist, used = read_stylist(style), set()
    for path in sorted(folder.rglob("*.png")):
        image, painted = read_image(path), read_image(tmp_path / "out" / path.relative_to(folder))
        candidates = [0.25 * image + 0.75 * stylist(image[None], index)[0] for index in range(2)]
        errors = [float((each - painted).abs().max()) for each in candidates]
        used.add(errors.index(min(errors)))
        assert min(errors) < 1 / 255
    assert used == {0, 1}


def test_augment_goes_on_where_it_was_stopped(
    folder: Path, style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    augment(folder, whole, [f"{style}:one"])
    written = write_image
    count = iter(range(9))

    def interrupted(image: Tensor, path: Path) -> None:
        if next(count) == 2:
            raise KeyboardInterrupt
        written(image, path)

    with monkeypatch.context() as patched:
        patched.setattr("convscope.feedforward.augment.write_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            augment(folder, stopped, [f"{style}:one"])
    assert len(list(stopped.rglob("*.*"))) == 3
    found = augment(folder, stopped, [f"{style}:one"])
    assert (found.painted, found.before) == (2, 2)
    for path in whole.rglob("*.*"):
        assert path.read_bytes() == (stopped / path.relative_to(whole)).read_bytes()
    with pytest.raises(OptionError, match="begun with strength 1"):
        augment(folder, stopped, [f"{style}:one"], strength=0.5)


def test_augment_refuses_a_copy_inside_the_photographs(folder: Path, style: str, tmp_path: Path) -> None:
    for target in (folder, folder / "out", folder.parent):
        with pytest.raises(ConvscopeError, match="lie in one another"):
            augment(folder, target, [f"{style}:one"])
    with pytest.raises(ImageError, match="no such folder"):
        augment(tmp_path / "none", tmp_path / "out", [style])
