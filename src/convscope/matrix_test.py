"""Every classification network of torchvision and one of each of timm's families: works, or one clear sentence.

``python docs/networks.py`` writes what ``examine()`` finds as a table. To look at more, add a function to ``CHECKS``.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from convscope.backward import RuleWarning
from convscope.errors import ConvscopeError
from convscope.hooks import observe
from convscope.network import LayerInfo, Network
from convscope.registry import load
from convscope.zoo import load_network, timm_models, torchvision_models

SIZES = (64, 70, 96, 128, 224)  # pixels; the first that a network takes, else its own
PARTS = 12  # of the matrix, so that they run side by side

# ---- which networks


def torchvision_networks() -> list[str]:
    return [f"torchvision:{name}" for name in torchvision_models.names()]


_SMALL = ("zepto", "atto", "femto", "pico", "nano", "tiny", "xxs", "xs", "small", "s")


def _weight(name: str) -> tuple[Any, ...]:
    """Sorts the networks of a family by what their names say of their size: picture, word, numbers."""
    side = max(timm_models.import_timm().models.get_pretrained_cfg(name).input_size)
    word = next((place for place, word in enumerate(_SMALL) if word in name.split("_")), len(_SMALL))
    return side > 256, word, sum(map(int, re.findall(r"\d+", name))) or 999, len(name), name


def timm_networks() -> list[str]:
    """The smallest of each family, by its name; a family is a module of ``timm.models``."""
    timm = timm_models.import_timm()
    families = ([n for n in timm.list_models(module=m) if not n.startswith("test_")] for m in timm.list_modules())
    return [f"timm:{min(family, key=_weight)}" for family in families]


# ---- what is asked of each


def _layers(network: Network, images: Tensor) -> None:
    layers = network.layers()
    assert len({layer.name for layer in layers}) == len(layers) > 0
    assert network.layer(network.default_layer).spatial


def _observe(network: Network, images: Tensor) -> None:
    layer = network.layer(network.default_layer)
    seen = observe(network, images, [layer.name])[layer.name]
    assert seen.isfinite().all()
    assert seen.shape[1:] == layer.shape
    assert network.maps(layer.name, seen).shape == (1, layer.channels, *(layer.grid or ()))


def _technique(name: str, **options: Any) -> Callable[[Network, Tensor], None]:
    def check(network: Network, images: Tensor) -> None:
        values = load(name)(network, images, **options).values
        assert values.shape == (1, *images.shape[2:])
        assert values.isfinite().all()
        assert values.any()

    return check


CHECKS: Mapping[str, Callable[[Network, Tensor], None]] = {
    "layers": _layers,
    "observe": _observe,
    "saliency": _technique("saliency"),
    "guided": _technique("saliency", rule="guided"),
    "gradcam": _technique("gradcam"),
}


@dataclass
class Outcome:
    """What was found out about one network."""

    spec: str
    side: int = 0  # of the picture, in pixels
    layers: int = 0
    default: LayerInfo | None = None
    answers: dict[str, str] = field(default_factory=dict)  # check to "works" or a sentence


def examine(spec: str) -> Outcome:
    """Build the network with random weights and run every check on a small picture.

    A :class:`ConvscopeError` is an answer; anything else is raised, also where a check changed the network.
    """
    outcome = Outcome(spec)
    try:
        network = smallest(spec)
    except ConvscopeError as error:
        outcome.answers["load"] = str(error)
        return outcome
    outcome.side, outcome.layers = network.input_size[0], len(network.layers())
    outcome.default = network.layer(network.default_layer)
    images = torch.rand(1, 3, *network.input_size, generator=torch.Generator().manual_seed(0))
    before = fingerprint(network.module)
    for name, check in CHECKS.items():
        outcome.answers[name] = _answer(check, network, images)
    assert fingerprint(network.module) == before, f"{spec} is not as it was"
    return outcome


def _answer(check: Callable[[Network, Tensor], None], network: Network, images: Tensor) -> str:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            check(network, images)
        except ConvscopeError as error:
            return str(error)
    said = [str(warning.message) for warning in heard if issubclass(warning.category, RuleWarning)]
    return f"works, and warns: {said[0]}" if said else "works"


def smallest(spec: str) -> Network:
    """The network with random weights, for the smallest picture that it takes."""
    for side in (*SIZES, None):
        try:
            with cheap_draws():
                network = load_network(spec, "random", input_size=side, device="cpu")
            _fill_zeros(network.module)
            network.layers()
        except ConvscopeError:
            if side is None:
                raise
        else:
            break
    return network


# ---- weights in little time

_NOISE = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).clamp_(-1.9, 1.9)  # some draw until below 2
_EVEN = torch.rand(1 << 16, generator=torch.Generator().manual_seed(0)).clamp_(0.001, 0.999)


def _tiled(tensor: Tensor, table: Tensor) -> Tensor:
    """``tensor``, filled with the table again and again."""
    with torch.no_grad():
        flat = tensor.view(-1) if tensor.is_contiguous() else torch.empty(tensor.numel())
        whole = len(flat) // len(table) * len(table)
        flat[:whole].view(-1, len(table)).copy_(table)
        flat[whole:].copy_(table[: len(flat) - whole])
        return tensor if tensor.is_contiguous() else tensor.copy_(flat.view(tensor.shape))


@contextmanager
def cheap_draws() -> Iterator[None]:
    """Fills what is drawn at random with repeated noise: a network of 600 million weights is there in a second or two.

    Everything else that a constructor computes stays as it is, positions and masks above all.
    """

    def normal(tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
        return _tiled(tensor, _NOISE * std + mean)

    def uniform(tensor: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Tensor:
        return _tiled(tensor, _EVEN * (high - low) + low)

    with mock.patch.object(Tensor, "normal_", normal), mock.patch.object(Tensor, "uniform_", uniform):
        yield


def _fill_zeros(module: nn.Module) -> None:
    """Weights for layers that begin at zero, where nothing would come through: heads of ViTs, ends of blocks."""
    for name, parameter in module.named_parameters():
        if not parameter.detach().flatten()[:4096].any() and not name.endswith("bias"):
            _tiled(parameter, _NOISE * 0.05 if parameter.ndim > 1 else _EVEN)


def fingerprint(module: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Of every tensor, how often it was written to, where it lies, and the sum of its bits."""

    def bits(value: Tensor) -> int:
        flat = value.detach().contiguous().view(-1).view(torch.uint8)
        return int((flat if len(flat) % 8 else flat.view(torch.int64)).sum(dtype=torch.int64))

    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: (value._version, value.data_ptr(), bits(value)) for name, value in tensors.items()}


