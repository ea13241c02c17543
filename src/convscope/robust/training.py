"""Adversarial training: each step fools the network as it is, and then teaches it the pictures that fooled it.

    for step in train(network, photographs, Recipe(epochs=20)):
        step.loss, step.watched                  # of this batch; of pictures held out, at the end of each epoch

The pictures of a step are moved within ``epsilon`` of L-infinity by one sign step from a random start (Wong, Rice and
Kolter 2020, "Fast is better than free", arXiv:2001.03994, algorithm 3) or by several with projection (Madry et al.
2018, arXiv:1706.06083). Fast training can collapse: the network learns to spoil the one step and nothing else. What
shows it is an attack of many steps on pictures that are held out, which is measured after every epoch; the weights
that are kept are those that stood it best.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import progress
from convscope.backward import gradient
from convscope.errors import OptionError
from convscope.images import atomic_write
from convscope.long_run import Trained, descend, gone_through, taken_up, writable
from convscope.network import Network
from convscope.optimize import State
from convscope.robust.pictures import Photographs, split

SAVED = 100  # steps after which what a broken training goes on from is written
SUFFIX = ".safetensors"
GRAIN = 16  # pixels; smaller pictures at the start have sides that are a multiple of it


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the photographs and the network that training starts from.

    Attributes:
        epochs: passes over the photographs.
        epsilon: farthest that a pixel's value is moved, in [0, 1].
        attack: ``fgsm``, one step of 1.25 epsilon from a random start; ``pgd``, ``attack_steps`` of them, each
            2.5 epsilon / ``attack_steps``.
        attack_steps: of ``pgd``.
        ramp: share of the training over which epsilon rises, from a quarter of itself.
        small: share of the training with pictures of three quarters of the side; for networks that take any size.
        crop: smallest share of a photograph's area that is seen at a time; 1 for all of it.
        mirror: whether half of the photographs are mirrored; not for what must not be, as writing.
        batch: photographs a step.
        rate: AdamW's, at its peak; it rises over the first twentieth and falls along a cosine to nothing.
        decay: of the weights, AdamW's.
        smoothing: of the labels.
        average: how much of the averaged weights is kept each step; they are what is held to be the result.
        held_out: share of the photographs that is never trained on.
        watched: how many of those are attacked after each epoch, at most.
        seed: of everything random.
    """

    epochs: int = 20
    epsilon: float = 4 / 255
    attack: Literal["fgsm", "pgd"] = "fgsm"
    attack_steps: int = 3
    ramp: float = 0.25
    small: float = 0.0
    crop: float = 0.4
    mirror: bool = True
    batch: int = 64
    rate: float = 5e-4
    decay: float = 0.02
    smoothing: float = 0.1
    average: float = 0.998
    held_out: float = 0.1
    watched: int = 256
    seed: int = 0

    def noted(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def radius(self, share: float) -> float:
        """Epsilon when this share of the training is done."""
        return self.epsilon * (1.0 if share >= self.ramp else 0.25 + 0.75 * share / self.ramp)

    def speed(self, share: float) -> float:
        """The rate when this share of the training is done."""
        warm = 0.05
        if share < warm:
            return self.rate * (share + 1e-3) / warm
        return self.rate * (1 + math.cos(math.pi * (share - warm) / (1 - warm))) / 2

    def side(self, size: tuple[int, int], share: float) -> tuple[int, int]:
        """(height, width) of the pictures when this share of the training is done."""
        if share >= self.small:
            return size
        height, width = (max(GRAIN, round(0.75 * each / GRAIN) * GRAIN) for each in size)
        return height, width


@dataclass(frozen=True)
class Watched:
    """Shares of the held-out photographs that the averaged network tells right: as they are, and attacked."""

    epoch: int
    clean: float
    attacked: float


@dataclass(frozen=True)
class Step:
    """What one step found.

    Attributes:
        number: steps done, from 1.
        loss: of its attacked pictures, before the step.
        right: share of them that was told right.
        watched: what the held-out photographs said, at the end of an epoch.
    """

    number: int
    loss: float
    right: float
    watched: Watched | None
    _training: Training

    def network(self) -> Network:
        """The best so far on held-out photographs; a copy."""
        return self._training.result()

    def history(self) -> list[Watched]:
        """What the held-out photographs said at the end of each epoch so far."""
        return list(self._training.history)

    def state(self) -> State:
        """All that is needed to go on from here: ``train(..., resume=state)``."""
        return self._training.state()


def train(network: Network, photographs: Photographs, recipe: Recipe, *, resume: State | None = None) -> Iterator[Step]:
    """Train a copy of a network to stand attacks.

    Args:
        network: where training starts; it stays as it is. Where it draws in bfloat16, it is trained in it.
        photographs: from :func:`convscope.robust.pictures.read_classes`.
        recipe: everything else.
        resume: what :meth:`Step.state` gave; the training ends with the weights of one that never stopped.

    Returns:
        A :class:`Step` after each step.

    Raises:
        OptionError: the state is of another training, there are fewer photographs than a batch, or the loss overflowed.
    """
    return Training(network, photographs, recipe).through(resume)


class Training:
    """Everything that a training carries from step to step."""

    def __init__(self, network: Network, photographs: Photographs, recipe: Recipe) -> None:
        self.recipe, self.number, self.history = recipe, 0, list[Watched]()
        self.given = network
        self.photographs, self.held = split(photographs, recipe.held_out)
        self.per_epoch = len(self.photographs) // recipe.batch
        if not self.per_epoch:
            raise OptionError(
                f"{len(self.photographs)} photographs to train on are fewer than a batch of {recipe.batch}; give more, "
                "or a smaller --batch"
            )
        self.steps = recipe.epochs * self.per_epoch
        self._live, self._averaged = _copied(network), _copied(network)
        self._parameters = [p for p in self._live.module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(_groups(self._parameters, recipe.decay), lr=recipe.rate)
        self._best: dict[str, Tensor] = _weights(self._averaged.module)

    def through(self, resume: State | None = None) -> Iterator[Step]:
        """All steps that are left."""
        if resume is not None:
            self.restore(resume)
        for _ in progress.over(range(self.number, self.steps), "steps"):
            yield self.advance()

    def advance(self) -> Step:
        """One batch, and one step of AdamW."""
        share = self.number / self.steps
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.number)
        chosen = self._chosen()
        size = self.recipe.side(self.given.input_size, share)
        images = self.photographs.crops(chosen, size, generator, least=self.recipe.crop, mirror=self.recipe.mirror).to(
            self.given.device
        )
        labels = self.photographs.labels[chosen].to(self.given.device)
        self._live.module.train()
        images = self._fooling(images, labels, self.recipe.radius(share), generator)
        logits, loss = self._loss(images, labels)
        slopes = gradient(loss, self._parameters)
        if not all(bool(s.isfinite().all()) for s in slopes):
            raise OptionError(f"the loss overflowed at step {self.number + 1}; lower --rate")
        self._step(slopes, self.recipe.speed(share))
        right = float((logits.detach().argmax(1) == labels).float().mean())
        return Step(self.number, float(loss.detach()), right, self._look(), self)

    def _chosen(self) -> Tensor:
        """Places of this step's photographs, in an order of its epoch's own."""
        epoch, step = divmod(self.number, self.per_epoch)
        order = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + 500_000_000 + epoch)
        places = torch.randperm(len(self.photographs), generator=order)
        return places[step * self.recipe.batch : (step + 1) * self.recipe.batch]

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            logits = self._live.check_logits(self._live.forward(images)).float()
            return logits, F.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)

    def _fooling(self, images: Tensor, labels: Tensor, radius: float, generator: torch.Generator) -> Tensor:
        """The pictures, moved within ``radius`` to where the network as it is does worse."""
        steps = 1 if self.recipe.attack == "fgsm" else self.recipe.attack_steps
        stride = (1.25 if steps == 1 else 2.5 / steps) * radius
        start = (2 * torch.rand(images.shape, generator=generator) - 1).to(images) * radius
        moved = (images + start).clamp(0, 1)
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            slope = gradient(self._loss(moved, labels)[1], moved)
            moved = torch.clamp(moved.detach() + stride * slope.sign(), images - radius, images + radius).clamp(0, 1)
        return moved.detach()

    def _step(self, slopes: Sequence[Tensor], rate: float) -> None:
        descend(self._optimizer, self._parameters, slopes, rate)
        keep = min(self.recipe.average, (1 + self.number) / (10 + self.number))
        mine, theirs = self._averaged.module.state_dict(), self._live.module.state_dict()
        for name, value in mine.items():
            value.lerp_(theirs[name], 1 - keep) if value.is_floating_point() else value.copy_(theirs[name])
        self.number += 1

    # ---- what the held-out photographs say

    def _look(self) -> Watched | None:
        epoch, rest = divmod(self.number, self.per_epoch)
        if rest:
            return None
        found = self.watch(epoch)
        if not self.history or found.attacked >= max(each.attacked for each in self.history):
            self._best = _weights(self._averaged.module)
        self.history.append(found)
        return found

    def watch(self, epoch: int) -> Watched:
        """Clean and attacked accuracy of the averaged network on held-out photographs."""
        chosen = torch.arange(min(len(self.held), self.recipe.watched))
        clean, attacked = [], []
        for part in chosen.split(self.recipe.batch):
            images = self.held.whole(part, self.given.input_size).to(self.given.device)
            labels = self.held.labels[part].to(self.given.device)
            clean.append(right(self._averaged, images, labels))
            moved = self._worst(images, labels, torch.Generator().manual_seed(int(part[0])))
            attacked.append(right(self._averaged, moved, labels))
        return Watched(epoch, *(float(torch.cat(each).float().mean()) for each in (clean, attacked)))

    def _worst(self, images: Tensor, labels: Tensor, generator: torch.Generator, steps: int = 10) -> Tensor:
        radius = self.recipe.epsilon
        moved = images + (2 * torch.rand(images.shape, generator=generator) - 1).to(images) * radius
        for _ in range(steps):
            moved = moved.clamp(0, 1).detach().requires_grad_()
            with torch.enable_grad():
                loss = F.cross_entropy(self._averaged(moved).float(), labels)
            slope = gradient(loss, moved)
            moved = torch.clamp(moved.detach() + radius / 4 * slope.sign(), images - radius, images + radius)
        return moved.clamp(0, 1)

    def result(self) -> Network:
        """The network with the best weights so far, in evaluation mode."""
        made = _copied(self.given)
        made.module.load_state_dict(self._best)
        made.module.eval().requires_grad_(False)
        return replace(made, precision=self.given.precision, weights="adversarially trained")

    # ---- to go on later

    def state(self) -> State:
        """Copies of all that changes, and the recipe that it belongs to."""
        return {
            "parameters": _weights(self._live.module), "averaged": _weights(self._averaged.module),
            "best": dict(self._best), "number": self.number, "recipe": self._noted(),
            "history": [asdict(each) for each in self.history],
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
        }  # fmt: skip

    def _noted(self) -> dict[str, Any]:
        return {**self.recipe.noted(), "network": self.given.name, "photographs": len(self.photographs)}

    def restore(self, state: State) -> None:
        """Takes up where :meth:`state` was taken; :class:`OptionError` for the state of another training."""
        state = taken_up(state, self._noted(), "adversarial training", "averaged", "train-robust")
        self._live.module.load_state_dict(state["parameters"])
        self._averaged.module.load_state_dict(state["averaged"])
        self._best, self.number = dict(state["best"]), int(state["number"])
        self.history = [Watched(**each) for each in state["history"]]
        self._optimizer.load_state_dict(state["optimizer"])


