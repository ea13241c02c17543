"""Cue-conflict pictures: the shape of one thing with the texture of another, made by style transfer or read.

The transfer is ``style`` with the photograph as content and another one's Gram matrices as style, so that contours stay
and surfaces change (Geirhos et al. 2019, section 2.3, with VGG-19 and the same loss). Only photographs that the network
recognises are taken, as there, so that neither cue is one that it does not know.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from convscope import progress
from convscope.behaviour.categories import Choices, choices_for, logits_of
from convscope.behaviour.conflict import cues
from convscope.errors import ImageError, OptionError, OutputError
from convscope.images import find_images, fit, read_image, to_uint8, write_image
from convscope.network import Network
from convscope.techniques.synthesize.style import style
from convscope.zoo import load_network

TRIES = 4  # photographs of a class that are looked at for one that is recognised


@dataclass(frozen=True, eq=False)
class Stimulus:
    """A picture (3, H, W), prepared, with the classes of its shape and its texture."""

    picture: Tensor
    shape: str
    texture: str
    name: str = ""


@dataclass(frozen=True)
class Transfer:
    """How the texture is laid on."""

    maker: str
    weight: float
    middle: float
    steps: int
    seed: int


def given_stimuli(network: Network, stimuli: object) -> tuple[list[Stimulus], list[str]]:
    """Those of a folder whose file names say both classes, or tuples (picture, shape, texture); and notes.

    Raises ImageError for a folder without pictures, OptionError for names that say nothing.
    """
    if isinstance(stimuli, (str, Path)):
        return _read(network, Path(stimuli))
    if not isinstance(stimuli, Sequence) or not all(isinstance(each, tuple) and len(each) == 3 for each in stimuli):
        raise OptionError("stimuli should be a folder, or a list of (picture, shape, texture)")
    return [Stimulus(network.prepare(read_image(p)), s, t, f"{s}-{t}") for p, s, t in stimuli], []


def _read(network: Network, folder: Path) -> tuple[list[Stimulus], list[str]]:
    found, nameless, first = [], 0, None
    paths = find_images(folder)
    if not paths:
        raise ImageError(
            f"{folder} holds no pictures; give a folder of cue-conflict pictures, or --shapes and --textures"
        )
    for path in progress.over(paths, "pictures"):
        try:
            shape, texture = cues(path.name, network.labels)
        except OptionError as error:
            nameless, first = nameless + 1, first or error
            continue
        found.append(Stimulus(network.prepare(read_image(path)), shape, texture, path.name))
    if first is not None and not found:
        raise first
    return found, [f"{nameless} of {len(paths)} pictures were left out: {first}"] if nameless else []


def classes_in(folder: str | Path) -> dict[str, list[Path]]:
    """Class to its photographs: the folders in ``folder`` by name. Raises ImageError where there are none."""
    root = Path(folder)
    every = find_images(root)
    found: dict[str, list[Path]] = {}
    for path in every:
        inside = path.relative_to(root).parts
        if len(inside) > 1:
            found.setdefault(inside[0], []).append(path)
    if not found:
        raise ImageError(
            f"{folder} holds no folders of classes; put the photographs of each class into one of its name"
        )
    return found


def made_stimuli(
    network: Network, shapes: str | Path, textures: str | Path, *, wanted: Sequence[str], limit: int, how: Transfer
) -> tuple[list[Stimulus], list[str]]:
    """Cue conflicts from two folders of classes, about as many of each shape; and notes.

    Raises ImageError for folders without classes, OptionError for classes that the network lacks or does not recognise.
    """
    pools = [_chosen(classes_in(folder), wanted, folder) for folder in (shapes, textures)]
    choices = choices_for(network, [name for pool in pools for name in pool])
    each = -(-limit // len(pools[0]))
    chance = random.Random(how.seed)
    recognised = _Recognised(network, choices, chance)
    shown = {
        name: recognised.of(name, paths, each, 1.0)
        for name, paths in progress.over(pools[0].items(), "classes", len(pools[0]))
    }
    painted = {
        name: recognised.of(name, paths, each, how.middle)
        for name, paths in progress.over(pools[1].items(), "classes", len(pools[1]))
    }
    notes = [*_missing(shown, "shapes"), *_missing(painted, "textures")]
    pairs = _paired(shown, painted, limit, chance)
    maker = network if how.maker == network.name else load_network(how.maker)
    return [_transferred(maker, pair, how) for pair in progress.over(pairs, "pictures")], notes


def _chosen(pool: dict[str, list[Path]], wanted: Sequence[str], folder: str | Path) -> dict[str, list[Path]]:
    absent = [name for name in wanted if name not in pool]
    if absent:
        known = ", ".join(sorted(pool)[:8])
        raise OptionError(f"{folder} has no class {absent[0]!r}; it has {known}{' and more' if len(pool) > 8 else ''}")
    return {name: pool[name] for name in wanted or sorted(pool)}


class _Recognised:
    """Photographs for which a network answers their class."""

    def __init__(self, network: Network, choices: Choices, chance: random.Random) -> None:
        self._network, self._choices, self._chance = network, choices, chance

    def of(self, name: str, paths: Sequence[Path], count: int, middle: float) -> list[Tensor]:
        """At most ``count`` of a class, drawn; of each the middle of that share of its sides, prepared."""
        drawn = self._chance.sample(list(paths), min(len(paths), TRIES * count))
        pictures = [_middle(self._network, read_image(path), middle) for path in drawn]
        answers = self._choices.answers(logits_of(self._network, pictures))
        return [picture for picture, answer in zip(pictures, answers, strict=True) if answer == name][:count]


def _middle(network: Network, photograph: Tensor, share: float) -> Tensor:
    """The photograph, or its middle, as an 8-bit file of the network's size."""
    height, width = (max(1, round(side * share)) for side in photograph.shape[1:])
    cut = fit(photograph, (min(height, width),) * 2) if share < 1 else photograph
    return read_image(to_uint8(network.prepare(cut)))


