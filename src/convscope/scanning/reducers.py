"""What is gathered over all pictures in one pass, in states of a bounded size that can be merged.

A reducer's state is a mapping of arrays. One chunk of pictures gives a state of its own, and the chunks' states are
merged in the order of the chunks: so a scan that was stopped, or that ran on many machines, ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from convscope.backward import gradient
from convscope.hooks import OUTPUT, Activations, observe
from convscope.network import Network
from convscope.scanning import planes

State: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Pictures that pass the network together: their ``ids`` (N,), and ``images`` (N, 3, H, W) as it gets them."""

    ids: np.ndarray
    images: Tensor


class Reducer(Protocol):
    """Something gathered over all pictures.

    ``update`` is called for each batch as often as one of the ``layers`` has run, in the middle of the pass, with an
    ``activations`` that holds this one layer; it adds to the arrays of the state in place, and must keep nothing of
    what it was shown. Activations are in the precision of the scan, also bfloat16, which NumPy lacks: take ``.float()``
    of what is small. ``merge`` makes one state of two, the first of earlier pictures; ``finish`` makes named arrays
    of the last state.
    """

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Sequence[str]: ...
    def start(self) -> State: ...
    def update(self, state: State, batch: Batch, activations: Activations) -> None: ...
    def merge(self, first: State, second: State) -> State: ...
    def finish(self, state: State) -> Mapping[str, Any]: ...


# ---- channels


@dataclass(frozen=True)
class Channels:
    """Of every channel of every layer: the strongest pictures and positions, and statistics of its values."""

    network: Network
    layers: Sequence[str]
    count: int
    name: str = "channels"

    def start(self) -> State:
        return {
            f"{layer}/{field}": array
            for layer in self.layers
            for field, array in planes.empty(self.network.layer(layer).channels, self.count).items()
        }

    def update(self, state: State, batch: Batch, activations: Activations) -> None:
        for layer, activation in activations.items():
            maps = self.network.maps(layer, activation)
            state[f"{layer}/grid"][:] = maps.shape[2:]
            planes.gather(maps, batch.ids, part_of(state, layer))

    def merge(self, first: State, second: State) -> State:
        merged: State = {}
        for layer in self.layers:
            found = planes.merged(part_of(first, layer), part_of(second, layer))
            merged |= {f"{layer}/{field}": array for field, array in found.items()}
        return merged

    def finish(self, state: State) -> dict[str, dict[str, np.ndarray]]:
        return {layer: planes.finished(part_of(state, layer)) for layer in self.layers}


def part_of(state: State, layer: str) -> State:
    """The fields of one layer; the arrays are the state's own."""
    return {field: state[f"{layer}/{field}"] for field in planes.FIELDS}


# ---- gradients


@dataclass(frozen=True)
class Backward:
    """Norms of the loss's gradient at the picture and at each layer, summed by class over a sample of pictures."""

    network: Network
    layers: Sequence[str]
    name: str = "gradients"

    def start(self) -> State:
        classes, layers = self.network.classes, len(self.layers)
        shapes: dict[str, tuple[int, ...]] = {"count": (classes,), "input": (classes,), "input2": (classes,)}
        shapes |= {"layer": (classes, layers), "layer2": (classes, layers)}
        return {name: np.zeros(shape) for name, shape in shapes.items()}

    def add(self, state: State, images: Tensor, classes: np.ndarray) -> None:
        """The sample of a chunk: pictures (N, 3, H, W) and the true class of each, -1 for the predicted one."""
        for place, norm in self._norms(images, classes):
            state["count"][place] += 1
            state["input"][place] += norm[0]
            state["input2"][place] += norm[0] ** 2
            state["layer"][place] += norm[1:]
            state["layer2"][place] += norm[1:] ** 2

    def _norms(self, images: Tensor, classes: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(class, norms at the picture and at the layers) of each picture."""
        with torch.enable_grad():
            pictures = images.detach().clone().requires_grad_()
            seen = observe(self.network, pictures, [*self.layers, OUTPUT])
            logits = self.network.check_logits(seen[OUTPUT])
            given = torch.from_numpy(classes).to(logits.device)
            target = torch.where(given >= 0, given, logits.argmax(1))
            loss = torch.nn.functional.cross_entropy(logits.float(), target, reduction="none")
            slopes = gradient(loss, [pictures, *(seen[layer] for layer in self.layers)])
        norms = torch.stack([slope.detach().double().flatten(1).norm(dim=1) for slope in slopes], 1).cpu().numpy()
        return list(zip(target.tolist(), norms, strict=True))

    def merge(self, first: State, second: State) -> State:
        return {name: first[name] + second[name] for name in first}

    def finish(self, state: State) -> dict[str, np.ndarray]:
        there = np.flatnonzero(state["count"])
        count = state["count"][there]
        found = {"class": there, "count": count.astype(np.int64)}
        for name in ("input", "layer"):
            total, squares = state[name][there], state[f"{name}2"][there]
            divisor = count.reshape(-1, *[1] * (total.ndim - 1))
            mean = total / divisor
            found[f"{name}_mean"] = mean
            found[f"{name}_spread"] = np.sqrt(np.maximum(squares / divisor - mean**2, 0))
        return found


def merged(reducers: Sequence[Any], first: Mapping[str, State], second: Mapping[str, State]) -> dict[str, State]:
    """The states of two runs of chunks, the first in front of the second."""
    return {each.name: each.merge(first[each.name], second[each.name]) for each in reducers}
