"""Where the pictures of a scan come from, in a fixed order, each named by a path and read when it is wanted.

    source = open_source("photos/")          # or a list, shards, parquet files, a Dataset
    for entry in source.entries():
        picture = read_image(source.read(entry))

Listing holds one folder at a time in memory, whatever the number of pictures.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TextIO, TypeAlias, cast, runtime_checkable

from convscope.errors import ImageError, OptionError
from convscope.extras import require
from convscope.images import FORMATS, Source


@dataclass(frozen=True)
class Entry:
    """One picture of a source.

    Attributes:
        path: its name within the source, which no other picture of it has.
        label: of its class, or None.
        part: the file within the source that holds it among others; empty where the picture is a file of its own.
        offset, size: where in ``part`` it begins, in bytes, and how many it has; for other containers its place.
    """

    path: str
    label: str | None = None
    part: str = ""
    offset: int = 0
    size: int = -1


class PictureSource(Protocol):
    """Pictures in a fixed order."""

    @property
    def kind(self) -> str: ...
    @property
    def location(self) -> str:
        """Where it lies: paths of its entries are relative to this folder; empty for what lives in memory only."""
        ...

    @property
    def given(self) -> Sequence[str]:
        """The paths that :func:`open_source` makes it of again; none for what lives in memory only."""
        ...

    def entries(self) -> Iterator[Entry]: ...
    def read(self, entry: Entry) -> Source:
        """What ``read_image`` takes. Called from several threads."""
        ...


Given: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | PictureSource | Any"


@runtime_checkable
class _Indexed(Protocol):
    """A ``torch.utils.data.Dataset`` in the style of a list."""

    def __getitem__(self, place: int) -> Any: ...
    def __len__(self) -> int: ...


def open_source(source: Given) -> PictureSource:
    """The pictures that ``source`` names.

    Args:
        source: one of

            - a folder of pictures, in which the folder that holds one is its class;
            - a list: ``.csv`` with ``path[,label]`` in each line, or ``.txt`` with a path in each line, relative to
              the list;
            - shards: ``.tar`` files as of WebDataset, one, several, or a folder with nothing else; a picture's label
              is what its ``.cls`` file says, else the folder that holds it;
            - a data set of Hugging Face: ``.parquet`` files, one, several, or a folder with some, with a column of
              pictures and one called ``label`` or like it;
            - pictures, one by one;
            - in Python, a ``torch.utils.data.Dataset`` in the style of a list, of pictures as
              :func:`~convscope.read_image` takes them, alone or in front of a label.

    Raises :class:`ImageError` when there is nothing of that name, :class:`OptionError` for what is no source.
    """
    if isinstance(source, (str, os.PathLike)):
        return _at([Path(source)])
    if isinstance(source, (list, tuple)) and source and all(isinstance(each, (str, os.PathLike)) for each in source):
        return _at([Path(each) for each in source])
    if callable(getattr(source, "entries", None)) and callable(getattr(source, "read", None)):
        return cast("PictureSource", source)
    if isinstance(source, _Indexed) and not isinstance(source, (list, tuple)):
        return Dataset(source)
    raise OptionError(
        f"pictures come from folders, lists, shards or a torch.utils.data.Dataset, not from {type(source).__name__}"
    )


def _at(paths: Sequence[Path]) -> PictureSource:
    for path in paths:
        if not path.exists():
            raise ImageError(f"{path}: there is no such file or folder; name pictures, a list, shards, or a folder")
    if len(paths) == 1 and paths[0].is_dir():
        return _in_folder(paths[0])
    if len(paths) == 1 and paths[0].suffix.lower() in (".csv", ".tsv", ".txt"):
        return Listed.from_file(paths[0])
    kinds = {path.suffix.lower() for path in paths}
    if kinds == {".tar"}:
        return Shards.of(paths)
    if kinds == {".parquet"}:
        return Parquet.of(paths)
    if kinds <= set(FORMATS):
        root = _common(paths)
        return Listed(root, [Entry(os.path.relpath(path, root)) for path in map(os.path.abspath, paths)])
    raise OptionError(
        f"{', '.join(map(str, paths[:3]))}: several sources are several .tar, several .parquet or several pictures; "
        "scan a folder that holds them all"
    )


def _in_folder(folder: Path) -> PictureSource:
    """Parquet files or shards at its top or just below, where no pictures lie there; else pictures."""
    if not any(is_picture_name(entry.name) for entry in folder.iterdir()):
        for suffix, kind in ((".parquet", Parquet), (".tar", Shards)):
            found = sorted(p for pattern in ("*", "*/*") for p in folder.glob(pattern + suffix) if p.is_file())
            if found:
                return kind.of(found, folder)
    return Folder(folder)


def _common(paths: Sequence[Path]) -> str:
    """The folder around them all."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


# ---- folders