def _missing(found: Mapping[str, Sequence[Tensor]], which: str) -> list[str]:
    empty = [name for name, pictures in found.items() if not pictures]
    if len(empty) == len(found):
        raise OptionError(f"the network recognises none of the {which}; give photographs of classes that it knows")
    return (
        [f"no photograph of {', '.join(empty)} among the {which} is recognised, so these are left out"] if empty else []
    )


Pair = tuple[str, int, Tensor, str, int, Tensor]


def _paired(
    shapes: Mapping[str, Sequence[Tensor]], textures: Mapping[str, Sequence[Tensor]], limit: int, chance: random.Random
) -> list[Pair]:
    """A shape of each class in turn, each with a texture of another class, all of these about as often."""
    turns = [(name, n) for n in range(max(map(len, shapes.values()))) for name in shapes if n < len(shapes[name])]
    used = {(name, n): 0 for name, pictures in textures.items() for n in range(len(pictures))}
    pairs: list[Pair] = []
    for name, n in turns[:limit]:
        others = [key for key in used if key[0] != name]
        if not others:
            raise OptionError(f"there is no texture of another class for the shape {name!r}; give two classes or more")
        texture, m = min(
            others, key=lambda key: (sum(used[k] for k in used if k[0] == key[0]), used[key], chance.random())
        )
        used[texture, m] += 1
        pairs.append((name, n, shapes[name][n], texture, m, textures[texture][m]))
    return pairs


def _transferred(maker: Network, pair: Pair, how: Transfer) -> Stimulus:
    shape, n, content, texture, m, surface = pair
    made = style(
        maker, content, style=surface, beta=how.weight, steps=how.steps, size=max(content.shape[1:]), seed=how.seed
    )
    name = f"{_plain(shape)}{n + 1}-{_plain(texture)}{m + 1}.png"
    return Stimulus(read_image(to_uint8(made.values[0])), shape, texture, name)


def _plain(name: str) -> str:
    """Without what the file name needs for itself."""
    return "_".join(name.replace("-", "_").replace("/", "_").split())


def write_stimuli(stimuli: Sequence[Stimulus], folder: str | Path) -> None:
    """As PNG files whose names say both classes; :class:`OutputError` where the folder cannot be made."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}); name another") from error
    for stimulus in stimuli:
        write_image(stimulus.picture, Path(folder) / stimulus.name)


def answers_to(network: Network, choices: Choices, stimuli: Sequence[Stimulus]) -> tuple[str, ...]:
    """What the network decides for."""
    return choices.answers(logits_of(network, [torch.as_tensor(stimulus.picture) for stimulus in stimuli]))
