from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import ImageError, OptionError, OutputError
from convscope.images import write_image
from convscope.network import Network
from convscope.optimize import load_state
from convscope.robust.pictures import Photographs, read_classes, split
from convscope.robust.training import Recipe, Step, Training, Watched, told, train, train_into
from convscope.zoo import load_network
from convscope.zoo.options import seeded

RECIPE = Recipe(epochs=2, batch=3, epsilon=0.05, held_out=0.3, watched=4, seed=3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.norm(self.conv(x)).relu(), 4).flatten(1))


@pytest.fixture
def network() -> Network:
    with seeded(0):
        module = Small().eval()
    return Network(module, labels=("cat", "dog", "sea cow"), name="small", input_size=(16, 24), precision="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    for number in range(18):
        place = root / ("cat", "dog", "sea_cow")[number % 3]
        place.mkdir(exist_ok=True)
        write_image(drawn(3, 20 + number, 40 - number, seed=number), place / f"{number}.png")
    (root / "cat" / "broken.png").write_bytes(b"no picture")
    return root


def weights(step: Step) -> dict[str, Tensor]:
    return step.network().module.state_dict()


# ---- photographs


def test_classes_are_the_names_of_folders(network: Network, folder: Path) -> None:
    found = read_classes(network, folder)
    assert len(found) == 18
    assert found.labels.bincount().tolist() == [6, 6, 6]
    assert all(network.label(i).split()[0] in path for i, path in zip(found.labels.tolist(), found.paths, strict=True))
    assert [Path(path).name for path in found.unreadable] == ["broken.png"]


def test_seen_whole_they_are_what_the_network_gets(network: Network, folder: Path) -> None:
    """Up to what resampling twice loses: compared with ``prepare`` on a smooth picture."""
    smooth = torch.nn.functional.interpolate(drawn(1, 3, 4, 5), (60, 90), mode="bicubic").clamp(0, 1)[0]
    wide = Photographs(_squashed(smooth), torch.tensor([90 / 60]), torch.zeros(1).long(), ("a",), {})
    expected = network.prepare(smooth)
    assert float((wide.whole(torch.tensor([0]), (16, 24)) - expected).abs().max()) < 0.03


def _squashed(image: Tensor) -> Tensor:
    from convscope.images import resize

    return (resize(image, (64, 64))[None] * 255).round().byte()


def test_crops_take_so_much_and_stay_inside() -> None:
    ramp = torch.linspace(0, 255, 64).round().byte().expand(3, 64, 64)  # brightness tells the column
    found = Photographs(ramp.expand(200, 3, 64, 64), torch.ones(200), torch.zeros(200).long(), ("a",) * 200, {})
    chosen, generator = torch.arange(200), torch.Generator().manual_seed(0)
    columns = found.crops(chosen, (32, 32), generator, least=0.25, mirror=True)[:, 0, 0]
    widths = (columns[:, -1] - columns[:, 0]).abs() * 32 / 31 * 63 / 64
    assert 0.4 < float(widths.min()) < float(widths.max()) <= 1.01
    mirrored = (columns[:, -1] < columns[:, 0]).float().mean()
    assert 0.4 < float(mirrored) < 0.6
    whole = found.crops(chosen, (64, 64), generator, least=1, mirror=False)
    assert torch.allclose(whole, ramp / 255, atol=1e-6)


def test_a_hash_of_the_name_holds_out(network: Network, folder: Path) -> None:
    found = read_classes(network, folder)
    rest, held = split(found, 0.3)
    assert set(rest.paths) | set(held.paths) == set(found.paths)
    assert not set(rest.paths) & set(held.paths)
    order = list(reversed(range(18)))
    assert set(split(found.only(order), 0.3)[1].paths) == set(held.paths)


def test_folders_that_do_not_fit_get_sentences(network: Network, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no class 'sea_cow'.*2 of 3 folders do"):
        read_classes(replace(network, labels=("cat", "dog", "horse")), folder)
    with pytest.raises(OptionError, match="no labels to tell classes by; give it some with --labels FILE"):
        read_classes(replace(network, labels=()), folder)
    with pytest.raises(ImageError, match="holds no pictures; name a folder that holds one folder of photographs"):
        read_classes(network, tmp_path)
    with pytest.raises(OptionError, match="fewer than a batch of 64; give more, or a smaller --batch"):
        Training(network, read_classes(network, folder), replace(RECIPE, batch=64))


# ---- training


def test_pictures_move_as_the_papers_say(network: Network, folder: Path) -> None:
    """Against the algorithms written out, for one step (Wong 2020) and for several (Madry 2018)."""
    for attack, steps, stride in (("fgsm", 1, 1.25), ("pgd", 4, 2.5 / 4)):
        training = Training(network, read_classes(network, folder), replace(RECIPE, attack=attack, attack_steps=4))
        images, labels, radius = drawn(5, 3, 16, 24), torch.tensor([0, 1, 2, 0, 1]), 0.1
        found = training._fooling(images, labels, radius, torch.Generator().manual_seed(1))
        moved = images + radius * (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 1)
        module = copy.deepcopy(training._live.module)
        for _ in range(steps):
            moved = moved.clamp(0, 1).detach().requires_grad_()
            F.cross_entropy(module(moved), labels, label_smoothing=0.1).backward()
            moved = moved.detach() + stride * radius * moved.grad.sign()
            moved = images + (moved - images).clamp(-radius, radius)
        torch.testing.assert_close(found, moved.clamp(0, 1))
        assert float((found - images).abs().max()) <= radius + 1e-6


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_and_resumed_it_ends_with_the_same_weights(network: Network, folder: Path, stop: int) -> None:
    photographs = read_classes(network, folder)
    *_, whole = train(network, photographs, RECIPE)
    steps = train(network, photographs, RECIPE)
    for _ in range(stop):
        step = next(steps)
    *_, again = train(network, photographs, RECIPE, resume=step.state())
    assert again.number == whole.number == 6
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())
    assert again.history() == whole.history()


def test_the_network_that_it_starts_from_stays_as_it_was(network: Network, folder: Path) -> None:
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    *_, step = train(network, read_classes(network, folder), RECIPE)
    assert all(torch.equal(before[name], value) for name, value in network.module.state_dict().items())
    assert all(p.grad is None for p in network.module.parameters())
    assert any(not torch.equal(before[name], value) for name, value in weights(step).items())


def test_the_file_is_read_as_weights(network: Network, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "robust.safetensors"
    steps = train(network, read_classes(network, folder), RECIPE)
    done = train_into(path, steps, 6, {"seed": 3}, half=True)
    assert done.wrote == [path]
    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert recipe["seed"] == 3
    assert recipe["steps_done"] == 6
    assert [each["epoch"] for each in recipe["watched"]] == [1, 2]
    with seeded(9):
        read = load_network(Small(), weights=path)
    assert read.labels == network.labels
    assert read.input_size == network.input_size
    found = done.last.network()
    assert torch.allclose(read(drawn(2, 3, 16, 24)), found(drawn(2, 3, 16, 24)), atol=2e-2)
    assert load_file(path)["fc.weight"].dtype == torch.half


def test_an_interrupt_keeps_weights_and_state(network: Network, folder: Path, tmp_path: Path) -> None:
    photographs = read_classes(network, folder)

    def interrupted() -> Iterator[Step]:
        steps = train(network, photographs, RECIPE)
        yield next(steps)
        yield next(steps)
        raise KeyboardInterrupt

    path = tmp_path / "mine.safetensors"
    done = train_into(path, interrupted(), 6, {})
    assert "stopped after 2 of 6 steps" in done.notes[0]
    rest = train(network, photographs, RECIPE, resume=load_state(tmp_path / "mine.state"))
    train_into(path, rest, 6, {})
    *_, whole = train(network, photographs, RECIPE)
    assert all(torch.equal(weights(whole)[name], value) for name, value in load_file(path).items())
    assert not (tmp_path / "mine.state").exists()
    with pytest.raises(OutputError, match="end the name in it"):
        train_into(tmp_path / "a.pt", iter(()), 1, {})


def test_a_state_of_another_training_is_refused(network: Network, folder: Path) -> None:
    photographs = read_classes(network, folder)
    state = next(train(network, photographs, RECIPE)).state()
    with pytest.raises(OptionError, match=r"its rate was 0\.0005 and is now 0\.1"):
        next(train(network, photographs, replace(RECIPE, rate=0.1), resume=state))
    with pytest.raises(OptionError, match="no adversarial training"):
        next(train(network, photographs, RECIPE, resume={"parameters": {}, "number": 1}))


def test_an_overflow_gets_a_sentence(network: Network, folder: Path) -> None:
    with pytest.raises(OptionError, match=r"overflowed at step .*; lower --rate"):
        list(train(network, read_classes(network, folder), replace(RECIPE, rate=1e38, epochs=4)))


def test_a_collapse_is_said() -> None:
    rising = [Watched(1, 0.9, 0.1), Watched(2, 0.8, 0.4)]
    assert told([], RECIPE)[0].startswith("not one epoch")
    assert told(rising, RECIPE) == [
        "of the photographs held out, 80% are told right as they are and 40% under ten steps at 12.8/255, after epoch "
        "2 of 2"
    ]
    assert "training collapsed: after epoch 3 only 5%" in told([*rising, Watched(3, 0.9, 0.05)], RECIPE)[1]


# ---- what it is for: handwritten digits


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1)
        self.fc = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.first(x).relu()).relu().flatten(1))


