"""Writes an index: rows to LanceDB, the reducers' states beside them, and last the file that says both are whole.

A checkpoint is three steps: the rows of some chunks become a new version of the table, the states a new file, and
``scan.json``, replaced in one step, names the two. Killed in between, the next scan finds the checkpoint before and
takes the table back to its version.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convscope.errors import IndexUnusable, OutputError
from convscope.extras import require
from convscope.images import atomic_write
from convscope.index import FORMAT, MANIFEST, code_column, database, read_manifest
from convscope.scanning.reducers import State

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = "lock"
MANY = 100_000  # pictures from which on the database gets an index of the codes
_NEVER, _OLD, _NOW = timedelta(days=3650), timedelta(days=1), timedelta(milliseconds=1)  # after which versions go
_PLAIN = {
    "id": "int64", "path": "string", "label": "string", "label_index": "int32", "predicted": "int32",
    "probability": "float32", "loss": "float32", "correct": "bool_", "error": "string", "height": "int32",
    "width": "int32", "brightness": "float32", "contrast": "float32", "colourfulness": "float32",
    "sharpness": "float32", "clutter": "float32", "aspect": "float32", "part": "string", "offset": "int64",
    "size": "int64", "thumbnail": "binary",
}  # fmt: skip


def pictures_schema(codes: Mapping[str, int]) -> pa.Schema:
    """Of the table of pictures; ``codes`` are the code layers and how many numbers each has."""
    pa = require("pyarrow", "index")
    fields = [pa.field(name, getattr(pa, kind)()) for name, kind in _PLAIN.items()]
    vectors = [pa.field(code_column(i), pa.list_(pa.float32(), n)) for i, n in enumerate(codes.values())]
    return pa.schema([*fields, *vectors])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The folder, made where it is missing, for one writer at a time; a writer that dies leaves it free."""
    _make(path)
    try:
        lock = open(path / LOCK, "a+b")  # noqa: SIM115 - closed below
    except OSError as error:
        raise OutputError(f"{path} cannot be written to ({error.strerror}); choose another place") from error
    with lock as file:
        if not _take(file):
            raise IndexUnusable(f"another scan is writing to {path}; wait for it, or choose another place")
        yield


def _make(path: Path) -> None:
    if path.is_dir() and not _ours(path):
        raise OutputError(f"{path} holds other things than an index; choose another place for it")
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{path} is a file, and an index is a folder; choose another place") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be made ({error.strerror}); make the folder around it first") from error


def _ours(path: Path) -> bool:
    names = {entry.name for entry in path.iterdir()}
    return not names or MANIFEST in names or bool(names & {LOCK, "pictures.lance"})


