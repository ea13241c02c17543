"""A chunk of pictures through the network: its rows, and the states of the reducers for it alone.

Chunks and the batches within them are fixed by the order of the source, so a chunk gives the same bits whenever and
wherever it is scanned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convscope.batching import is_out_of_memory
from convscope.errors import NetworkError, OptionError
from convscope.extras import require
from convscope.hooks import Activations, stream
from convscope.index import code_column
from convscope.network import Network
from convscope.scanning import attributes
from convscope.scanning.pictures import Loaded
from convscope.scanning.reducers import Backward, Batch, Channels, Reducer, State
from convscope.scanning.store import pictures_schema

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Options:
    """What decides the answer, beside the network and the pictures.

    Attributes:
        layers: with patches and statistics.
        code_layers: with codes.
        patches: strongest pictures kept of each channel.
        gradients: pictures of each chunk whose gradients are taken.
        chunk, batch: pictures.
        thumbnail: longer side, in pixels.
    """

    layers: tuple[str, ...]
    code_layers: tuple[str, ...]
    patches: int
    gradients: int
    chunk: int
    batch: int
    thumbnail: int


@dataclass(frozen=True)
class Chunk:
    """What a chunk gives."""

    rows: pa.Table
    states: dict[str, State]
    readable: int
    errors: list[str]


@dataclass
class _Columns:
    """The answers of one chunk's readable pictures, batch by batch."""

    logits: list[Tensor] = field(default_factory=list)
    codes: dict[str, list[np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scanner:
    """Scans chunks of pictures that are loaded already; ``more`` reducers gather what a user wants to know."""

    network: Network
    options: Options
    more: Sequence[Reducer] = ()

    @cached_property
    def channels(self) -> Channels:
        return Channels(self.network, self.options.layers, self.options.patches)

    @cached_property
    def backward(self) -> Backward:
        return Backward(self.network, self.options.layers)

    @property
    def reducers(self) -> Sequence[Any]:
        return (self.channels, self.backward, *self.more)

    @cached_property
    def schema(self) -> pa.Schema:
        blank = torch.full((1, 3, *self.network.input_size), 0.5)
        sizes: dict[str, int] = {}

        def note(layer: str, activation: Tensor) -> None:
            sizes[layer] = self.network.codes(layer, activation).shape[1]

        stream(self.network, blank, self.options.code_layers, note)
        return pictures_schema({layer: sizes[layer] for layer in self.options.code_layers})

    @cached_property
    def classes(self) -> Mapping[str, int]:
        return class_indices(self.network.labels)

    def index_of(self, label: str | None) -> int:
        """The class of a label, by name or number; -1 where the network has none of it."""
        if label is None:
            return -1
        found = self.classes.get(plain(label), -1)
        if found < 0 and label.isdecimal() and int(label) < self.network.classes:
            return int(label)
        return found

    def scan(self, first: int, pictures: Sequence[Loaded] | Iterable[Loaded]) -> Chunk:
        """The chunk whose first picture has the id ``first``."""
        states = {each.name: each.start() for each in self.reducers}
        columns, kept = _Columns(), _Sample(self.options.gradients)
        loaded: list[Loaded] = []
        for group in _batches(enumerate(pictures, first), self.options.batch, loaded):
            ids = np.array([id for id, _ in group])
            images = torch.stack([each.image for _, each in group if each.image is not None])
            self._pass(Batch(ids, images), states, columns)
            kept.offer(images, [self.index_of(each.label) for _, each in group])
        for images, classes in kept.batches(self.options.batch):
            self.backward.add(states["gradients"], images, classes)
        rows = self._rows(first, loaded, columns)
        errors = [f"{each.entry.path}: {each.error}" for each in loaded if each.error]
        return Chunk(rows, states, len(loaded) - len(errors), errors)

    def _pass(self, batch: Batch, states: dict[str, State], columns: _Columns) -> None:
        wanted = dict.fromkeys(
            [*self.options.layers, *self.options.code_layers, *(n for m in self.more for n in m.layers)]
        )

        def receive(layer: str, activation: Tensor) -> None:
            if layer in self.options.layers:
                self.channels.update(states["channels"], batch, Activations({layer: activation}))
            if layer in self.options.code_layers:
                code = self.network.codes(layer, activation).float().cpu().numpy()
                columns.codes.setdefault(layer, []).append(code)
            for each in self.more:
                if layer in each.layers:
                    _asked(each, states[each.name], batch, Activations({layer: activation}))

        try:
            logits = stream(self.network, batch.images, wanted, receive)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise NetworkError(
                f"{len(batch.images)} pictures at once are more than the memory holds; scan with a smaller --batch"
            ) from error
        columns.logits.append(self.network.check_logits(logits).float().cpu())

    def _rows(self, first: int, loaded: Sequence[Loaded], columns: _Columns) -> pa.Table:
        pa = require("pyarrow", "index")
        there = np.array([each.error is None for each in loaded])
        labels = np.array([self.index_of(each.label) for each in loaded])
        found: dict[str, Any] = {
            "id": np.arange(first, first + len(loaded)), "path": [each.entry.path for each in loaded],
            "label": [each.label for each in loaded], "label_index": labels,
            "error": [each.error for each in loaded], "height": [each.size[0] for each in loaded],
            "width": [each.size[1] for each in loaded], "part": [each.entry.part for each in loaded],
            "offset": [each.entry.offset for each in loaded], "size": [each.entry.size for each in loaded],
            "thumbnail": [each.thumbnail for each in loaded],
        }  # fmt: skip
        found |= _spread(there, _attributes(loaded) | _predictions(columns.logits, labels[there]))
        for place, layer in enumerate(self.options.code_layers):
            column = code_column(place)
            found[column] = _vectors(columns.codes.get(layer, []), there, self.schema.field(column).type)
        arrays = [pa.array(found[each.name], each.type) if not isinstance(found[each.name], pa.Array)
                  else found[each.name] for each in self.schema]  # fmt: skip
        return pa.table(arrays, schema=self.schema)


def _asked(reducer: Reducer, state: State, batch: Batch, seen: Activations) -> None:
    """Show it to a user's reducer; what goes wrong there is not the network's fault."""
    try:
        reducer.update(state, batch, seen)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise OptionError(f"the reducer {reducer.name!r} fails at {', '.join(seen)} ({error})") from error


def _batches(
    pictures: Iterator[tuple[int, Loaded]] | Iterable[tuple[int, Loaded]], size: int, loaded: list[Loaded]
) -> Iterator[list[tuple[int, Loaded]]]:
    """The readable pictures in batches; all pictures go into ``loaded``, without their pixels."""
    readable = _readable(pictures, loaded)
    while group := list(islice(readable, size)):
        yield group


def _readable(pictures: Iterable[tuple[int, Loaded]], loaded: list[Loaded]) -> Iterator[tuple[int, Loaded]]:
    for id, each in pictures:
        loaded.append(replace(each, image=None))
        if each.image is not None:
            yield id, each


@dataclass
class _Sample:
    """Pictures of a chunk whose gradients are taken: the first of each class, then the second, up to ``most``."""

    most: int
    found: list[tuple[int, int, Tensor]] = field(default_factory=list)  # turn, class, picture
    turns: dict[int, int] = field(default_factory=dict)

    def offer(self, images: Tensor, classes: Sequence[int]) -> None:
        for image, index in zip(images, classes, strict=True):
            turn = self.turns[index] = self.turns.get(index, -1) + 1
            if len(self.found) < self.most:
                self.found.append((turn, index, image.clone()))
            elif self.found and turn < max(each[0] for each in self.found):
                last = max(range(len(self.found)), key=lambda i: (self.found[i][0], i))
                self.found[last] = (turn, index, image.clone())

    def batches(self, size: int) -> Iterator[tuple[Tensor, np.ndarray]]:
        for start in range(0, len(self.found), size):
            part = self.found[start : start + size]
            yield torch.stack([image for _, _, image in part]), np.array([index for _, index, _ in part])


# ---- columns


def _attributes(loaded: Sequence[Loaded]) -> dict[str, np.ndarray]:
    measured = [each.attributes for each in loaded if each.attributes is not None]
    table = np.stack(measured) if measured else np.zeros((0, len(attributes.NAMES)), np.float32)
    return dict(zip(attributes.NAMES, table.T, strict=True))


def _predictions(logits: Sequence[Tensor], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Of the readable pictures, of which ``labels`` are the true classes, -1 for unknown."""
    names = ("predicted", "probability", "loss", "correct")
    if not logits:
        return dict.fromkeys(names, np.zeros(0))
    chances = torch.cat(list(logits)).double().log_softmax(1).numpy()
    predicted = chances.argmax(1)
    known = labels >= 0
    rows = np.arange(len(labels))
    loss = np.where(known, -chances[rows, np.maximum(labels, 0)], np.nan)
    correct = (predicted == labels).astype(object)
    correct[~known] = None
    return dict(zip(names, (predicted, np.exp(chances[rows, predicted]), loss, correct), strict=True))


def _spread(there: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Columns of the readable pictures as columns of all, nothing where one is not."""
    found = {}
    for name, column in columns.items():
        whole = np.full(len(there), None, object)
        whole[there] = column
        found[name] = whole.tolist()
    return found


def _vectors(parts: Sequence[np.ndarray], there: np.ndarray, kind: Any) -> Any:
    pa = require("pyarrow", "index")
    codes = np.zeros((len(there), kind.list_size), np.float32)
    if parts:
        codes[there] = np.concatenate(list(parts))
    return pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), type=kind, mask=pa.array(~there))


# ---- labels


def plain(label: str) -> str:
    """A label as labels are compared."""
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())


def class_indices(labels: Sequence[str]) -> dict[str, int]:
    """Names that a folder may have to its class: whole labels, and synonyms between commas that only one label has."""
    names = {plain(label): place for place, label in enumerate(labels)}
    synonyms: dict[str, int | None] = {}
    for place, label in enumerate(labels):
        for synonym in {plain(part) for part in label.split(",")}:
            synonyms[synonym] = None if synonym in synonyms else place
    return {name: place for name, place in synonyms.items() if place is not None} | names
