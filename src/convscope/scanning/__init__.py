"""One pass over a data set, from which every later question is answered.

    index = scan(network, "photos/", "photos.index")

``scan`` goes on where a stopped one was, and adds pictures that are new; see :mod:`convscope.index` for reading.
"""

from __future__ import annotations

import hashlib
import os
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from convscope.errors import ImageError, OptionError
from convscope.extras import require
from convscope.index import Index, digest_of, open_index
from convscope.network import Network
from convscope.progress import counting
from convscope.scanning import cluster
from convscope.scanning.chunks import Chunk, Options, Scanner
from convscope.scanning.pictures import Loader, prefetched
from convscope.scanning.reducers import Reducer, State, merged
from convscope.scanning.store import Store, gathered_table, gradient_table, layer_tables, locked
from convscope.sources import Entry, Given, PictureSource, open_source
from convscope.zoo import load_network

__all__ = ["scan"]
Engine = Literal["local", "ray"]


def scan(
    network: Network | nn.Module | str,
    source: Given,
    output: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    code_layers: Sequence[str] | None = None,
    patches: int = 9,
    gradients: int = 16,
    chunk: int = 512,
    batch: int | None = None,
    thumbnail: int = 96,
    workers: int | None = None,
    checkpoint: float = 5.0,
    engine: Engine = "local",
    reducers: Sequence[Reducer] = (),
    loaded: Mapping[str, Any] | None = None,
) -> Index:
    """Show every picture of ``source`` to the network once, and keep what questions need in the index ``output``.

    An index that is there already goes on: a scan that was stopped, also by a kill, ends with the same bits as one
    that was not; and pictures that are new are added, without reading the others again. A picture that cannot be read
    is a row with the reason.

    Args:
        network: a classifier. With its precision ``auto`` the scan computes in bfloat16 where the device is fast at
            it.
        source: a folder, in which folders are classes; a list; shards; parquet files; or a
            ``torch.utils.data.Dataset`` of pictures and labels, as :func:`convscope.sources.open_source` says.
        output: folder of the index, made where it is missing.
        layers: those of whose channels patches and statistics are kept; of every convolution, behind its norm and
            rectifier, if left out.
        code_layers: those whose output is kept for every picture, averaged over positions; ``network.code_layer`` if
            left out.
        patches: how many pictures are kept of each channel, the strongest.
        gradients: pictures of each chunk whose gradients are taken, of as many classes as possible; 0 for none.
        chunk: pictures between which the scan can be stopped.
        batch: pictures in one pass; chosen if left out.
        thumbnail: longer side of thumbnails, in pixels.
        workers: threads that read pictures; as many as there are processors if left out.
        checkpoint: seconds between two checkpoints, at least; a kill costs at most these and one chunk.
        engine: ``local``, or ``ray`` for a cluster of Ray.
        reducers: what else to gather in the same pass, as :class:`convscope.scanning.reducers.Reducer` says;
            ``index.gathered(name)`` has what each has found.
        loaded: options of :func:`~convscope.load_network` with which the index can load the network again.

    Raises:
        ImageError: there are no pictures, or none that can be read.
        IndexUnusable: the index there was made otherwise (the difference is said), or is being written.
        OutputError: the index cannot be written; what was scanned before is kept.
        NetworkError: the network is no classifier.
    """
    prepared = _network(network)
    options = _options(prepared, layers, code_layers, patches, gradients, chunk, batch, thumbnail, engine)
    pictures = open_source(source)
    total = _counted(pictures)
    scanner = Scanner(prepared, options, _checked(reducers, prepared))
    about = _about(network, prepared, options, pictures, loaded) | {"reducers": [each.name for each in reducers]}
    place = Path(output)
    with locked(place):
        store = Store(place, about, scanner.schema)
        run = _Run(store, scanner, checkpoint)
        entries = _fresh(pictures, store)
        left = total - store.checkpoint["pictures"]
        loader = Loader(pictures, prepared, options.thumbnail)
        first = store.checkpoint["pictures"]
        if engine == "ray":
            chunks = cluster.chunks(scanner, pictures, entries, first, about["loaded"])
        else:
            chunks = _local(scanner, loader, entries, first, workers)
        with counting("pictures", max(left, 1)) as counter:
            for each in chunks:
                counter.turn(len(each.rows))
                run.take(each)
                counter.done()
        run.finish()
    return _opened(place, prepared)


def _opened(place: Path, network: Network) -> Index:
    index = open_index(place)
    index.__dict__["network"] = network
    return index


def _network(network: Network | nn.Module | str) -> Network:
    return load_network(network).drawing


def _options(
    network: Network, layers: Sequence[str] | None, code_layers: Sequence[str] | None, patches: int, gradients: int,
    chunk: int, batch: int | None, thumbnail: int, engine: str,
) -> Options:  # fmt: skip
    least = {"patches": (patches, 1), "gradients": (gradients, 0), "chunk": (chunk, 1), "thumbnail": (thumbnail, 8)}
    least |= {} if batch is None else {"batch": (batch, 1)}
    for name, (given, low) in least.items():
        if given < low:
            raise OptionError(f"scan: {name} should be at least {low}, not {given}")
    if engine not in typing.get_args(Engine):
        raise OptionError(f"scan: engine should be local or ray, not {engine!r}")
    network.classes  # noqa: B018 - refuses what is no classifier
    chosen = tuple(layers if layers is not None else network.convolution_layers)
    codes = tuple(code_layers) if code_layers else (network.code_layer,)
    for name in (*chosen, *codes):
        network.layer(name)
    size = batch or network.at_once(torch.empty(0, *network.input_size))
    return Options(chosen, codes, patches, gradients, chunk, min(size, chunk), thumbnail)


