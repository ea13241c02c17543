"""The monitor against numbers worked out beside it, and that a training comes out the same with it."""

from __future__ import annotations

import copy
import io
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
from convscope.errors import MissingExtra, NetworkError, OptionError
from convscope.monitor import loop
from convscope.monitor.measure import MEMORY, Watcher
from convscope.monitor.page import readings
from convscope.vitals import smoothness
from convscope.zoo.torchvision_models import import_torchvision


class Functional(nn.Module):
    """No module rectifies here, and one norm stands between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.conv2 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=1)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        x = F.relu(self.conv2(x))
        return self.fc(self.drop(x.mean((2, 3))))


def modular() -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), relu, nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), relu, nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


def seeded(build: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return build()  # type: ignore[operator]


IMAGES = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


def train(
    module: nn.Module, monitor: convscope.Monitor | None, steps: int = 6, rate: float = 0.1
) -> list[dict[str, Tensor]]:  # fmt: skip
    """Weights before each step."""
    optimizer = torch.optim.SGD(module.parameters(), rate, momentum=0.9)
    before = []
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(IMAGES), LABELS)
            loss.backward()
            if monitor is not None:
                monitor.step(loss)
            before.append(copy.deepcopy(module.state_dict()))
            optimizer.step()
    before.append(copy.deepcopy(module.state_dict()))
    return before


@pytest.mark.parametrize("build", [modular, Functional])
def test_a_training_comes_out_bitwise_the_same_with_and_without_it(build: object, tmp_path: Path) -> None:
    watched, alone = seeded(build), seeded(build)
    with convscope.Monitor(watched, tmp_path, every=2, tensorboard=False) as monitor:
        train(watched, monitor)
    train(alone, None)
    for one, other in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not any(part._forward_hooks for part in watched.modules())
    assert [record.step for record in monitor.records] == [0, 2, 4]


def by_hand(module: nn.Module) -> dict[str, dict[str, float]]:
    """What the rectifiers of the first pass put out, and sizes of weights and gradients."""
    module = copy.deepcopy(module).train()
    first = F.relu(F.batch_norm(module[0](IMAGES), None, None, module[1].weight, module[1].bias, training=True))
    second = F.relu(module[4](F.max_pool2d(first, 2)))
    kept = {"0": first, "4": second}
    return {
        name: {
            "zeros": float((seen == 0).double().mean()),
            "dead": sum(bool((seen[:, c] == 0).all()) for c in range(seen.shape[1])) / seen.shape[1],
            "smoothness": float(smoothness(module[int(name)].weight.detach()).mean()),
        }
        for name, seen in kept.items()
    }


def test_its_numbers_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    module = seeded(modular)
    module[4].bias.data[2] = -50.0  # a dead channel
    expected = by_hand(module)
    with convscope.Monitor(module, tmp_path, every=1, tensorboard=False) as monitor:
        weights = train(module, monitor, steps=3)
    first = monitor.records[0].layers
    for name, numbers in expected.items():
        for kind, value in numbers.items():
            assert first[name][kind] == pytest.approx(value, abs=1e-5), (name, kind)
    assert first["4"]["dead"] >= 0.2
    assert math.isnan(first["9"]["zeros"])  # nothing rectifies the scores
    for step, record in enumerate(monitor.records):
        for name in ("0", "4", "9"):
            before, after = weights[step][f"{name}.weight"], weights[step + 1][f"{name}.weight"]
            moved = float((after - before).double().square().sum().sqrt() / before.double().square().sum().sqrt())
            assert record.layers[name]["update"] == pytest.approx(moved, rel=1e-4)
    # the first step has no momentum yet: rate times gradient
    assert first["9"]["gradient"] * 0.1 == pytest.approx(first["9"]["update"], rel=1e-4)


def test_what_functional_rectifiers_put_out_is_read_before_them(tmp_path: Path) -> None:
    module = seeded(Functional)
    copied = copy.deepcopy(module)
    normed = F.batch_norm(copied.conv1(IMAGES), None, None, copied.norm1.weight, copied.norm1.bias, training=True)
    with convscope.Monitor(module, tmp_path, every=1, tensorboard=False) as monitor:
        train(module, monitor, steps=1)
    layers = monitor.records[0].layers
    assert layers["conv1"]["zeros"] == pytest.approx(float((F.relu(normed) == 0).double().mean()), abs=1e-6)
    assert math.isnan(layers["fc"]["zeros"])


def test_validation_in_between_does_not_count(tmp_path: Path) -> None:
    module = seeded(modular)
    watcher = Watcher(module)
    watcher.begin()
    module.eval()
    with torch.no_grad():
        module(torch.zeros(2, 3, 12, 12))
    module.train()
    F.cross_entropy(module(IMAGES), LABELS).backward()
    after = watcher.finish()
    assert after["0"]["zeros"] == pytest.approx(by_hand(seeded(modular))["0"]["zeros"], abs=1e-6)


def test_a_channel_is_dead_once_it_was_silent_in_all_of_the_last_records(tmp_path: Path) -> None:
    module = seeded(modular)
    with convscope.Monitor(module, tmp_path, every=1, tensorboard=False) as monitor:
        train(module, monitor, steps=1, rate=0.0)
        alive = monitor.records[-1].layers["4"]["dead"]
        module[4].bias.data.fill_(-50.0)
        train(module, monitor, steps=MEMORY - 1, rate=0.0)
        assert monitor.records[-1].layers["4"]["dead"] == alive
        train(module, monitor, steps=1, rate=0.0)
        assert monitor.records[-1].layers["4"]["dead"] == 1


def test_a_module_saved_or_copied_meanwhile_is_not_watched(tmp_path: Path) -> None:
    module = seeded(modular)
    with convscope.Monitor(module, tmp_path, every=1, tensorboard=False) as monitor:
        assert any(part._forward_hooks for part in module.modules())
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        for other in (torch.load(buffer, weights_only=False), copy.deepcopy(module)):
            other.train()(IMAGES * 0)
        train(module, monitor, steps=1)
    assert monitor.records[0].layers["0"]["zeros"] == pytest.approx(by_hand(seeded(modular))["0"]["zeros"], abs=1e-6)


def test_the_readings_say_what_is_wrong(tmp_path: Path) -> None:
    module = seeded(modular)
    module[4].bias.data.fill_(-50.0)
    with convscope.Monitor(module, tmp_path, every=1, tensorboard=False) as monitor:
        train(module, monitor, steps=4, rate=30.0)
    said = {finding.where: str(finding) for finding in readings(monitor.records)}
    assert any("100 % of the channels never rise above zero" in text for text in said.values())
    assert any("learning rate is too high" in text for text in said.values())
    good = seeded(modular)
    with convscope.Monitor(good, tmp_path, every=1, tensorboard=False) as monitor:
        train(good, monitor, steps=4, rate=0.01)
    assert not [f for f in readings(monitor.records) if f.grave]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "srcset")]


def test_the_page_is_whole_self_contained_and_renews_itself_only_while_it_runs(tmp_path: Path) -> None:
    module = seeded(modular)
    monitor = convscope.Monitor(module, tmp_path, every=1, tensorboard=False, name="<b>digits</b>")
    train(module, monitor, steps=3)
    running = monitor.write().read_text()
    monitor.close()
    done = monitor.page.read_text()
    assert 'http-equiv="refresh"' in running
    assert 'http-equiv="refresh"' not in done
    assert "<b>digits" not in done
    reader = Reader()
    reader.feed(done)
    assert "script" not in reader.tags
    assert reader.tags.count("svg") == 7
    assert all(ref.startswith("data:") for ref in reader.references)
    assert [path.name for path in tmp_path.iterdir()] == ["monitor.html"]
    start, now = re.findall(r'<figure>.*?src="(.*?)"', done)
    assert start != now  # the filters at the start are those of the start


def test_of_very_many_records_the_older_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LONGEST", 8)
    module = seeded(modular)
    with convscope.Monitor(module, tmp_path, every=1, tensorboard=False) as monitor:
        train(module, monitor, steps=40)
    steps = [record.step for record in monitor.records]
    assert len(steps) <= 9
    assert (steps[0], steps[-1]) == (0, 39)
    assert steps == sorted(steps)


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    module = seeded(modular)
    with convscope.Monitor(module, tmp_path, every=2) as monitor:
        train(module, monitor, steps=5)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for kind in ("update", "zeros", "gradient", "dead", "smoothness", "size"):
        read = events.Scalars(f"{kind}/0")
        assert [event.step for event in read] == [0, 2, 4]
        expected = [record.layers["0"][kind] for record in monitor.records]
        assert [event.value for event in read] == pytest.approx(expected, rel=1e-5)
    assert len(events.Images("filters of the first layer")) == 3


def test_without_tensorboard_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtra, match=r"convscope\[monitor\]"):
        convscope.Monitor(seeded(modular), tmp_path)


def test_bad_arguments_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="'conv9' is no layer with weights of this module; those with weights are 0"):
        convscope.Monitor(seeded(modular), tmp_path, layers=["conv9"], tensorboard=False)
    with pytest.raises(NetworkError, match="nothing to watch"):
        convscope.Monitor(nn.ReLU(), tmp_path, tensorboard=False)
    with pytest.raises(OptionError, match="every=0"):
        convscope.Monitor(seeded(modular), tmp_path, every=0, tensorboard=False)


def test_the_callback_needs_no_lightning_and_does_nothing_at_hooks_that_it_lacks(tmp_path: Path) -> None:
    callback = convscope.LightningMonitor(tmp_path, every=1, tensorboard=False)
    module, trainer = seeded(modular), SimpleNamespace()
    callback.setup(trainer, module, stage="fit")
    callback.on_train_batch_start(trainer, module, None, 0)
    callback.on_train_start(trainer, module)
    loss = F.cross_entropy(module(IMAGES), LABELS)
    callback.on_before_backward(trainer, module, loss)
    loss.backward()
    callback.on_before_optimizer_step(trainer, module, None)
    callback.on_train_end(trainer, module)
    assert callback.monitor is not None
    assert [record.loss for record in callback.monitor.records] == [pytest.approx(float(loss.detach()))]
    with pytest.raises(AttributeError):
        callback.nonsense  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_trains_the_same_with_it(package: str, tmp_path: Path) -> None:
    import_torchvision()  # Lightning's metrics import it, and its operators may not match torch
    lightning = pytest.importorskip(package)

    class Learner(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.module = seeded(modular)

        def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
            return F.cross_entropy(self.module(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(callbacks: list[object]) -> nn.Module:
        learner = Learner()
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), 4)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            lightning.Trainer(
                max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=callbacks, accelerator="cpu", default_root_dir=tmp_path,
            ).fit(learner, data)  # fmt: skip
        return learner

    callback = convscope.LightningMonitor(tmp_path / "watched", every=1, tensorboard=False)
    one, other = fit([callback]), fit([])
    assert [record.step for record in callback.monitor.records] == [0, 1, 2, 3]
    assert not math.isnan(callback.monitor.records[-1].layers["module.0"]["update"])
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