def digits() -> tuple[Photographs, Tensor, Tensor]:
    """Those to train on, and 250 pictures and labels of others."""
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    pixels = (torch.tensor(found.images) / 16 * 255).round().byte()[:, None].expand(-1, 3, 8, 8)
    labels = torch.tensor(found.target)
    names = tuple(f"{n}.png" for n in range(len(labels)))
    training = Photographs(pixels, torch.ones(len(labels)), labels, names, {}).only(list(range(1397)))
    return training, pixels[1397:1647].float() / 255, labels[1397:1647]


def attacked(
    network: Network, images: Tensor, labels: Tensor, epsilon: float, steps: int = 20, of: Network | None = None
) -> float:
    """Accuracy under projected gradient descent, written out; the pictures are made on ``of``."""
    made = of or network
    moved = images + epsilon * (2 * drawn(*images.shape) - 1)
    for _ in range(steps):
        moved = moved.clamp(0, 1).detach().requires_grad_()
        F.cross_entropy(made(moved), labels).backward()
        moved = moved.detach() + max(2.5 / steps, 0.05) * epsilon * moved.grad.sign()
        moved = images + (moved - images).clamp(-epsilon, epsilon)
    return float((network(moved.clamp(0, 1)).argmax(1) == labels).float().mean())


@pytest.mark.slow
def test_trained_on_digits_it_stands_more_and_hides_nothing() -> None:
    training, images, labels = digits()
    with seeded(0):
        module = Digits()
        optimizer = torch.optim.Adam(module.parameters(), 2e-3)
        for step in range(300):
            chosen = torch.arange(step * 64, step * 64 + 64) % len(training)
            loss = F.cross_entropy(module(training.pixels[chosen].float() / 255), training.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    plain = Network(module.eval().requires_grad_(False), name="digits", input_size=(8, 8), precision="float32")
    recipe = Recipe(
        epochs=10,
        batch=32,
        epsilon=0.15,
        rate=2e-3,
        crop=1,
        mirror=False,
        smoothing=0.0,
        average=0.98,
        watched=128,
        held_out=0.1,
    )
    *_, last = train(plain, training, recipe)
    robust = last.network()

    clean = [float((each(images).argmax(1) == labels).float().mean()) for each in (plain, robust)]
    before, after = (attacked(each, images, labels, 0.15) for each in (plain, robust))
    assert min(clean) > 0.9
    assert after > before + 0.3, (before, after)
    assert after > 0.5
    # what gradient masking would break (Athalye et al. 2018, section 3.1)
    assert abs(attacked(robust, images, labels, 0.15, steps=60) - after) < 0.05  # more steps find little more
    assert attacked(robust, images, labels, 0.15, steps=1) >= after  # one step is no stronger than many
    assert attacked(robust, images, labels, 0.15, of=plain) > after  # what fools the plain one is no stronger
    assert attacked(robust, images, labels, 1.0, steps=40) == 0  # without a bound nothing stands
