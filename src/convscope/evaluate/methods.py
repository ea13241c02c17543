"""What is judged: a technique with its options, or a map that knows nothing of the network, to compare with.

A method is written as the name of a technique, then its options: ``"saliency rule=guided reduce=l2"``. Several are
separated by commas: ``"saliency, occlusion window=16 stride=4"``. Every technique qualifies that makes a heat map.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from convscope import registry
from convscope.errors import OptionError, nearest
from convscope.network import Network
from convscope.results import Heatmap

Given: TypeAlias = "str | tuple[str, Mapping[str, Any]]"
"""A method as a caller names it: as text, or as a technique's name and its options."""


class Maps(Protocol):
    """What a measure needs of a method."""

    @property
    def name(self) -> str: ...
    @property
    def control(self) -> bool:
        """Whether it looks at nothing, and stands there for comparison."""
        ...

    def __call__(self, network: Network, images: Tensor, targets: Sequence[int]) -> Tensor:
        """(N, H, W), signed as the technique signs them, for one class a picture."""
        ...


@dataclass(frozen=True)
class Method:
    """A technique with some of its options."""

    technique: str
    options: Mapping[str, Any] = field(default_factory=dict)
    control = False

    @classmethod
    def of(cls, technique: registry.Technique[..., Any], options: Mapping[str, Any] | None = None) -> Method:
        """Of a technique that need not be registered."""
        method = cls(technique.name, options or {})
        vars(method)["_known"] = technique
        return method

    @cached_property
    def _known(self) -> registry.Technique[..., Any]:
        return registry.load(self.technique)

    @property
    def name(self) -> str:
        """As it can be given again."""
        return " ".join([self.technique, *(f"{name}={value}" for name, value in self.options.items())])

    def result(self, network: Network, images: Tensor, targets: Sequence[int]) -> Heatmap:
        """What the technique itself returns."""
        asked = {"target": list(targets)} if "target" in {option.name for option in self._known.options} else {}
        found: Heatmap = self._known.on(network, images, **asked, **self.options)
        return found

    def __call__(self, network: Network, images: Tensor, targets: Sequence[int]) -> Tensor:
        return self.result(network, images, targets).values.float()


@dataclass(frozen=True)
class Control:
    """A map that is made without looking: what a measure gives to chance, or to the middle of the picture."""

    name: str
    draw: Callable[[int, int, int], Tensor]
    control = True

    def __call__(self, network: Network, images: Tensor, targets: Sequence[int]) -> Tensor:
        return torch.stack([self.draw(number, *images.shape[-2:]) for number in range(len(images))])


def _noise(number: int, height: int, width: int) -> Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(number))


def _middle(_number: int, height: int, width: int) -> Tensor:
    rows, columns = (torch.linspace(-1, 1, length) for length in (height, width))
    return torch.exp(-(rows[:, None].square() + columns.square()) / 0.5)


CONTROLS = (Control("(noise)", _noise), Control("(middle)", _middle))
"""A number drawn for each pixel, and a round hill in the middle of the picture."""


# ---- naming them


def makes_heatmaps(technique: registry.Technique[..., Any]) -> bool:
    """Whether it turns a network and pictures into heat maps of a class."""
    if not (technique.takes_network and technique.takes_images):
        return False
    returned = typing.get_type_hints(technique.function).get("return")
    return inspect.isclass(returned) and issubclass(returned, Heatmap)


def all_methods() -> list[Method]:
    """Every technique that makes heat maps, in the registry's order, with its default options."""
    return [Method(name) for name in registry.discover() if makes_heatmaps(registry.load(name))]


def methods_of(given: str | Sequence[Given]) -> list[Method]:
    """Methods from how a caller names them, each once.

    Raises:
        OptionError: an unknown technique (the nearest are named), one that makes no heat map, an unknown option or
            a value that it cannot take.
    """
    texts = given.split(",") if isinstance(given, str) else given
    parts = [part for text in texts for part in (text.split(",") if isinstance(text, str) else [text])]
    found = [_method(part) for part in parts if not isinstance(part, str) or part.strip()]
    if not found:
        raise OptionError("no method is named; give techniques separated by commas: saliency,gradcam")
    return list({method.name: method for method in found}.values())


def _method(given: Given) -> Method:
    name, options = _parsed(given) if isinstance(given, str) else given
    name = name.replace("_", "-")
    if name not in registry.discover():
        raise OptionError(f"there is no technique {name!r}{nearest(name, registry.discover())}")
    technique = registry.load(name)
    if not makes_heatmaps(technique):
        raise OptionError(f"{name} makes no heat map; those that do: {', '.join(m.technique for m in all_methods())}")
    if "target" in options:
        raise OptionError(f"{name}: the target is the class that the network predicts; leave target out")
    technique.check(options)
    return Method(name, options)


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """``"saliency rule=guided"`` as ``("saliency", {"rule": "guided"})``."""
    name, *words = text.split()
    options = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals or not option or not value:
            raise OptionError(
                f"{text.strip()!r}: {word!r} is no option; write NAME=VALUE, as in 'saliency rule=guided'"
            )
        options[option.replace("-", "_")] = value
    return name, options
