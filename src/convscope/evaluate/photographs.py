"""Photographs of a folder with what is known about them: classes by folder, masks, boxes.

Classes are the names of the folders in which the photographs lie, where the network has labels that fit. A mask is a
picture of the photograph's size and stem in a folder of masks, bright on the object. Boxes are in pixels of the
photograph, half open: a CSV file with a line ``photograph,left,top,right,bottom`` each and those names on its first
line, or JSON, ``{"photograph": [[left, top, right, bottom], ...]}``.
"""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from convscope.errors import ConvscopeError, ImageError, OptionError
from convscope.evaluate.sample import Sample, sample
from convscope.images import find_images, pictures_in, read_image
from convscope.network import Network

LIMIT = 50
Box: TypeAlias = tuple[float, float, float, float]


def read_sample(
    network: Network,
    paths: Iterable[str | Path],
    *,
    limit: int = LIMIT,
    masks: str | Path | None = None,
    boxes: str | Path | None = None,
    seed: int = 0,
) -> tuple[Sample, int]:
    """At most ``limit`` of the photographs, prepared for the network, and how many there were.

    Args:
        paths: photographs, and folders with some.
        limit: of several classes about as many each; drawn by ``seed``.
        masks: a folder of mask pictures; photographs without one count only where no mask is needed.
        boxes: a CSV or JSON file.

    Raises:
        ImageError: no photographs, or one that cannot be read; a mask of another size.
        OptionError: both masks and boxes, or a file of boxes that is not understood.
    """
    if masks is not None and boxes is not None:
        raise OptionError("give masks or boxes of the objects, not both")
    found = pictures_in(paths)
    labels = _labels(network, found)
    chosen = drawn([labels[path.parent] if labels else 0 for path in found], limit, seed)
    kept = [found[place] for place in chosen]
    photographs = [read_image(path) for path in kept]
    areas = _areas(kept, photographs, masks, boxes)
    given = None if areas is None else torch.stack([_prepared(network, area) for area in areas])
    images = torch.stack([network.prepare(photograph) for photograph in photographs])
    classes = [labels[path.parent] for path in kept] if labels else None
    files = [str(path) for path in kept]
    return sample(network, images, labels=classes, masks=given, names=_names(kept), files=files, seed=seed), len(found)


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, with their folder where two are equal."""
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [f"{path.parent.name}/{path.name}" for path in paths]


def _labels(network: Network, paths: Sequence[Path]) -> Mapping[Path, int | None]:
    """Folder to class; empty where no folder has the name of one."""
    found: dict[Path, int | None] = {}
    for folder in {path.parent for path in paths}:
        try:
            found[folder] = network.target(folder.name) if network.labels else None
        except ConvscopeError:
            found[folder] = None
    return found if any(index is not None for index in found.values()) else {}


def drawn(classes: Sequence[int | None], limit: int, seed: int) -> list[int]:
    """Places of at most ``limit`` pictures, in turn from each class, in rising order."""
    chance = random.Random(seed)
    piles = defaultdict(list)
    for place, index in enumerate(classes):
        piles[index].append(place)
    order = list(piles.values())
    chance.shuffle(order)
    for pile in order:
        chance.shuffle(pile)
    turns = [pile[turn] for turn in range(max(map(len, order), default=0)) for pile in order if turn < len(pile)]
    return sorted(turns[:limit])


# ---- where the objects are


def _areas(
    paths: Sequence[Path], photographs: Sequence[Tensor], masks: str | Path | None, boxes: str | Path | None
) -> list[Tensor] | None:
    """(H, W) true on the object, at each photograph's own size; empty where nothing is said of it."""
    sizes = [(int(p.shape[1]), int(p.shape[2])) for p in photographs]
    if masks is not None:
        files = {path.stem: path for path in find_images(masks)}
        _check_some([path.stem in files for path in paths], masks)
        return [_mask(files.get(path.stem), size) for path, size in zip(paths, sizes, strict=True)]
    if boxes is not None:
        known = read_boxes(boxes)
        _check_some([path.stem in known for path in paths], boxes)
        return [boxed(known.get(path.stem, ()), size) for path, size in zip(paths, sizes, strict=True)]
    return None


def _check_some(there: Sequence[bool], where: str | Path) -> None:
    if not any(there):
        raise OptionError(f"{where} says nothing of these photographs; its names must be theirs, without the suffix")


def _mask(path: Path | None, size: tuple[int, int]) -> Tensor:
    if path is None:
        return torch.zeros(size, dtype=torch.bool)
    mask = read_image(path).mean(0) > 0.5
    if mask.shape != size:
        have, want = ("x".join(map(str, sides)) for sides in (mask.shape, size))
        raise ImageError(f"{path} is {have} pixels and its photograph {want}; make them of one size")
    return mask


def boxed(boxes: Iterable[Box], size: tuple[int, int]) -> Tensor:
    """(H, W), true inside any of the boxes (left, top, right, bottom)."""
    area = torch.zeros(size, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        area[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = True
    return area


def read_boxes(path: str | Path) -> dict[str, list[Box]]:
    """Stem of a photograph to its boxes, from a CSV or JSON file.

    Raises :class:`OptionError` for another format, or what is no box.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = _from_json(text) if Path(path).suffix.lower() == ".json" else _from_csv(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path} holds no boxes that can be read ({type(error).__name__}: {error}); give CSV with the columns "
            'photograph,left,top,right,bottom, or JSON: {"photograph": [[left, top, right, bottom]]}'
        ) from error
    found = defaultdict(list)
    for name, box in rows:
        if not (box[0] < box[2] and box[1] < box[3]):
            raise OptionError(f"{path}: the box {box} of {name} is empty; give left, top, right, bottom, in pixels")
        found[Path(name).stem].append(box)
    return dict(found)


def _from_json(text: str) -> list[tuple[str, Box]]:
    return [(name, _four(box)) for name, boxes in json.loads(text).items() for box in boxes]


def _from_csv(text: str) -> list[tuple[str, Box]]:
    return [
        (row["photograph"], _four([row[side] for side in ("left", "top", "right", "bottom")]))
        for row in csv.DictReader(text.splitlines(), skipinitialspace=True)
    ]


def _four(values: Sequence[str | float]) -> Box:
    left, top, right, bottom = (float(value) for value in values)
    return left, top, right, bottom


def _prepared(network: Network, area: Tensor) -> Tensor:
    """(H, W) of the network's size, cut as the photograph is."""
    return network.prepare(area.float().expand(3, -1, -1))[0] > 0.5