def _checked(reducers: Sequence[Reducer], network: Network) -> Sequence[Reducer]:
    names = ["channels", "gradients", *(each.name for each in reducers)]
    if len(set(names)) < len(names) or any("|" in name for name in names):
        raise OptionError(f"scan: reducers need names of their own, without |; these are {', '.join(names[2:])}")
    for each in reducers:
        for layer in each.layers:
            network.layer(layer)
    return tuple(reducers)


def _about(
    given: Network | nn.Module | str, network: Network, options: Options, source: PictureSource,
    loaded: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Provenance."""
    decided = asdict(options)
    layers, code_layers = list(decided.pop("layers")), list(decided.pop("code_layers"))
    return {
        "network": network.name, "weights": network.weights, "digest": digest_of(network),
        "precision": network.arithmetic, "device": str(network.device),
        "loaded": dict(loaded) if loaded else _reloadable(given, network),
        "preparation": {
            "mean": network.mean.tolist(), "std": network.std.tolist(), "input_size": list(network.input_size),
            "crop": network.crop,
        },
        "layers": layers, "code_layers": code_layers, "options": decided,
        "source": {"kind": source.kind, "location": source.location, "given": list(source.given)},
        "versions": _versions(),
    }  # fmt: skip


def _reloadable(given: Network | nn.Module | str, network: Network) -> dict[str, Any]:
    """Options with which the same network can be loaded, where its name and its digest say that it can."""
    if isinstance(given, str):
        return {"network": given}
    if network.name == "builtin" or network.name.startswith(("torchvision:", "timm:")):
        try:
            again = load_network(network.name)
        except Exception:
            return {}
        return {"network": network.name} if digest_of(again) == digest_of(network) else {}
    return {}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("convscope", "torch", "numpy", "lancedb")}


# ---- what is still to be scanned


def _counted(source: PictureSource) -> int:
    total = sum(1 for _ in source.entries())
    if not total:
        where = ", ".join(source.given) or "the dataset"
        raise ImageError(f"{where} holds no pictures; name a folder, a list or shards that do")
    return total


def _fresh(source: PictureSource, store: Store) -> Iterator[Entry]:
    """Entries that the index does not have yet."""
    known = _Known.of(store.paths())
    entries = source.entries()
    while block := list(islice(entries, 4096)):
        there = known.has([entry.path for entry in block])
        yield from (entry for entry, old in zip(block, there, strict=True) if not old)


@dataclass
class _Known:
    """Which paths the index has: eight bytes each."""

    hashes: np.ndarray

    @classmethod
    def of(cls, blocks: Iterator[list[str]]) -> _Known:
        return cls(np.sort(np.concatenate([np.zeros(0, np.uint64), *(_hashed(block) for block in blocks)])))

    def has(self, paths: list[str]) -> np.ndarray:
        wanted = _hashed(paths)
        if not len(self.hashes):
            return np.zeros(len(paths), bool)
        places = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        found: np.ndarray = self.hashes[places] == wanted
        return found


def _hashed(paths: list[str]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(path.encode(), digest_size=8).digest() for path in paths)
    return np.frombuffer(digests, np.uint64)


# ---- chunks, by one machine


def _local(
    scanner: Scanner, loader: Loader, entries: Iterator[Entry], first: int, workers: int | None
) -> Iterator[Chunk]:
    threads = min(os.cpu_count() or 1, 16) if workers is None else workers
    pictures = prefetched(loader, entries, threads, 2 * scanner.options.batch + threads)
    for start in pictures:
        part = chain([start], islice(pictures, scanner.options.chunk - 1))
        chunk = scanner.scan(first, part)
        first += len(chunk.rows)
        yield chunk


@dataclass
class _Run:
    """Takes the chunks in order, and writes them with a checkpoint from time to time."""

    store: Store
    scanner: Scanner
    every: float
    states: dict[str, State] = field(default_factory=dict)
    waiting: list[Chunk] = field(default_factory=list)
    first_error: str = ""
    kept: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.states = self.store.states() or {each.name: each.start() for each in self.scanner.reducers}

    def take(self, chunk: Chunk) -> None:
        self.states = merged(self.scanner.reducers, self.states, chunk.states)
        self.waiting.append(chunk)
        self.first_error = self.first_error or next(iter(chunk.errors), "")
        if time.monotonic() - self.kept >= self.every or len(self.waiting) >= 64:
            self.keep()

    def keep(self) -> None:
        if self.waiting:
            pa = require("pyarrow", "index")
            rows = pa.concat_tables([chunk.rows for chunk in self.waiting])
            self.store.keep(rows, self.states, sum(chunk.readable for chunk in self.waiting))
        self.waiting, self.kept = [], time.monotonic()

    def finish(self) -> None:
        self.keep()
        checkpoint, finished = self.store.checkpoint, self.store.manifest["finished"]
        if finished and finished["rows"] == checkpoint["pictures"]:
            return
        if not checkpoint["readable"]:
            self.store.discard()
            raise ImageError(
                f"none of the {checkpoint['pictures']} pictures can be read; the first, {self.first_error}"
            )
        found = {each.name: each.finish(self.states[each.name]) for each in self.scanner.reducers}
        tables = layer_tables(found.pop("channels")) | {"gradients": gradient_table(found.pop("gradients"))}
        self.store.finish(tables | ({"gathered": gathered_table(found)} if found else {}))
