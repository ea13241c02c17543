"""Names of classes, as given or from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convscope.errors import NetworkError

_KINDS = "a .txt with one name a line, or a .json with a list of names or a dict from index to name"


def read_labels(labels: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """One name a class: ``labels`` itself, or what the file of that name lists.

    Files: ``.txt`` with one name a line; ``.json`` with a list, with a dict from index to name, from index to
    ``[wordnet id, name]`` as ImageNet's index is published, or from name to index.

    Raises :class:`NetworkError`, which names the file and the cause.
    """
    if not isinstance(labels, (str, os.PathLike)):
        return tuple(str(name) for name in labels)
    path = Path(labels)
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise NetworkError(f"there is no file of labels {str(path)!r}; give {_KINDS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NetworkError(f"the labels in {str(path)!r} cannot be read ({error}); give {_KINDS}") from error
    if path.suffix.lower() == ".json":
        return _from_json(text, path)
    if path.suffix.lower() == ".txt":
        return tuple(line.strip() for line in text.rstrip().splitlines())
    raise NetworkError(f"{str(path)!r} is no file of labels; give {_KINDS}")


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        return labels_of(json.loads(text))
    except ValueError as error:
        raise NetworkError(f"{str(path)!r} does not hold labels ({error}); give {_KINDS}") from error


def labels_of(content: Any) -> tuple[str, ...]:
    """The names in what a JSON file holds; ``ValueError`` when they are not there."""
    if isinstance(content, Mapping):
        content = _in_order(content)
    if not isinstance(content, list) or not content:
        raise ValueError("it is neither a list nor a dict")
    return tuple(_name(entry) for entry in content)


def _in_order(content: Mapping[str, Any]) -> list[Any]:
    pairs = dict(content)
    if pairs and all(isinstance(value, int) for value in pairs.values()):
        pairs = {str(value): key for key, value in pairs.items()}  # name to index, as ImageFolder's class_to_idx
    if not all(key.lstrip("-").isdecimal() for key in pairs):
        raise ValueError("its keys are not all indices")
    by_index = {int(key): value for key, value in pairs.items()}
    if sorted(by_index) != list(range(len(pairs))):
        raise ValueError(f"its indices are not 0 to {len(pairs) - 1}")
    return [by_index[index] for index in range(len(pairs))]


def _name(entry: Any) -> str:
    if isinstance(entry, list) and entry:
        entry = entry[-1]  # ["n01440764", "tench"]
    if not isinstance(entry, str):
        raise ValueError(f"{entry!r} is not a name")
    return entry