@dataclass(frozen=True)
class Folder:
    """All picture files below a folder, by path; the folder in which one lies is its class, the root's own have none.

    Linked folders are followed, each once; hidden files and folders are passed over.
    """

    root: Path
    kind: str = "folder"

    @property
    def location(self) -> str:
        return os.path.abspath(self.root)

    @property
    def given(self) -> list[str]:
        return [self.location]

    def entries(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for parent, folders, files in os.walk(self.root, followlinks=True, onerror=_cannot_list):
            if (real := os.path.realpath(parent)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = os.path.relpath(parent, self.root)
            label = None if inside == "." else os.path.basename(inside)
            for name in sorted(files):
                if is_picture_name(name):
                    yield Entry(name if inside == "." else os.path.join(inside, name), label)

    def read(self, entry: Entry) -> Source:
        return os.path.join(self.location, entry.path)


def is_picture_name(name: str) -> bool:
    """Whether a file is called like a picture, and is not hidden."""
    return not name.startswith(".") and name.lower().endswith(FORMATS)


def _cannot_list(error: OSError) -> None:
    raise ImageError(f"{error.filename}: the folder cannot be listed ({error.strerror}); check its permissions")


# ---- lists


@dataclass(frozen=True)
class Listed:
    """Pictures of a list, in its order, each once."""

    location: str
    listed: Sequence[Entry]
    list_file: str = ""
    kind: str = "list"

    @property
    def given(self) -> list[str]:
        return [self.list_file] if self.list_file else [os.path.join(self.location, e.path) for e in self.listed]

    @classmethod
    def from_file(cls, path: Path) -> Listed:
        """From ``.csv`` or ``.tsv`` with a path and perhaps a label in each line, or ``.txt`` with a path in each.

        A first line that names ``path`` or ``image`` names the columns.
        """
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = [[line.strip()] for line in file] if path.suffix.lower() == ".txt" else _table(file, path)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ImageError(f"{path} cannot be read as a list of pictures ({error})") from error
        found = {row[0]: Entry(row[0], (row[1] or None) if len(row) > 1 else None) for row in rows if row and row[0]}
        return cls(os.path.dirname(os.path.abspath(path)), list(found.values()), os.path.abspath(path))

    def entries(self) -> Iterator[Entry]:
        return iter(self.listed)

    def read(self, entry: Entry) -> Source:
        return os.path.join(self.location, entry.path)


def _table(file: TextIO, path: Path) -> list[list[str]]:
    """(path, label) rows."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=delimiter)]
    head = [cell.lower() for cell in rows[0]] if rows else []
    names = [name for name in ("path", "image", "file", "filename", "photograph") if name in head]
    if not names:
        return rows
    labels = [name for name in ("label", "class", "target") if name in head]
    places = [head.index(names[0]), *(head.index(name) for name in labels[:1])]
    return [[row[place] for place in places if place < len(row)] for row in rows[1:]]


# ---- shards


@dataclass(frozen=True)
class Shards:
    """Pictures inside ``.tar`` files, read in place.

    Files of one sample stand together and share their name up to its first dot, as in WebDataset; a label in its
    ``.cls`` is that of all pictures of the sample. Without one the folder around a picture is its class.
    """

    location: str
    parts: tuple[str, ...]
    kind: str = "tar"

    @property
    def given(self) -> list[str]:
        return [os.path.join(self.location, part) for part in self.parts]

    @classmethod
    def of(cls, paths: Sequence[Path], root: Path | None = None) -> Shards:
        where = os.path.abspath(root) if root else _common(paths)
        return cls(where, tuple(os.path.relpath(os.path.abspath(path), where) for path in paths))

    def entries(self) -> Iterator[Entry]:
        for part in self.parts:
            yield from self._members(part)

    def _members(self, part: str) -> Iterator[Entry]:
        try:
            with tarfile.open(os.path.join(self.location, part), "r:") as tar:
                key, label = "", None
                pictures: list[tarfile.TarInfo] = []
                for member in _files(tar):
                    if (now := _key(member.name)) != key:
                        yield from self._sample(part, pictures, label)
                        key, pictures, label = now, [], None
                    if is_picture_name(os.path.basename(member.name)):
                        pictures.append(member)
                    elif member.name.endswith(".cls"):
                        label = _text(tar, member)
                yield from self._sample(part, pictures, label)
        except (OSError, tarfile.TarError) as error:
            raise ImageError(
                f"{os.path.join(self.location, part)} cannot be read as a .tar ({error}); unpack it, or fetch it again"
            ) from error

    def _sample(self, part: str, pictures: Sequence[tarfile.TarInfo], label: str | None) -> Iterator[Entry]:
        for member in pictures:
            folder = os.path.basename(os.path.dirname(member.name))
            path = os.path.join(part, os.path.normpath(member.name))
            yield Entry(path, label or folder or None, part, member.offset_data, member.size)

    def read(self, entry: Entry) -> Source:
        with open(os.path.join(self.location, entry.part), "rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Its files, without remembering them all."""
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]
        if member.isfile():
            yield member


def _key(name: str) -> str:
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition(".")[0])


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    file = tar.extractfile(member)
    return (file.read().decode("utf-8", "replace").strip() or None) if file else None


# ---- parquet


