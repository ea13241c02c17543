"""A network's answer when it may choose among few names only, as people in experiments may.

A name is a label of the network, or one of the 16 entry-level categories of Geirhos et al. (2018, arXiv:1808.08750),
below each of which ImageNet has several classes: 109 breeds of dog, one airliner. A category's share is the mean of its
classes' probabilities (as in Geirhos et al. 2019, arXiv:1811.12231), so that a dog is not the likelier answer because
there are more breeds::

    choices = choices_for(network, ["cat", "elephant"])
    choices.answers(network(images))       # ("elephant", "dog", ...)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from convscope.batching import batched
from convscope.errors import OptionError, UnknownTarget
from convscope.network import Network

_FILE = Path(__file__).parent / "categories.json"
ALIKE = 0.9  # of the labels have to fit before a network of a thousand classes is taken for one on ImageNet


@lru_cache(maxsize=1)
def entry_level() -> Mapping[str, Mapping[int, str]]:
    """The 16 categories: name to the index and label of each of its classes in ImageNet."""
    found = json.loads(_FILE.read_text("utf-8"))["categories"]
    return {name: {int(index): label for index, label in classes.items()} for name, classes in found.items()}


def knows_imagenet(network: Network) -> bool:
    """Whether its classes are ImageNet's thousand, by their labels; a thousand without labels are taken for them."""
    if network.classes != 1000:
        return False
    pairs = [pair for classes in entry_level().values() for pair in classes.items()]
    alike = [_first(label) == _first(network.labels[index]) for index, label in pairs if index < len(network.labels)]
    return not alike or sum(alike) >= ALIKE * len(alike)


def _first(label: str) -> str:
    """The first of several words for one class, plain."""
    return " ".join(label.split(",")[0].lower().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class Choices:
    """Names to choose among, in order, and the classes that stand for each."""

    names: tuple[str, ...]
    classes: tuple[tuple[int, ...], ...]

    def shares(self, logits: Tensor) -> Tensor:
        """(N, K) mean probability of each name's classes, of (N, classes) logits."""
        probabilities = logits.double().softmax(1)
        return torch.stack([probabilities[:, list(own)].mean(1) for own in self.classes], 1)

    def answers(self, logits: Tensor) -> tuple[str, ...]:
        """For each picture the name with the largest share."""
        return tuple(self.names[place] for place in self.shares(logits).argmax(1).tolist())


def choices_for(network: Network, names: Sequence[str]) -> Choices:
    """The choices of which ``names`` are some.

    For a network on ImageNet and names of entry-level categories, all 16 of these; otherwise the names themselves, each
    standing for the label that fits it.

    Raises:
        OptionError: names that no label fits, or only one name.
    """
    wanted = sorted(set(names))
    if set(wanted) <= set(entry_level()) and knows_imagenet(network):
        found = entry_level()
        return Choices(tuple(found), tuple(tuple(classes) for classes in found.values()))
    if len(wanted) < 2:
        raise OptionError(f"{', '.join(wanted) or 'nothing'} leaves no choice; give pictures of at least two classes")
    return Choices(tuple(wanted), tuple((index,) for index in _labels(network, wanted)))


def _labels(network: Network, names: Sequence[str]) -> list[int]:
    found, unknown = [], []
    for name in names:
        try:
            found.append(network.target(name))
        except UnknownTarget as error:
            unknown.append((name, str(error)))
    if unknown:
        raise OptionError(_lacking(network, names, unknown))
    twice = {index for index in found if found.count(index) > 1}
    if twice:
        both = [name for name, index in zip(names, found, strict=True) if index in twice]
        raise OptionError(f"{' and '.join(both)} are one class of {network.name}; leave one of them out, or rename it")
    return found


def _lacking(network: Network, names: Sequence[str], unknown: Sequence[tuple[str, str]]) -> str:
    first, why = unknown[0]
    if len(unknown) == 1:
        return f"{why}; name its folder or its pictures as the network's label, or leave {first!r} out"
    listed = ", ".join(name for name, _ in unknown[:5]) + (" and more" if len(unknown) > 5 else "")
    known = ", ".join(network.labels[:5])
    return (
        f"{network.name} lacks {len(unknown)} of {len(names)} names: {listed}; its labels are {known} and so on "
        "(`convscope classify` shows them): take a network that has them, or rename"
    )


def logits_of(network: Network, images: Sequence[Tensor]) -> Tensor:
    """(N, classes) on the CPU, of prepared pictures (3, H, W) each."""
    with torch.no_grad():
        passes = batched(lambda part: network(torch.stack(list(images[part]))).cpu(), len(images), network.max_batch)
        found = torch.cat(list(passes))
    return found.to(torch.promote_types(found.dtype, torch.float32))
