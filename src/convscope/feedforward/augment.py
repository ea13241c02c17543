"""A painted copy of a folder of photographs, to train networks that go by shape rather than by texture."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from convscope import progress
from convscope.errors import ImageError, OptionError
from convscope.feedforward.files import digest, find
from convscope.feedforward.painting import Brush, brush
from convscope.images import atomic_write, find_images, read_image, resize, write_image

MANIFEST = "augment.json"
_WRITTEN = (".png", ".jpg", ".jpeg", ".webp")


@dataclass
class Augmented:
    """How many pictures were painted now, how many had been before, and why others were not."""

    painted: int = 0
    before: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def augment(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    styles: Sequence[str | os.PathLike[str]],
    *,
    strength: float = 1.0,
    size: int | None = None,
    seed: int = 0,
) -> Augmented:
    """Paint every picture under ``folder`` into the same place under ``output`` (Geirhos et al. 2019).

    A network that is trained on such a copy, beside the photographs, cannot go by texture, which no longer belongs to
    the class. Folders of classes stay as they are. Each picture gets one of the styles by chance, from the seed and its
    own name, so that it does not depend on the others. Those that are there already stay, so that a stopped run goes
    on where it was; ``output``/augment.json says how they were made and which could not be read.

    Args:
        folder: holds photographs, at any depth.
        output: another folder, made where it does not exist.
        styles: names or files, as ``stylize`` takes them.
        strength: share of the painting in each picture.
        size: longer side at most, in pixels.
        seed: of the choice among styles.

    Raises:
        OptionError: the folders lie in one another, or the copy was begun with other options.
        ImageError: no pictures, or no such folder.
    """
    source, target = Path(folder), Path(output)
    paths = find_images(source)
    if not paths:
        raise ImageError(f"{source} holds no pictures; name a folder of photographs")
    _check_apart(source, target)
    brushes = [brush(style) for style in styles]
    recipe = {"styles": _told(styles), "strength": strength, "size": size, "seed": seed}
    target.mkdir(parents=True, exist_ok=True)
    _check_same(target / MANIFEST, recipe)
    found = Augmented()
    _note(target / MANIFEST, recipe, found)
    for path in progress.over(paths, "pictures"):
        _one(path, source, target, brushes, recipe, found)
    _note(target / MANIFEST, recipe, found)
    return found


def _told(styles: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    return {os.fspath(style): digest(find(style)[0]) for style in styles}


def _check_apart(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise OptionError(f"{target} and {source} lie in one another; choose a folder beside it for the copy")


def _check_same(manifest: Path, recipe: dict[str, Any]) -> None:
    """A copy is made with one set of options."""
    if not manifest.is_file():
        return
    try:
        begun = json.loads(manifest.read_text())["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{manifest} cannot be read; remove it, or choose another folder") from error
    other = [name for name in recipe if begun.get(name) != recipe[name]]
    if other:
        raise OptionError(
            f"{manifest.parent} was begun with {other[0]} {begun.get(other[0])!r}; go on with the same options, or "
            "choose another folder"
        )


def _note(manifest: Path, recipe: dict[str, Any], found: Augmented) -> None:
    with atomic_write(manifest) as temporary:
        temporary.write_text(json.dumps({"recipe": recipe, "unreadable": found.unreadable}, indent=2) + "\n")


def _one(
    path: Path, source: Path, target: Path, brushes: Sequence[Brush], recipe: dict[str, Any], found: Augmented
) -> None:
    """One picture into its place, unless it is there."""
    name = path.relative_to(source)
    place = target / (name if name.suffix.lower() in _WRITTEN else Path(f"{name}.png"))
    if place.is_file():
        found.before += 1
        return
    try:
        image = read_image(path)
    except ImageError as error:
        found.unreadable[name.as_posix()] = str(error)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    write_image(_painted(image, brushes[_drawn(name, recipe["seed"], len(brushes))], recipe), place)
    found.painted += 1


def _painted(image: Tensor, paint: Brush, recipe: dict[str, Any]) -> Tensor:
    share = (recipe["size"] or max(image.shape[1:])) / max(image.shape[1:])
    if share < 1:
        image = resize(image, (max(1, round(image.shape[1] * share)), max(1, round(image.shape[2] * share))))
    return image.lerp(paint(image), recipe["strength"])


def _drawn(name: Path, seed: int, count: int) -> int:
    """A number below ``count`` by chance, the same for the same name and seed."""
    drawn = hashlib.sha256(f"{seed} {name.as_posix()}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") % count