@dataclass(frozen=True)
class Parquet:
    """Pictures in the rows of ``.parquet`` files, as data sets of Hugging Face have them.

    A picture is a column of bytes, or of a struct with a field ``bytes``. Names of classes come from the metadata.
    """

    location: str
    parts: tuple[str, ...]
    kind: str = "parquet"
    _groups: OrderedDict[tuple[str, int], Any] = field(default_factory=OrderedDict, compare=False, repr=False)
    _lock: Lock = field(default_factory=Lock, compare=False, repr=False)

    @property
    def given(self) -> list[str]:
        return [os.path.join(self.location, part) for part in self.parts]

    @classmethod
    def of(cls, paths: Sequence[Path], root: Path | None = None) -> Parquet:
        where = os.path.abspath(root) if root else _common(paths)
        return cls(where, tuple(os.path.relpath(os.path.abspath(path), where) for path in paths))

    def __reduce__(self) -> tuple[Any, ...]:
        return Parquet, (self.location, self.parts)  # without what was read, and without the lock

    def _file(self, part: str) -> Any:
        parquet, path = require("pyarrow.parquet", "index"), os.path.join(self.location, part)
        try:
            return parquet.ParquetFile(path)
        except Exception as error:  # pyarrow has its own errors beside those of the system
            raise ImageError(f"{path} cannot be read as parquet ({error}); fetch it again") from error

    def entries(self) -> Iterator[Entry]:
        for part in self.parts:
            file = self._file(part)
            _picture_column(file.schema_arrow, part)
            labels, names = _label_column(file.schema_arrow)
            row = 0
            for batch in file.iter_batches(8192, columns=[labels] if labels else []):
                found = batch[labels].to_pylist() if labels else [None] * batch.num_rows
                for value in found:
                    yield Entry(f"{part}/{row:08d}", _called(value, names), part, row)
                    row += 1

    def read(self, entry: Entry) -> Source:
        file = self._file(entry.part)
        row, group = entry.offset, 0
        while row >= file.metadata.row_group(group).num_rows:
            row, group = row - file.metadata.row_group(group).num_rows, group + 1
        found = self._group(file, entry.part, group)[row].as_py()
        if not found:
            raise ImageError(f"row {entry.offset} of {entry.part} holds no picture")
        return bytes(found)

    def _group(self, file: Any, part: str, group: int) -> Any:
        """The pictures of a row group; the last few groups are kept, since pictures are read in order."""
        with self._lock:
            if (part, group) not in self._groups:
                name = _picture_column(file.schema_arrow, part)
                column = file.read_row_group(group, columns=[name]).column(0).combine_chunks()
                self._groups[part, group] = column.field("bytes") if name.endswith(".bytes") else column
                while len(self._groups) > 3:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((part, group))
            return self._groups[part, group]


def _picture_column(schema: Any, part: str) -> str:
    pa = require("pyarrow", "index")
    for column in sorted(schema, key=lambda each: each.name not in ("image", "img")):
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            return f"{column.name}.bytes"
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return str(column.name)
    raise ImageError(f"{part} has no column of pictures: a struct with `bytes`, or bytes; it has {schema.names}")


def _label_column(schema: Any) -> tuple[str | None, Sequence[str] | None]:
    """Its name, and the names of the classes where the metadata say them."""
    known = [name for name in ("label", "labels", "class", "fine_label", "target") if name in schema.names]
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    classes = [name for name, about in told.items() if isinstance(about, dict) and about.get("_type") == "ClassLabel"]
    name = next(iter([*known, *(c for c in classes if c in schema.names)]), None)
    return name, told.get(name, {}).get("names") if name else None


def _called(value: Any, names: Sequence[str] | None) -> str | None:
    if value is None:
        return None
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return str(names[value])
    return str(value)


# ---- in Python


@dataclass(frozen=True)
class Dataset:
    """What a dataset of torch holds: pictures as ``read_image`` takes them, alone or in front of a label.

    The label of a whole number is the name that ``dataset.classes`` has for it, where there is that list.
    """

    dataset: Any
    kind: str = "dataset"
    location: str = ""
    given: tuple[str, ...] = ()

    def entries(self) -> Iterator[Entry]:
        targets = getattr(self.dataset, "targets", None)
        named = self._known(targets)
        for place in range(len(self.dataset)):
            yield Entry(f"{place:09d}", None if named is None else named[place], "", place)

    def _known(self, targets: Any) -> Sequence[str | None] | None:
        """Labels that the dataset tells without its pictures."""
        if targets is None or len(targets) != len(self.dataset):
            return None
        return [self.label(target) for target in targets]

    def label(self, target: Any) -> str | None:
        """What a label of this dataset is called."""
        if target is None:
            return None
        target = target.item() if hasattr(target, "item") else target
        classes = getattr(self.dataset, "classes", None)
        if isinstance(target, int) and classes is not None and 0 <= target < len(classes):
            return str(classes[target])
        return str(target)

    def item(self, entry: Entry) -> tuple[Source, str | None]:
        """The picture and its label."""
        found = self.dataset[entry.offset]
        if isinstance(found, (tuple, list)) and found:
            return found[0], self.label(found[1]) if len(found) > 1 else None
        return found, None

    def read(self, entry: Entry) -> Source:
        return self.item(entry)[0]