def _take(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        locking: Any = msvcrt
        try:
            locking.locking(file.fileno(), locking.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Store:
    """An index that is being written. Made inside :func:`locked`."""

    def __init__(self, path: Path, provenance: dict[str, Any], schema: pa.Schema) -> None:
        self.path = path
        self._database = database(path)
        self.fresh = not (path / MANIFEST).exists()
        if self.fresh:
            self._pictures = self._database.create_table("pictures", schema=schema, mode="overwrite")
            first = {"pictures": 0, "readable": 0, "version": self._pictures.version, "state": None}
            self.manifest: dict[str, Any] = {
                "format": FORMAT, "provenance": provenance, "checkpoint": first, "finished": None,
            }  # fmt: skip
            self._write()
            return
        self.manifest = read_manifest(path)
        refuse_changes(path, self.manifest["provenance"], provenance)
        self.manifest["provenance"]["source"] = provenance["source"]
        self._pictures = self._database.open_table("pictures")
        if self._pictures.version != self.checkpoint["version"]:
            self._pictures.restore(self.checkpoint["version"])
            self.checkpoint["version"] = self._pictures.version

    @property
    def checkpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["checkpoint"]
        return found

    def paths(self) -> Iterator[list[str]]:
        """Of the pictures that are in it, in blocks."""
        rows = self.checkpoint["pictures"]
        for start in range(0, rows, 1 << 16):
            block = self._pictures.search().where(f"id >= {start} and id < {start + (1 << 16)}").select(["path"])
            yield block.limit(1 << 16).to_arrow()["path"].to_pylist()

    def states(self) -> dict[str, State] | None:
        """What the reducers had gathered at the checkpoint."""
        name = self.checkpoint["state"]
        if name is None:
            return None
        with np.load(self.path / name) as file:
            found: dict[str, State] = {}
            for key in file.files:
                reducer, _, field = key.partition("|")
                found.setdefault(reducer, {})[field] = file[key]
        return found

    def keep(self, rows: pa.Table, states: Mapping[str, State], readable: int) -> None:
        """One checkpoint: these rows more, and the states behind them."""
        with disk(self.path):
            self._pictures.add(rows)
            before, done = self.checkpoint["state"], self.checkpoint["pictures"] + len(rows)
            name = f"state-{done}.npz"
            self._save(name, states)
            self.manifest["checkpoint"] = {
                "pictures": done, "readable": self.checkpoint["readable"] + readable,
                "version": self._pictures.version, "state": name,
            }  # fmt: skip
            self._write()
        if before not in (None, name):
            with suppress(OSError):
                (self.path / before).unlink()

    def _save(self, name: str, states: Mapping[str, State]) -> None:
        flat = {f"{reducer}|{field}": array for reducer, state in states.items() for field, array in state.items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **flat)
        with atomic_write(self.path / name) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def _write(self) -> None:
        with atomic_write(self.path / MANIFEST) as temporary:
            temporary.write_text(json.dumps(self.manifest, indent=1), encoding="utf-8")

    def finish(self, tables: Mapping[str, pa.Table]) -> None:
        """Write what the reducers found, and make it and the rows what readers see."""
        with disk(self.path):
            versions = {}
            for name, table in tables.items():
                versions[name] = self._database.create_table(name, table, mode="overwrite").version
            self._pictures.optimize(cleanup_older_than=_NEVER)
            self._index_vectors()
            versions["pictures"] = self._pictures.version
            checkpoint, readers = self.checkpoint, self.manifest["finished"] is not None
            checkpoint["version"] = versions["pictures"]
            self.manifest["finished"] = {
                "rows": checkpoint["pictures"], "readable": checkpoint["readable"], "versions": versions,
            }  # fmt: skip
            self._write()
            # also what a kill has left behind, which the lock proves to be nobody's
            self._pictures.optimize(cleanup_older_than=_OLD if readers else _NOW, delete_unverified=True)
            self._sweep()

    def _index_vectors(self) -> None:
        """Groups codes that lie near each other, where comparing with all would take long."""
        if self.checkpoint["readable"] < MANY:
            return
        groups = require("lancedb.index", "index").IvfFlat(distance_type="l2", max_iterations=10)
        there = {column for index in self._pictures.list_indices() for column in index.columns}
        for name in self._pictures.schema.names:
            if name.startswith("code_") and name not in there:
                self._pictures.create_index(name, config=groups)

    def _sweep(self) -> None:
        """Files of states that a kill has left behind."""
        for file in self.path.glob("state-*.npz"):
            if file.name != self.checkpoint["state"]:
                file.unlink()

    def discard(self) -> None:
        """Take away an index that was never finished."""
        if self.manifest["finished"] is None:
            shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """What a disk that is full or gone says, in one sentence; what was kept before stays."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}; what was scanned before is kept, and the same scan goes on behind it") from error
    except (OSError, RuntimeError) as error:
        if not isinstance(error, OSError) and not any(word in str(error).lower() for word in ("lance", "io error")):
            raise
        cause = " ".join((getattr(error, "strerror", None) or str(error)).split())[:300]
        raise OutputError(
            f"{path} cannot be written to ({cause}); make room there: what was scanned before is kept, and the same "
            "scan goes on behind it"
        ) from error


DECIDES = ("network", "digest", "precision", "layers", "code_layers", "options", "reducers", "source")


def refuse_changes(path: Path, kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """:class:`IndexUnusable` where the scan would not fit what is there, with the difference."""
    plain = json.loads(json.dumps({name: given[name] for name in DECIDES}))
    plain["source"]["given"] = kept["source"]["given"]  # which may have grown
    changed = [told for name in DECIDES for told in _differences(name, kept.get(name, []), plain[name])]
    if changed:
        raise IndexUnusable(
            f"{path} was made otherwise ({'; '.join(changed[:6])}); scan as before, or to another place"
        )


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """What changed, as ``chunk 512 -> 64``."""
    if before == now:
        return []
    if isinstance(before, dict):
        return [f"{key} {before.get(key)} -> {now.get(key)}" for key in before | now if before.get(key) != now.get(key)]
    if not isinstance(before, list):
        return [f"{name} {before} -> {now}"]
    gone, more = [b for b in before if b not in now], [n for n in now if n not in before]
    if not gone and not more:
        return [f"{name} in another order"]
    return [f"{name} {', '.join(map(str, gone)) or 'nothing'} -> {', '.join(map(str, more)) or 'nothing'}"]


# ---- tables of what was found


def layer_tables(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, pa.Table]:
    """``patches`` and ``statistics``: a row a channel, of all layers one behind the other."""
    pa = require("pyarrow", "index")
    layers = list(found.values())
    keys = {
        "layer": pa.array(np.concatenate([np.full(len(each["zeros"]), i) for i, each in enumerate(layers)])),
        "channel": pa.array(np.concatenate([np.arange(len(each["zeros"])) for each in layers])),
    }
    patches = {name: _lists([each[name] for each in layers]) for name in ("values", "ids", "rows", "columns")}
    statistics: dict[str, Any] = {
        name: pa.array(np.concatenate([each[name] for each in layers]))
        for name in ("zeros", "silent", "mean", "spread", "maximum")
    }
    statistics["histogram"] = _lists([each["histogram"] for each in layers])
    return {"patches": pa.table(keys | patches), "statistics": pa.table(keys | statistics)}


def gradient_table(found: Mapping[str, np.ndarray]) -> pa.Table:
    """``gradients``: a row a class."""
    pa = require("pyarrow", "index")
    return pa.table({name: pa.array(array) if array.ndim == 1 else _lists([array]) for name, array in found.items()})


def gathered_table(found: Mapping[str, Mapping[str, np.ndarray]]) -> pa.Table:
    """``gathered``: a row for each array that a user's reducer has found."""
    pa = require("pyarrow", "index")
    rows = [
        {"reducer": name, "field": field, "array": _bytes(array)}
        for name, arrays in found.items()
        for field, array in arrays.items()
    ]
    schema = pa.schema([("reducer", pa.string()), ("field", pa.string()), ("array", pa.large_binary())])
    return pa.Table.from_pylist(rows, schema=schema)


def _bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _lists(arrays: list[np.ndarray]) -> Any:
    pa = require("pyarrow", "index")
    joined = np.concatenate(arrays)
    return pa.FixedSizeListArray.from_arrays(pa.array(joined.ravel()), joined.shape[1])
