"""The promises that every technique keeps, over the whole registry: no list of names is kept here."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import inspect
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import progress, registry
from convscope.errors import ConvscopeError, ImageError
from convscope.images import write_image
from convscope.index import Index, open_index
from convscope.network import Network
from convscope.optimize import save_state
from convscope.progress import Cancelled, Progress, listening
from convscope.results import Result
from convscope.scanning import scan

NAMES = list(registry.discover())
WITH_IMAGES = [name for name in NAMES if registry.load(name).takes_images]
MADE = [name for name in NAMES if registry.load(name).family == "synthesize"]
LABELS = ("ant", "bee", "cat", "dog", "elk")


class Small(nn.Module):
    """Everything that trips hooks: in-place, functional and reused ReLUs, batch norm, dropout, a residual sum."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 5, stride=2, padding=2)
        self.norm1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        x = x + self.relu(self.norm2(self.conv2(x)))
        x = F.relu(F.max_pool2d(x, 2), inplace=True)
        return self.fc(self.drop(x.mean((2, 3))))


def network(channels: int = 3, dtype: torch.dtype = torch.float32) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Small(channels)
        for norm in (module.norm1, module.norm2):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    shape = torch.full((channels,), 0.5)
    module.to(dtype).eval()
    return Network(module, mean=shape, std=shape / 2, labels=LABELS, name="small", input_size=(32, 40))


def pictures(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, 32, 40, generator=torch.Generator().manual_seed(1)).to(dtype)


@functools.cache
def scanned(channels: int) -> Path:
    """An index of 65 pictures of five classes, as a network of that many input channels saw them."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    for number, image in enumerate(pictures(65)):
        place = folder / "pictures" / LABELS[number % 5]
        place.mkdir(parents=True, exist_ok=True)
        write_image(image, place / f"{number:02d}.png")
    scan(network(channels), folder / "pictures", folder / "index")
    return folder / "index"


def indexed(net: Network) -> Index:
    """That index, looked at through a network that may differ in precision from the one that it was made with."""
    index = open_index(scanned(net.mean.numel()))
    index.__dict__["network"] = net
    return index


def run(name: str, net: Network, images: Tensor) -> Result:
    technique = registry.load(name)
    index = indexed(net) if technique.takes_index else None
    found: Result = technique.on(net, images if technique.takes_images else None, index=index, **technique.quick)
    return found


def state(module: nn.Module) -> dict[str, Any]:
    """Everything of a module that a technique could disturb."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "bytes": {n: t.detach().flatten().view(torch.uint8).numpy().tobytes() for n, t in tensors.items()},
        "identities": {n: (id(t), t.requires_grad, t.grad is None, t.stride()) for n, t in tensors.items()},
        "modules": {n: (id(m), type(m), m.training) for n, m in module.named_modules()},
        "hooks": {n: [len(getattr(m, h)) for h in hooks] for n, m in module.named_modules()},
    }


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors_of(v)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_of(v)]
    if hasattr(value, "__dataclass_fields__"):
        return [t for field in value.__dataclass_fields__ for t in tensors_of(getattr(value, field))]
    return []