# ---- tests

#: (network, check) that does not work and says so in one sentence
EXCUSED: frozenset[tuple[str, str]] = frozenset()


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Pictures are small here: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_network_works_or_says_why_not(part: int) -> None:
    failed = []
    for spec in [*torchvision_networks(), *timm_networks()][part::PARTS]:
        try:
            outcome = examine(spec)
        except Exception as error:
            failed.append(f"{spec}: {type(error).__name__}: {error}")
            continue
        for check, answer in outcome.answers.items():
            if not answer.startswith("works") and (spec, check) not in EXCUSED:
                failed.append(f"{spec}, {check}: {answer}")
            if "\n" in answer or len(answer) > 400:
                failed.append(f"{spec}, {check}: not one sentence: {answer}")
    assert not failed, "\n".join(failed)


def test_there_are_many_families() -> None:
    networks = timm_networks()
    assert len(set(networks)) == len(networks) >= 60
    assert len(torchvision_networks()) >= 80


def test_cheap_draws_are_draws() -> None:
    with cheap_draws():
        layer = nn.Conv2d(3, 500, 7)
        normal = nn.init.trunc_normal_(torch.empty(300, 300), std=0.02)
    bound = 1 / math.sqrt(3 * 7 * 7)
    assert bound * 0.99 < layer.weight.max() <= bound
    assert abs(float(normal.std()) - 0.02) < 0.002
    assert torch.empty(5).normal_(generator=torch.Generator().manual_seed(1)).std() > 0


def test_the_fingerprint_sees_a_change() -> None:
    module = nn.Linear(3, 3)
    before = fingerprint(module)
    assert fingerprint(module) == before
    module.weight.data[0, 0] += 1  # which leaves no trace in the version
    assert fingerprint(module) != before
