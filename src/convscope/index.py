"""The index that a scan writes and every question about a data set reads: one folder of LanceDB.

    index = open_index("photos.index")
    codes = index.codes()                                   # (N, C) float32, in the order of ``index.ids``
    ids, distances = index.nearest(codes[:1], 9)            # nearest first
    strongest = index.patches("relu4_3")                    # of every channel: values, pictures and positions

============  =====================================================================================================
file          what it holds
============  =====================================================================================================
scan.json     provenance, and which version of each table belongs to the last finished scan and the last checkpoint
state-N.npz   what the reducers had gathered at the last checkpoint, for going on and for growing
*.lance       the tables ``pictures``, ``patches``, ``statistics``, ``gradients`` and perhaps ``gathered``, versioned
============  =====================================================================================================

A scan that goes on or grows leaves the versions of the last finished one in place, so that it can be read meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import ConvscopeError, ImageError, IndexUnusable, OptionError, nearest
from convscope.extras import require
from convscope.hooks import observe
from convscope.images import read_image
from convscope.network import Network
from convscope.sources import Entry, PictureSource, open_source
from convscope.zoo import load_network

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
MANIFEST = "scan.json"
_LOWEST, _HIGHEST = -12, 12  # powers of two between which the bins of histograms lie


def _edges() -> np.ndarray:
    """(100,) edges of histograms: half an octave a bin, on both sides of zero."""
    octaves = 2.0 ** np.arange(_LOWEST, _HIGHEST)
    rising = np.concatenate([np.stack([octaves, 1.5 * octaves], 1).ravel(), [2.0**_HIGHEST]])
    return np.concatenate([[-np.inf], -rising[::-1], rising, [np.inf]])


EDGES = _edges()
BINS = len(EDGES) - 1
EVERY = 4  # pictures of which one, that whose id they divide, is counted in histograms
_PRODUCTS = 20_000_000  # of queries and codes that are compared at once


@dataclass(frozen=True)
class Patches:
    """For each channel of a layer where it is strongest, strongest first, one position a picture.

    All are (C, k): ``values`` float32, NaN where there are fewer pictures with a value other than zero; ``ids`` of the
    pictures, -1 there; ``rows`` and ``columns`` in the layer's grid, -1 there.
    """

    values: np.ndarray
    ids: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Statistics:
    """What each channel of a layer did over all pictures and positions.

    All are (C,) but the last two: ``zeros``, the share of values that are exactly zero; ``silent``, the share of
    pictures without a value above zero; ``mean``, ``spread`` (standard deviation) and ``maximum``; ``histogram``
    (C, bins), how many values of every fourth picture lie in each bin, of which bin i goes from ``edges[i]`` to before
    ``edges[i + 1]``, (bins + 1,), mirrored below zero.
    """

    zeros: np.ndarray
    silent: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    maximum: np.ndarray
    histogram: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True)
class Gradients:
    """How the loss's gradient came back, over a sample of pictures of each class.

    Attributes:
        classes: (K,) classes with pictures in the sample: the true one of each, the predicted one where that is
            unknown.
        counts: (K,) pictures of each.
        layers: names of L layers.
        input_mean, input_spread: (K,) of the norm |dL/dx| of a picture's gradient.
        layer_mean, layer_spread: (K, L) of the norm |dL/da| of the gradient at each layer's output.
    """

    classes: np.ndarray
    counts: np.ndarray
    layers: tuple[str, ...]
    input_mean: np.ndarray
    input_spread: np.ndarray
    layer_mean: np.ndarray
    layer_spread: np.ndarray


def digest_of(network: Network) -> str:
    """``sha256:`` and a digest of everything that decides what the network computes: weights and preparation."""
    digest = hashlib.sha256()
    preparation = (network.mean.tolist(), network.std.tolist(), network.input_size, network.crop, network.output)
    digest.update(repr(preparation).encode())
    for name, tensor in network.module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def database(path: Path) -> Any:
    """The LanceDB of an index."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every table that it makes
    return require("lancedb", "index").connect(str(path))


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``scan.json`` of an index says; :class:`IndexUnusable` where there is none of this version."""
    file = Path(path) / MANIFEST
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = found["format"]
    except FileNotFoundError:
        raise IndexUnusable(f"{path} is no index; `convscope scan PHOTOS -o {path}` makes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexUnusable(
            f"{file} cannot be read ({type(error).__name__}: {error}); scan again to another place"
        ) from error
    if version != FORMAT:
        made = found.get("provenance", {}).get("versions", {}).get("convscope", "another version")
        raise IndexUnusable(
            f"{path} has format {version} of convscope {made}, and this one reads format {FORMAT}; "
            "scan again to another place"
        )
    return found


def open_index(path: str | os.PathLike[str], *, network: Network | nn.Module | None = None) -> Index:
    """The index at ``path``, for reading.

    Args:
        path: the folder that a scan wrote.
        network: the one that was scanned with, where the index cannot load it itself: one that was handed over in
            Python. It is checked to be the same.

    Raises:
        IndexUnusable: no index, one of another format, one whose scan never finished, or another network.
    """
    manifest = read_manifest(path)
    if not manifest["finished"]:
        done = manifest["checkpoint"]["pictures"]
        raise IndexUnusable(f"the scan of {path} stopped after {done} pictures; the same scan again finishes it")
    index = Index(Path(path), manifest)
    if network is not None:
        index.__dict__["network"] = index.checked(network)
    return index


class Index:
    """A finished scan. Everything is read when it is first asked for, in the state of the scan that was last finished.

    Attributes:
        path: its folder.
        provenance: the network (``network``, ``weights``, ``digest``, ``precision``, ``loaded``: the options with
            which it was loaded), ``layers``, ``code_layers``, ``options`` of the scan, ``source``, ``versions``.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.provenance: Mapping[str, Any] = manifest["provenance"]
        self._finished: Mapping[str, Any] = manifest["finished"]

    def __repr__(self) -> str:
        return f"<Index {self.path}: {len(self)} pictures, {self.provenance['network']}>"

    def __len__(self) -> int:
        return int(self._finished["readable"])

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers with patches and statistics."""
        return tuple(self.provenance["layers"])

    @property
    def code_layers(self) -> tuple[str, ...]:
        """Layers with codes; the first is the default."""
        return tuple(self.provenance["code_layers"])

    # ---- the network

    @cached_property
    def network(self) -> Network:
        """The network that was scanned with, loaded as it was then.

        Its ``precision`` is the one that was asked for; :meth:`encode` computes in the one of the scan.
        """
        loaded = dict(self.provenance["loaded"])
        if isinstance(loaded.get("input_size"), list):  # as JSON keeps it
            loaded["input_size"] = tuple(loaded["input_size"])
        if not loaded:
            raise IndexUnusable(
                f"{self.path} was scanned with {self.provenance['network']}, which was handed over in Python; "
                "hand it over again: open_index(PATH, network=...)"
            )
        return self.checked(load_network(loaded.pop("network"), **loaded))

    def checked(self, network: Network | nn.Module) -> Network:
        """The network, if it is the one that was scanned with; :class:`IndexUnusable` says what differs."""
        if not isinstance(network, Network):
            made = self.provenance["preparation"]
            network = load_network(
                network, mean=made["mean"], std=made["std"], input_size=tuple(made["input_size"]), crop=made["crop"]
            )
        found = digest_of(network)
        if found != self.provenance["digest"]:
            raise IndexUnusable(
                f"{self.path} was scanned with {self.provenance['network']}, weights and preparation "
                f"{self.provenance['digest']}, and {network.name} has {found}; hand over that network, or scan again "
                "to another place"
            )
        return network

    @cached_property
    def _scanning(self) -> Network:
        return replace(self.network, precision=self.provenance["precision"])

    def encode(self, images: Tensor, layer: str | None = None) -> np.ndarray:
        """(Q, C) codes of prepared pictures (Q, 3, H, W), computed as the scan computed those of the index."""
        layer = self._code_layer(layer)
        size = int(self.provenance["options"]["batch"])
        parts = [observe(self._scanning, part, [layer])[layer].detach() for part in images.split(size)]
        return np.concatenate([self.network.codes(layer, part).float().cpu().numpy() for part in parts])

    # ---- pictures

    def _table(self, name: str) -> Any:
        table = database(self.path).open_table(name)
        table.checkout(self._finished["versions"][name])
        return table

    def pictures(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """A row for every picture, also the unreadable ones, in the order of the source.

        Args:
            columns: to read, all but codes if left out: ``id``, ``path``, ``label``, ``label_index``, ``predicted``,
                ``probability``, ``loss``, ``correct``, ``error``, ``height``, ``width``, ``brightness``, ``contrast``,
                ``colourfulness``, ``sharpness``, ``clutter``, ``aspect``, ``thumbnail``.
            where: condition of SQL, as ``"not correct and brightness < 0.2"``; paths in it are those within the source.
        """
        table = self._table("pictures")
        names = list(columns or (n for n in table.schema.names if not n.startswith("code_") and n not in _PLACE))
        unknown = [name for name in names if name not in table.schema.names]
        if unknown:
            raise OptionError(f"{self.path} has no column {unknown[0]!r}{nearest(unknown[0], table.schema.names)}")
        query = table.search().select([*names, *({"id"} - set(names))])
        found = (query.where(where) if where else query).limit(self._finished["rows"]).to_arrow()
        found = found.sort_by("id").select(names)
        return self._with_paths(found) if "path" in names else found

    def _with_paths(self, found: pa.Table) -> pa.Table:
        """With paths that lead to the pictures."""
        pa = require("pyarrow", "index")
        root = self.provenance["source"]["location"]
        paths = [os.path.join(root, path) for path in found["path"].to_pylist()]
        return found.set_column(found.schema.get_field_index("path"), "path", pa.array(paths, pa.string()))

    @cached_property
    def _readable(self) -> pa.Table:
        return self.pictures(["id", "label_index"], "error is null")

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) int64 of the readable pictures, in the order of the source."""
        return _array(self._readable["id"])

    def labels(self) -> np.ndarray:
        """(N,) true class of each readable picture; -1 where it has none that the network knows."""
        return _array(self._readable["label_index"])

    def _code_layer(self, layer: str | None) -> str:
        if layer is None:
            return self.code_layers[0]
        if layer not in self.code_layers:
            raise OptionError(
                f"{self.path} has codes of {', '.join(self.code_layers)}, not of {layer!r}; "
                f"scan to another place with --code-layer {layer}"
            )
        return layer

    def codes(self, layer: str | None = None) -> np.ndarray:
        """(N, C) float32: what ``layer`` put out for each readable picture, averaged over positions."""
        layer = self._code_layer(layer)
        cache = self.__dict__.setdefault("_codes", {})
        if layer not in cache:
            column = code_column(self.code_layers.index(layer))
            found = self._table("pictures").search().select(["id", column]).where("error is null")
            table = found.limit(self._finished["rows"]).to_arrow().sort_by("id")
            cache[layer] = _matrix(table[column])
        return cache[layer]

    def nearest(
        self, codes: np.ndarray | Tensor, count: int, *, layer: str | None = None, exact: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """The pictures whose codes are nearest.

        Args:
            codes: (Q, C) or (C,).
            count: how many for each.
            layer: of which the codes are.
            exact: compare with all; otherwise with groups of codes around the wanted one, by the vector index that a
                scan of 100,000 pictures or more makes. It needs no codes in memory, and misses some.

        Returns:
            ids and euclidean distances, each (Q, count), nearest first; of equal ones that of the smaller id first.
        """
        wanted = np.atleast_2d(np.asarray(codes, dtype=np.float32))
        layer = self._code_layer(layer)
        if not exact:
            return self._approximate(wanted, min(count, len(self)), layer)
        places, distances = nearest_rows(self.codes(layer), wanted, min(count, len(self)), self._squares(layer))
        return self.ids[places], distances

    def _squares(self, layer: str) -> np.ndarray:
        cache = self.__dict__.setdefault("_norms", {})
        if layer not in cache:
            codes = self.codes(layer)
            cache[layer] = np.einsum("nc,nc->n", codes, codes)
        return cache[layer]

    def _approximate(self, wanted: np.ndarray, count: int, layer: str) -> tuple[np.ndarray, np.ndarray]:
        table, column = self._table("pictures"), code_column(self.code_layers.index(layer))
        order = [("_distance", "ascending"), ("id", "ascending")]
        queries = [table.search(code, vector_column_name=column).select(["id", "_distance"]) for code in wanted]
        found = [query.limit(count).to_arrow().sort_by(order) for query in queries]
        ids = np.stack([each["id"].to_numpy() for each in found])
        squares = np.stack([each["_distance"].to_numpy() for each in found])
        return ids, np.sqrt(np.maximum(squares, 0))

    # ---- one picture

    def row(self, id: int, columns: Sequence[str]) -> dict[str, Any]:
        """Columns of one picture, as they are stored."""
        found = self._table("pictures").search().where(f"id = {int(id)}").select(list(columns)).limit(1).to_arrow()
        if not len(found):
            raise OptionError(f"{self.path} has pictures 0 to {self._finished['rows'] - 1}, not {id}")
        return {name: found[name][0].as_py() for name in columns}

    @cached_property
    def source(self) -> PictureSource:
        """Where the pictures are read again; :class:`IndexUnusable` where that is not possible."""
        made = self.provenance["source"]
        if made["kind"] == "dataset":
            raise IndexUnusable(
                f"{self.path} was made of a dataset in Python, which it cannot read again; use its thumbnails"
            )
        try:
            return open_source(made["given"])
        except ConvscopeError as error:
            raise IndexUnusable(
                f"the pictures of {self.path} are no longer at {made['location']}; put them back there, or scan again"
            ) from error

    def image(self, id: int) -> Tensor:
        """(3, H, W) in [0, 1] of a picture at its own size, read from the source again."""
        entry = Entry(**self.row(id, [*_PLACE, "path", "label"]))
        source = self.source
        try:
            return read_image(source.read(entry))
        except (ImageError, OSError) as error:
            raise IndexUnusable(
                f"{entry.path} can no longer be read at {source.location} ({error}); put it back, or scan again"
            ) from error

    def prepared(self, id: int) -> Tensor:
        """(3, h, w): the picture as the network saw it."""
        return self.network.prepare(self.image(id))

    def thumbnail(self, id: int) -> Tensor:
        """(3, h, w) of a picture, small, as the index keeps it."""
        kept = self.row(id, ["thumbnail", "error"])
        if kept["thumbnail"] is None:
            raise IndexUnusable(f"picture {id} of {self.path} could not be read: {kept['error']}")
        return read_image(kept["thumbnail"])

    # ---- layers

    def _of_layer(self, table: str, layer: str) -> pa.Table:
        if layer not in self.layers:
            raise OptionError(
                f"{self.path} knows nothing of layer {layer!r}{nearest(layer, self.layers)}; "
                f"it was scanned at {', '.join(self.layers)}"
            )
        place = self.layers.index(layer)
        return self._table(table).search().where(f"layer = {place}").limit(1 << 30).to_arrow().sort_by("channel")

    def patches(self, layer: str) -> Patches:
        """Where each channel of ``layer`` is strongest."""
        found = self._of_layer("patches", layer)
        return Patches(*(_matrix(found[name]) for name in ("values", "ids", "rows", "columns")))

    def statistics(self, layer: str) -> Statistics:
        """What each channel of ``layer`` did over all pictures."""
        found = self._of_layer("statistics", layer)
        zeros, silent, mean, spread, maximum = (
            _array(found[name]) for name in ("zeros", "silent", "mean", "spread", "maximum")
        )
        return Statistics(zeros, silent, mean, spread, maximum, _matrix(found["histogram"]), EDGES)

    def gathered(self, name: str) -> dict[str, np.ndarray]:
        """What a reducer of yours, which was handed to the scan, has found."""
        names = self.provenance.get("reducers", [])
        if name not in names:
            raise OptionError(f"{self.path} has no reducer {name!r}; it was scanned with {', '.join(names) or 'none'}")
        found = self._table("gathered").search().limit(1 << 30).to_arrow().to_pylist()
        rows = [row for row in found if row["reducer"] == name]
        return {row["field"]: np.load(io.BytesIO(row["array"]), allow_pickle=False) for row in rows}

    def gradients(self) -> Gradients:
        """How the loss's gradient came back, by class; without classes where the scan took no sample."""
        found = self._table("gradients").search().limit(1 << 30).to_arrow().sort_by("class")
        layers = len(self.layers)
        return Gradients(
            _array(found["class"]), _array(found["count"]), self.layers,
            _array(found["input_mean"]), _array(found["input_spread"]),
            _matrix(found["layer_mean"], layers), _matrix(found["layer_spread"], layers),
        )  # fmt: skip


_PLACE = ("part", "offset", "size")


def code_column(place: int) -> str:
    """The column of the codes of the code layer at that place."""
    return f"code_{place}"


def _array(column: Any) -> np.ndarray:
    """A column of numbers, in memory of its own."""
    return np.array(column.to_numpy())


def _matrix(column: Any, width: int = -1) -> np.ndarray:
    """(rows, width) of a column of lists of one length, in memory of its own."""
    flat = _array(column.combine_chunks().flatten())
    return flat.reshape(len(column), width) if len(column) else flat.reshape(0, max(width, 0))


def nearest_rows(
    codes: np.ndarray, wanted: np.ndarray, count: int, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``codes`` (N, C) nearest to each of ``wanted`` (Q, C): places and distances (Q, count).

    By |a|² - 2ab first, which is one product of matrices; then the best are measured exactly, since for near
    duplicates that difference is all rounding.
    """
    some = min(len(codes), count + 64)
    at_once = max(1, _PRODUCTS // len(codes))
    found = [
        _nearest(codes, code, some, count, rough)
        for start in range(0, len(wanted), at_once)
        for code, rough in zip(
            wanted[start : start + at_once], squares - 2 * (wanted[start : start + at_once] @ codes.T), strict=True
        )
    ]
    return np.stack([places for places, _ in found]), np.stack([distances for _, distances in found])


def _nearest(
    codes: np.ndarray, code: np.ndarray, some: int, count: int, rough: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    best = np.sort(np.argpartition(rough, some - 1)[:some]) if some < len(codes) else np.arange(len(codes))
    exact = np.sqrt(((codes[best].astype(np.float64) - code) ** 2).sum(1))
    order = np.argsort(exact, kind="stable")[:count]
    return best[order], exact[order]