def assert_same(first: Tensor, second: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_bitwise_as_it_was(name: str) -> None:
    net = network()
    net.layers()
    before = state(net.module)
    run(name, net, pictures())
    assert state(net.module) == before


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_in_training_mode_answers_as_in_evaluation_and_stays_in_training(name: str, training: bool) -> None:
    net = network()
    expected = run(name, net, pictures()).values
    net.module.train(training)
    before = state(net.module)
    assert_same(run(name, net, pictures()).values, expected)
    assert state(net.module) == before


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("error", [RuntimeError, Interrupted, KeyboardInterrupt])
@pytest.mark.parametrize("name", NAMES)
def test_the_network_survives_an_interrupt(
    name: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    before = state(net.module)
    calls = {"left": 1}
    whole = Small.forward

    def breaks(self: Small, x: Tensor) -> Tensor:
        self.relu(self.norm1(self.conv1(x)))
        calls["left"] -= 1
        if calls["left"] < 0:
            raise error("stop")
        return whole(self, x)

    net.module.train()
    before = state(net.module)
    monkeypatch.setattr(Small, "forward", breaks)
    with contextlib.suppress(ConvscopeError, error):
        run(name, net, pictures())
    monkeypatch.setattr(Small, "forward", whole)
    assert state(net.module) == before


def told_of(name: str, net: Network) -> list[Progress]:
    told: list[Progress] = []
    with listening(told.append):
        run(name, net, pictures())
    return told


@pytest.mark.parametrize("name", NAMES)
def test_progress_rises_from_nothing_to_all(name: str) -> None:
    told = told_of(name, network())
    fractions = [now.fraction for now in told]
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert fractions == sorted(fractions)
    assert any(now.loops for now in told) or name not in WITH_IMAGES, "no loop over pictures says how far it is"


@pytest.mark.parametrize("name", NAMES)
def test_who_listens_can_stop_it_and_the_network_is_as_it_was(name: str) -> None:
    net = network()
    net.layers()
    tellings = len(told_of(name, net))
    middle = tellings // 2
    before = state(net.module)
    heard = iter(range(tellings))

    def stops(now: Progress) -> None:
        if next(heard) == middle:
            raise Cancelled

    stopped = True
    with contextlib.suppress(Cancelled), listening(stops):
        stopped = any("stopped" in note for note in run(name, net, pictures()).notes)  # kept what it had
    assert stopped or tellings == 2, "it has loops, but none of them stopped"
    assert state(net.module) == before


@pytest.mark.parametrize("name", MADE)
def test_a_run_that_was_stopped_goes_on_to_the_same_pixels_and_can_be_repeated(name: str, tmp_path: Path) -> None:
    technique, state = registry.load(name), tmp_path / "run.state"
    with progress.counted() as steps:
        whole = run(name, network(), pictures())
    assert (steps.done > 0) == ("resume" in {o.name for o in technique.options}), "what has steps can be taken up"
    for number in range(1, steps.done + 1):
        half, again = (stopped_after(number, name) for _ in range(2))
        assert torch.equal(half.values, again.values)
        assert half.provenance is not None
        assert half.provenance.stopped == number
        assert half.state is not None
        save_state(state, half.state)
        rest: Result = technique.on(network(), pictures(), **technique.quick, resume=state)
        assert torch.equal(rest.values, whole.values)
        assert (rest.summaries, rest.state) == (whole.summaries, None)
        trace = getattr(whole, "trace", None)
        assert trace is None or torch.equal(rest.trace, trace)  # type: ignore[attr-defined]


def stopped_after(number: int, name: str) -> Result:
    with progress.counted(number):
        result = run(name, network(), pictures())
    assert any("stopped" in note for note in result.notes)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_comes_back_carries_a_graph_or_leaves_the_cpu(name: str) -> None:
    result = run(name, network(), pictures())
    found = tensors_of(result)
    assert found
    assert not any(t.requires_grad or t.grad_fn is not None for t in found)
    assert {t.device.type for t in found} == {"cpu"}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_gives_the_same_numbers(name: str) -> None:
    first, second = (run(name, network(), pictures()) for _ in range(2))
    assert_same(first.values, second.values, 0.0)
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_a_pictures_result_does_not_depend_on_its_neighbours(name: str) -> None:
    net, images = network(), pictures(3)
    together = run(name, net, images)
    if not together.per_picture:
        pytest.skip("one result for all pictures together")
    for number in range(3):
        alone = run(name, net, images[number])
        assert_same(alone.values[0], together.values[number])
        assert alone.summaries[0].keys() == together.summaries[number].keys()


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_passes_of_one_picture_give_the_same_as_one_pass(name: str) -> None:
    net, images = network(), pictures(3)
    small = network()
    object.__setattr__(small, "max_batch", 1)
    assert_same(run(name, small, images).values, run(name, net, images).values)


def unchanged(net: Network) -> Network:
    return net


def frozen(net: Network) -> Network:
    for parameter in net.module.parameters():
        parameter.requires_grad_(False)
    return net


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("prepared", [unchanged, frozen])
@pytest.mark.parametrize("name", NAMES)
def test_grad_modes_and_frozen_parameters_change_nothing(
    name: str, prepared: Callable[[Network], Network], context: Callable[[], Any]
) -> None:
    if prepared is frozen and name == "gradients":
        pytest.skip("its ratio of weight gradients is NaN for frozen weights, as documented; tested beside it")
    expected = run(name, network(), pictures()).values
    net = prepared(network())
    with context():
        images = pictures()
        assert_same(run(name, net, images).values, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_other_precisions_work(name: str, dtype: torch.dtype) -> None:
    expected = run(name, network(), pictures()).values
    found = run(name, network(dtype=dtype), pictures(dtype=dtype)).values
    assert found.dtype in (torch.float32, torch.float64)
    assert found.shape == expected.shape
    if dtype == torch.float64:
        torch.testing.assert_close(found.float(), expected.float(), rtol=1e-3, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_channels_last_pictures_give_the_same(name: str) -> None:
    images = pictures()
    expected = run(name, network(), images).values
    assert_same(run(name, network(), images.to(memory_format=torch.channels_last)).values, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_on_grey_pictures_works(name: str) -> None:
    net = network(channels=1)
    assert run(name, net, pictures()).values.numel() > 0


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_bad_pictures_get_one_sentence(name: str) -> None:
    for bad in (
        torch.full((3, 32, 40), torch.nan),
        torch.full((3, 32, 40), 7.0),
        torch.zeros(2, 5, 32, 40),
        torch.zeros(3),
    ):
        with pytest.raises(ImageError) as caught:
            run(name, network(), bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_raw_file_holds_the_untouched_values(name: str, tmp_path: Path) -> None:
    import numpy as np

    result = run(name, network(), pictures())
    with np.load(result.save(tmp_path / "raw.npz")) as saved:
        np.testing.assert_array_equal(saved["values"], result.values.numpy())
        assert f'"technique": "{name}"' in str(saved["provenance"])


@pytest.mark.parametrize("name", NAMES)
def test_provenance_is_complete(name: str) -> None:
    provenance = run(name, network(), pictures()).provenance
    assert provenance is not None
    assert provenance.technique == name
    technique = registry.load(name)
    assert provenance.network == ("small" if technique.takes_network or technique.takes_index else "")
    assert set(provenance.options) == {option.name for option in registry.load(name).options}
    assert {"python", "torch", "convscope"} <= set(provenance.versions)


@pytest.mark.parametrize("name", NAMES)
def test_every_technique_is_documented(name: str) -> None:
    technique = registry.load(name)
    text = inspect.getdoc(technique.function) or ""
    assert re.search(r"^Returns:", text, re.MULTILINE)
    assert "values" in text
    assert technique.summary.endswith(".")
    assert technique.see
    assert technique.caution
    assert all(option.description for option in technique.options), "an option without help"
    assert technique.family in registry.FAMILIES


@pytest.mark.parametrize("name", NAMES)
def test_memory_stays_flat_over_many_calls(name: str) -> None:
    net, images = network(), pictures(1)
    run(name, net, images)

    def living() -> int:
        gc.collect()
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    before = living()
    for _ in range(5):
        run(name, net, images)
    assert living() <= before


def test_no_technique_has_the_name_of_a_module() -> None:
    """``convscope.NAME`` must be the technique, also after a module of that name is imported."""
    modules = {path.stem for path in Path(inspect.getfile(registry)).parent.iterdir()}
    assert not modules & {name.replace("-", "_") for name in NAMES}


def test_every_file_of_techniques_is_found_and_has_a_test() -> None:
    folder = Path(__file__).parent
    files = {p for p in folder.rglob("*.py") if not p.stem.startswith("_") and not p.stem.endswith("_test")}
    files = {p for p in files if p.stem != "conftest"}
    found = {entry.module.rpartition(".")[2] for entry in registry.discover().values()}
    assert {p.stem for p in files} <= found
    assert all(p.with_name(f"{p.stem}_test.py").exists() for p in files)