def train_into(
    path: str | Path, steps: Iterator[Step], total: int, about: Mapping[str, Any], *, half: bool = False,
    every: int = SAVED,
) -> Trained[Step]:  # fmt: skip
    """Go through a training and write the best weights at its end, or where it is stopped by an interrupt.

    Args:
        path: of the weights, which ``load_network(..., weights=FILE)`` reads, labels and preparation with them. Beside
            it, with the suffix .state, stands what a stopped or broken training goes on from.
        steps: from :func:`train`.
        total: steps that were asked for.
        about: what the file says of its making.
        half: stored in half precision, which takes half the space.
        every: of how many steps the state is written.
    """
    path = writable(Path(path), SUFFIX)
    found = gone_through(path.with_suffix(".state"), steps, total, every=every)
    history = [asdict(each) for each in found.last.history()]
    save_network(path, found.last.network(), {**about, "steps_done": found.steps, "watched": history}, half=half)
    return found.wrote_first(path)


def told(history: Sequence[Watched], recipe: Recipe) -> list[str]:
    """What to know of a training, in sentences."""
    if not history:
        return ["not one epoch was finished, so the weights are those that it started from; go on with --resume"]
    best = max(history, key=lambda each: (each.attacked, each.epoch))
    said = (
        f"of the photographs held out, {best.clean:.0%} are told right as they are and {best.attacked:.0%} under ten "
        f"steps at {recipe.epsilon * 255:.3g}/255, after epoch {best.epoch} of {recipe.epochs}"
    )
    last = history[-1]
    if last.attacked > best.attacked / 2 or best.attacked == 0:
        return [said]
    return [
        said,
        f"training collapsed: after epoch {last.epoch} only {last.attacked:.0%} stood the attack, as happens when the "
        "network learns to spoil the one step that it is trained on; a smaller --epsilon or --attack pgd helps",
    ]


def save_network(path: Path, network: Network, recipe: Mapping[str, Any], *, half: bool = False) -> None:
    """Write the weights of a network with all that ``load_network`` reads beside them; whole or not at all."""
    state = {name: value.detach().cpu() for name, value in network.module.state_dict().items()}
    weights = {
        name: (value.half() if half and value.is_floating_point() else value).clone(
            memory_format=torch.contiguous_format
        )
        for name, value in state.items()
    }
    metadata = {
        "labels": json.dumps(network.labels), "mean": json.dumps(network.mean.tolist()),
        "std": json.dumps(network.std.tolist()), "input_size": json.dumps(network.input_size),
        "crop": json.dumps(network.crop), "recipe": json.dumps(dict(recipe)),
    }  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(weights, metadata))


def right(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) whether the network's first answer is the label."""
    with torch.no_grad():
        return network(images).argmax(1) == labels


def _copied(network: Network) -> Network:
    module = copy.deepcopy(network.module).requires_grad_(True)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return replace(network.drawing, module=module)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _groups(parameters: Sequence[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norms do not."""
    heavy, light = ([p for p in parameters if (p.ndim > 1) is wanted] for wanted in (True, False))
    return [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]
