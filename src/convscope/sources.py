"""Where the pictures of a scan come from, in a fixed order, each named by a path and read when it is wanted.

    source = open_source("photos/")          # a folder, with or without folders of classes in it
    for entry in source.entries():
        picture = read_image(source.read(entry))

Listing holds one folder at a time in memory, whatever the number of pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from convscope.errors import ImageError, OptionError
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

    def entries(self) -> Iterator[Entry]: ...
    def read(self, entry: Entry) -> Source:
        """What ``read_image`` takes. Called from several threads."""
        ...


@runtime_checkable
class _Indexed(Protocol):
    """A ``torch.utils.data.Dataset`` in the style of a list."""

    def __getitem__(self, place: int) -> Any: ...
    def __len__(self) -> int: ...


def open_source(source: str | os.PathLike[str] | PictureSource | Any) -> PictureSource:
    """The pictures that ``source`` names: a folder, or a ``torch.utils.data.Dataset`` of pictures and labels.

    Raises :class:`ImageError` when there is nothing of that name, :class:`OptionError` for what is no source.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise ImageError(f"{path}: there is no such folder; name one that holds pictures")
        return Folder(path)
    if callable(getattr(source, "entries", None)) and callable(getattr(source, "read", None)):
        return source
    if isinstance(source, _Indexed):
        return Dataset(source)
    raise OptionError(f"pictures come from a folder or a torch.utils.data.Dataset, not a {type(source).__name__}")


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


# ---- in Python


@dataclass(frozen=True)
class Dataset:
    """What a dataset of torch holds: pictures as ``read_image`` takes them, alone or in front of a label.

    The label of a whole number is the name that ``dataset.classes`` has for it, where there is that list.
    """

    dataset: Any
    kind: str = "dataset"
    location: str = ""

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
