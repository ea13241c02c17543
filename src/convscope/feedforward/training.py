"""How a stylist is trained: many photographs, and for each what ``optimize`` would maximise, but for the weights.

    for step in train(network, photographs, {"scream": picture}, Recipe(steps=4000), layers):
        step.loss                                # of this batch
    save_stylist("scream.safetensors", step.stylist, step.recipe)

The loss is that of Johnson et al. (2016), section 3: the distance of the painted picture's features from the
photograph's (equation 2), of its Gram matrices from the painting's (equation 4), and its total variation, as
``convscope.objectives`` and ``convscope.regularizers`` have them, with four departures.

The distance of Gram matrices counts by its root. Squared it goes with the fourth power of a stroke's contrast: flat
where there are no strokes yet, where a training begins, and steep beyond.

They are compared at full and at half size, so that a ripple of one wavelength that pleases the first layer is not
enough.

The distribution of colours is compared, at full size and at 2 to 16 times coarser ones: by the sliced Wasserstein
distance of the pixels (Rabin et al. 2011; Heitz et al. 2021 compare features so). The first filters of many networks
see edges alone, so that no Gram matrix knows whether a plain sky is blue.

So is the distribution of differences between neighbours, in four directions and at three sizes. Filters of a stride
hardly see the finest ripples, and without it all that is painted has a weave, as of canvas, that no painting has.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope import memory, progress
from convscope.backward import gradient
from convscope.errors import ConvscopeError, ImageError, OptionError
from convscope.feedforward.files import SUFFIX, save_stylist
from convscope.feedforward.stylist import LARGEST, Shape, Stylist
from convscope.hooks import observe
from convscope.images import find_images, read_image, resize
from convscope.long_run import Trained, descend, gone_through, taken_up, writable
from convscope.network import Network
from convscope.objectives import Objective, features, gram
from convscope.optimize import State, load_state
from convscope.regularizers import (
    COARSER,
    TotalVariation,
    as_many,
    colour_distance,
    on_axes,
    projected_colours,
    sorted_colours,
)
from convscope.zoo.options import seeded

SOFT = 1e-5  # added under roots, whose slope at zero is infinite
KEPT = 512 << 20  # bytes of decoded photographs that are kept for the next time
SAVED = 250  # steps after which what a broken training goes on from is written
MARGIN = 8  # pixels that are painted around what is judged; see Training._parts
FINE = (1, 2, 4)  # pixels a side whose means are compared with their neighbours'
HALVES = 3  # style layers, the first ones, that are compared at half size, too


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the pictures and the network that judges.

    Attributes:
        steps: batches.
        size: side of the square crops of photographs that are judged, in pixels.
        batch: photographs a step; they take the styles in turn.
        rate: Adam's, at the start; it falls along a cosine to nothing.
        style_size: shorter side to which paintings are scaled, in pixels, which decides how large strokes become.
        content, style: weights of the two distances, each in shares of its target's own size and averaged over layers.
        opening: share of the steps, at the beginning, during which content counts a sixth: strokes that have been
            learned are easily bent to a photograph, while a stylist that has to keep the photograph learns none.
        colours: weight of the distance of the pixels' colours, of the range [0, 1].
        details: weight of that of their neighbours' differences, in shares of the painting's own.
        variation: weight of the total variation, a pixel.
        content_layers, style_layers: of the network that judges.
        seed: of the first weights and of the crops.
        shape: of the weights.
    """

    steps: int = 4000
    size: int = 128
    batch: int = 2
    rate: float = 2e-3
    style_size: int = 256
    content: float = 6.0
    opening: float = 0.25
    style: float = 10.0
    colours: float = 30.0
    details: float = 3.0
    variation: float = 0.0
    content_layers: tuple[str, ...] = ()
    style_layers: tuple[str, ...] = ()
    seed: int = 0
    shape: Shape = Shape()  # noqa: RUF009 - frozen

    def noted(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def content_at(self, step: int) -> float:
        """The weight of content at a step, counted from 0."""
        return self.content / 6 if step < self.opening * self.steps else self.content


class Photographs:
    """Random crops of the pictures in a folder; those that cannot be read are passed over and kept in mind."""

    def __init__(self, folder: str | Path) -> None:
        self.paths = find_images(folder)
        self.unreadable: dict[Path, str] = {}
        self._decoded: dict[int, Tensor] = {}
        self._bytes = 0
        if not self.paths:
            raise ImageError(f"{folder} holds no pictures; name a folder of photographs to train on")

    def crops(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """(count, 3, size, size): each of a photograph whose shorter side becomes 1 to 1.5 times ``size``."""
        return torch.stack([self._crop(size, generator) for _ in range(count)])

    def _crop(self, size: int, generator: torch.Generator) -> Tensor:
        first, scale, down, right, mirrored = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        image = self._picture(int(first * len(self.paths)), 2 * size).float() / 255
        factor = size * (1 + scale / 2) / min(image.shape[1:])
        height, width = (max(size, round(side * factor)) for side in image.shape[1:])
        image = resize(image, (height, width))
        top, left = int(down * (height - size + 1)), int(right * (width - size + 1))
        crop = image[:, top : top + size, left : left + size]
        return crop.flip(2) if mirrored < 0.5 else crop

    def _picture(self, index: int, side: int) -> Tensor:
        """(3, h, w) uint8, shorter side at most ``side``, of the photograph there or the next that can be read."""
        for place in range(len(self.paths)):
            number = (index + place) % len(self.paths)
            if number in self._decoded:
                return self._decoded[number]
            if self.paths[number] in self.unreadable:
                continue
            try:
                return self._kept(number, read_image(self.paths[number]), side)
            except ImageError as error:
                self.unreadable[self.paths[number]] = str(error)
        raise ImageError(f"none of the {len(self.paths)} pictures can be read: {next(iter(self.unreadable.values()))}")

    def _kept(self, number: int, image: Tensor, side: int) -> Tensor:
        share = side / min(image.shape[1:])
        if share < 1:
            image = resize(image, (max(1, round(image.shape[1] * share)), max(1, round(image.shape[2] * share))))
        small = (image * 255).round().to(torch.uint8)
        if self._bytes < KEPT:
            self._decoded[number], self._bytes = small, self._bytes + small.numel()
        return small


@dataclass(frozen=True)
class Step:
    """What one step found.

    Attributes:
        number: steps done, from 1.
        loss: of its batch, before the step, averaged over pictures.
        parts: the same for ``content``, ``style``, ``colours`` and ``variation``, weighted.
    """

    number: int
    loss: float
    parts: Mapping[str, float]
    _training: Training

    @property
    def stylist(self) -> Stylist:
        """As it is now: read it before the next step, or copy it."""
        return self._training.stylist

    def state(self) -> State:
        """All that is needed to go on from here: ``train(..., resume=state)``."""
        return self._training.state()


def train(
    network: Network,
    photographs: Photographs,
    paintings: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    resume: State | None = None,
) -> Iterator[Step]:
    """Train one stylist for one or several paintings.

    Args:
        network: judges what is painted; its weights stay as they are. Where it computes in bfloat16, the stylist does.
        photographs: what is painted.
        paintings: name to (3, H, W) in [0, 1], a style each.
        recipe: everything else.
        resume: what :meth:`Step.state` gave; the training ends with the weights of one that never stopped.

    Yields:
        A :class:`Step` after each step.

    Raises:
        OptionError: the state is of another training, a painting is too small, or the loss overflowed.
    """
    training = Training(network, photographs, paintings, recipe)
    if resume is not None:
        training.restore(resume)
    with memory.kept():
        for _ in progress.over(range(training.number, recipe.steps), "steps"):
            yield training.advance()


class Training:
    """Everything that a training carries from step to step."""

    def __init__(
        self, network: Network, photographs: Photographs, paintings: Mapping[str, Tensor], recipe: Recipe
    ) -> None:
        self.network, self.photographs, self.recipe = network.drawing, photographs, recipe
        self.number = 0
        shape = replace(recipe.shape, styles=len(paintings))
        with seeded(recipe.seed):
            stylist = Stylist(shape, list(paintings))
        self.stylist = stylist.to(network.device)
        self.stylist.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters = list(self.stylist.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=recipe.rate)
        self._variation = TotalVariation(recipe.variation / recipe.size**2)
        scaled = [[self._scaled(picture, share) for picture in paintings.values()] for share in (1.0, 0.5)]
        layers = recipe.style_layers
        self._targets = [
            self._grams_of(paintings, pictures, chosen)
            for pictures, chosen in zip(scaled, (layers, layers[:HALVES]), strict=True)
        ]
        self._ordered = {coarser: self._colours_of(scaled[0], coarser) for coarser in COARSER}
        self._fine = [self._differences_of(scaled[0], coarser) for coarser in FINE]

    def _scaled(self, painting: Tensor, share: float) -> Tensor:
        """(1, 3, h, w), the shorter side the recipe's, or a share of it."""
        factor = share * self.recipe.style_size / min(painting.shape[1:])
        height, width = (max(1, round(side * factor)) for side in painting.shape[1:])
        return resize(painting, (height, width))[None].to(self.network.device)

    def _grams_of(
        self, names: Iterable[str], pictures: Sequence[Tensor], layers: Sequence[str]
    ) -> dict[str, Tensor]:  # fmt: skip
        """Layer name to the paintings' Gram matrices, (styles, C, C)."""
        found = [self._gram(name, picture, layers) for name, picture in zip(names, pictures, strict=True)]
        return {layer: torch.cat([each[layer] for each in found]) for layer in layers}

    def _gram(self, name: str, painting: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        try:
            with torch.no_grad():
                seen = observe(self.network, painting, layers)
                return {layer: gram(self.network.maps(layer, seen[layer]).float()) for layer in layers}
        except ConvscopeError as error:
            height, width = painting.shape[2:]
            raise OptionError(f"the painting {name} at {width} x {height} pixels: {error}") from error

    def _colours_of(self, pictures: Sequence[Tensor], coarser: int) -> Tensor:
        """(styles, axes, n): as many as a crop has."""
        count = (self.recipe.size // max(coarser, 2)) ** 2
        return torch.cat([as_many(sorted_colours(picture, coarser), count) for picture in pictures])

    def _differences_of(self, pictures: Sequence[Tensor], coarser: int) -> list[Tensor]:
        """For each direction (styles, axes, n): as many as a crop has."""
        count = differences(torch.zeros(1, 3, self.recipe.size, self.recipe.size), coarser)[0].shape[2]
        each = [[as_many(part.sort(2).values, count) for part in differences(p, coarser)] for p in pictures]
        return [torch.cat(parts) for parts in zip(*each, strict=True)]

    def advance(self) -> Step:
        """One batch, and one step of Adam."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.number)
        side = self.recipe.size + 2 * MARGIN
        photographs = self.photographs.crops(self.recipe.batch, side, generator).to(self.network.device)
        styles = (torch.arange(self.recipe.batch) + self.number * self.recipe.batch) % len(self.stylist.names)
        parts = self._parts(photographs, styles, generator)
        loss = torch.stack(list(parts.values())).sum(0)
        slopes = gradient(loss / len(loss), self._parameters)
        if not all(bool(s.isfinite().all()) for s in slopes):
            raise OptionError(
                f"the loss overflowed at step {self.number + 1}; lower the rate, or train with --precision float32"
            )
        self._step(slopes)
        found = {name: float(part.detach().mean()) for name, part in parts.items()}
        return Step(self.number, sum(found.values()), found, self)

    def _parts(self, photographs: Tensor, styles: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The weighted terms of the loss, each (N,).

        The network that judges sees a window, whose place is drawn anew each time: its zeros beyond the border would
        leave a frame in what is painted, and the strides of its layers a grid.
        """
        with torch.enable_grad(), self._autocast():
            corner = tuple(torch.randint(LARGEST, (2,), generator=generator).tolist())  # as if of a larger picture
            painted = self.stylist(photographs.contiguous(memory_format=torch.channels_last), styles, corner)
        top, left = torch.randint(2 * MARGIN + 1, (2,), generator=generator).tolist()
        window = (..., slice(top, top + self.recipe.size), slice(left, left + self.recipe.size))
        painted, photographs = painted[window], photographs[window]
        content = self._content(photographs)
        found = observe(self.network, painted, content.layers | set(self._targets[0]))
        halved = observe(self.network, F.avg_pool2d(painted, 2), self._targets[1])
        return {
            "content": -content(found), "style": self._unlike([found, halved], styles),
            "colours": self._colours(painted.float(), styles), "details": self._details(painted.float(), styles),
            "variation": self._variation(painted),
        }  # fmt: skip

    def _unlike(self, seen: Sequence[Mapping[str, Tensor]], styles: Tensor) -> Tensor:
        """(N,): roots of the Gram matrices' squared distances, in shares of the painting's, averaged over layers."""
        found = []
        for activations, targets in zip(seen, self._targets, strict=True):
            for layer, target in targets.items():
                wanted = target[styles.to(target.device)]
                apart = (gram(self.network.maps(layer, activations[layer]).float()) - wanted).square().sum((1, 2))
                found.append((apart / wanted.square().sum((1, 2)).clamp(min=1e-12) + SOFT).sqrt())
        return self.recipe.style * torch.stack(found).mean(0)

    def _colours(self, painted: Tensor, styles: Tensor) -> Tensor:
        """(N,): sliced Wasserstein distance from the painting's colours, averaged over resolutions."""
        found = []
        for coarser, ordered in self._ordered.items():
            wanted = ordered[styles.to(ordered.device)]
            apart = colour_distance(projected_colours(painted, coarser), wanted)
            found.append((apart + SOFT).sqrt())
        return self.recipe.colours * torch.stack(found).mean(0)

    def _details(self, painted: Tensor, styles: Tensor) -> Tensor:
        """(N,): the same of differences, in shares of the painting's, averaged over sizes and directions."""
        found = []
        for coarser, directions in zip(FINE, self._fine, strict=True):
            for mine, ordered in zip(differences(painted, coarser), directions, strict=True):
                wanted = ordered[styles.to(ordered.device)]
                size = wanted.square().mean((1, 2)).clamp(min=1e-12)
                found.append((colour_distance(mine, wanted) / size + SOFT).sqrt())
        return self.recipe.details * torch.stack(found).mean(0)

    def _content(self, photographs: Tensor) -> Objective:
        """Minus the distance from the photographs' features."""
        layers = self.recipe.content_layers
        with torch.no_grad():
            seen = observe(self.network, photographs, layers)
        return features({name: seen[name].detach() for name in layers}) * (
            self.recipe.content_at(self.number) / len(layers)
        )

    def _autocast(self) -> Any:
        return torch.autocast(self.network.device.type, torch.bfloat16, enabled=self.network.precision == "bfloat16")

    def _step(self, slopes: Sequence[Tensor]) -> None:
        rate = self.recipe.rate * (1 + math.cos(math.pi * self.number / self.recipe.steps)) / 2
        descend(self._optimizer, self._parameters, slopes, rate)
        self.number += 1

    # ---- to go on later

    def state(self) -> State:
        """Copies of all that changes, and the recipe that it belongs to."""
        weights = {name: value.detach().cpu().clone() for name, value in self.stylist.state_dict().items()}
        return {
            "parameters": weights, "number": self.number, "recipe": self._noted(),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
        }  # fmt: skip

    def _noted(self) -> dict[str, Any]:
        return {
            **self.recipe.noted(), "styles": list(self.stylist.names), "network": self.network.name,
            "paintings": self._ordered[COARSER[-1]].mean(2).tolist(), "photographs": len(self.photographs.paths),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Takes up where :meth:`state` was taken; :class:`OptionError` for the state of another training."""
        state = taken_up(state, self._noted(), "training of a style", "optimizer", "train-style")
        self.stylist.load_state_dict(state["parameters"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.number = int(state["number"])


def differences(images: Tensor, coarser: int) -> list[Tensor]:
    """For each of four directions (N, axes, n), between neighbours of a coarser picture; of the picture itself every
    second of them, across and down."""
    small = images if coarser == 1 else F.avg_pool2d(images, coarser)
    here = small[..., :-1, :-1]
    found = [small[..., :-1, 1:] - here, small[..., 1:, :-1] - here, small[..., 1:, 1:] - here,
             small[..., 1:, :-1] - small[..., :-1, 1:]]  # fmt: skip
    return [on_axes(each[..., ::2, ::2] if coarser == 1 else each) for each in found]


def resumed(path: str | Path | None) -> State | None:
    """The state in a file; OptionError when it is none."""
    return None if path is None else load_state(Path(path))


def train_into(
    path: str | Path, steps: Iterator[Step], total: int, about: Mapping[str, Any], *, every: int = SAVED
) -> Trained[Step]:
    """Go through a training and write the stylist at its end, or where it is stopped by an interrupt.

    Args:
        path: of the stylist. Beside it, with the suffix .state, stands what a stopped or broken training goes on from.
        steps: from :func:`train`.
        total: steps that were asked for, for the sentence on a training that was stopped.
        about: what the file says of its making.
        every: of how many steps the state is written.
    """
    path = writable(Path(path), SUFFIX)
    found = gone_through(path.with_suffix(".state"), steps, total, every=every)
    save_stylist(path, found.last.stylist, {**about, "steps_done": found.steps})
    return found.wrote_first(path)
