"""What techniques return: raw numbers and where they came from, without a colour.

``values`` always holds the untouched numbers, on the CPU and without a graph. How a result looks is the business of
``convscope.views``, which registers itself here; how a number became a colour is shown there with its scale.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from convscope.errors import OutputError
from convscope.images import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

Summary: TypeAlias = Mapping[str, Any]


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("convscope", "torch", "torchvision", "timm", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Provenance:
    """Everything that is needed to make a result again."""

    technique: str
    options: Mapping[str, Any]
    network: str
    weights: str
    layer: str | None
    seed: int | None
    precision: str
    device: str
    photographs: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of all results.

    Attributes:
        values: the raw numbers; each type says their shape.
        summaries: what to say in words and JSON, one mapping a picture, or a single one for the whole network.
        per_picture: whether ``summaries`` has one entry a picture.
        layer: the layer that was used, where there is one.
        notes: sentences that the reader must not miss (a constant map, a class without positive evidence).
        provenance: filled in by the registry.
    """

    values: Tensor
    summaries: Sequence[Summary]
    per_picture: bool = True
    layer: str | None = None
    notes: Sequence[str] = ()
    provenance: Provenance | None = None

    finite: ClassVar[bool] = True  # whether NaN among the values is a fault
    views: ClassVar[Callable[[Result], Figure] | None] = None

    @property
    def summary(self) -> Summary | Sequence[Summary]:
        """The one summary, or a list of them for several pictures."""
        return self.summaries[0] if len(self.summaries) == 1 else list(self.summaries)

    def numpy(self) -> np.ndarray:
        """The raw values as an array."""
        return self.values.numpy()

    def figure(self) -> Figure:
        """A matplotlib figure of it."""
        if Result.views is None:
            raise OutputError("nothing draws results yet: import convscope.views")
        return Result.views(self)

    def picture(self) -> Image:
        """The figure as a Pillow picture."""
        from io import BytesIO

        from PIL import Image

        buffer = BytesIO()
        self.figure().savefig(buffer, format="png")
        return Image.open(buffer).convert("RGB")

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        buffer = BytesIO()
        self.figure().savefig(buffer, format="png")
        return buffer.getvalue()

    def to_json(self) -> str:
        """One object with the summary and the provenance; a list of such objects for several pictures."""
        provenance = asdict(self.provenance) if self.provenance else None
        notes = {"notes": list(self.notes)} if self.notes else {}
        objects = [{**summary, **notes, "provenance": provenance} for summary in self.summaries]
        return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, default=plain)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the ``.npz`` file holds: ``values``, what they belong to, and ``provenance`` as JSON."""
        provenance = json.dumps(asdict(self.provenance) if self.provenance else None, default=plain)
        return {"values": self.numpy(), "provenance": np.array(provenance)}

    def save(self, path: str | Path) -> Path:
        """Write it by suffix: a picture (.png, .jpg, .webp, .pdf, .svg), the raw numbers (.npz), or .json.

        Written under a temporary name and renamed, so that no half file is ever left.
        """
        path = Path(path)
        kind = path.suffix.lower()
        writers: dict[str, Callable[[Path], object]] = {
            ".npz": self._save_arrays,
            ".json": lambda target: target.write_text(self.to_json() + "\n"),
        }
        pictures = {".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg"}
        if kind not in writers and kind not in pictures:
            raise OutputError(
                f"cannot write {path.name}: the name must end in one of {', '.join(sorted(pictures | set(writers)))}"
            )
        with atomic_write(path) as temporary:
            writers.get(kind, self._save_picture)(temporary)
        return path

    def _save_arrays(self, path: Path) -> None:
        with open(path, "wb") as handle:
            np.savez_compressed(handle, **self.arrays())  # type: ignore[arg-type]

    def _save_picture(self, path: Path) -> None:
        self.figure().savefig(path, format=path.suffix.lower().lstrip(".").replace("jpg", "jpeg"))


@dataclass(frozen=True, kw_only=True)
class Heatmap(Result):
    """One number for each pixel of each picture.

    ``values`` is (N, H, W); ``images`` (N, 3, H, W) in [0, 1] are the pictures that it belongs to. ``signed`` says
    whether below zero means something (evidence against), so that zero must look neutral. ``quantity`` names the
    number and its unit; ``titles`` has a line a picture. ``cells`` (N, h, w) is the map at the resolution at which
    it was computed, where that is coarser than the pictures.
    """

    images: Tensor
    signed: bool
    quantity: str
    titles: Sequence[str] = ()
    cells: Tensor | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        cells = {} if self.cells is None else {"cells": self.cells.float().numpy()}
        return {**super().arrays(), **cells, "images": self.images.float().numpy()}


@dataclass(frozen=True, kw_only=True)
class Pictures(Result):
    """Many small pictures in groups: filters, feature maps, patches.

    ``tiles`` is (groups, K, C, h, w) with one or three channels, drawn from ``values`` (of the technique's own
    shape, untouched). ``marks`` (groups, K) flags tiles, and ``mark`` says what the flag means. ``images``
    (groups, 3, H, W) stands beside each group. ``each`` scales every tile by itself instead of all on one scale.
    """

    tiles: Tensor
    titles: Sequence[str] = ()
    tile_titles: Sequence[str] = ()
    marks: Tensor | None = None
    mark: str = ""
    images: Tensor | None = None
    signed: bool = False
    each: bool = False
    columns: int | None = None
    quantity: str = ""


@dataclass(frozen=True, kw_only=True)
class Ranking(Result):
    """A picture beside the names that fit it best, with a share in [0, 1] for each.

    ``values`` are the logits (N, classes); ``names`` and ``shares`` have a list a picture, best first.
    """

    images: Tensor
    names: Sequence[Sequence[str]]
    shares: Sequence[Sequence[float]]
    titles: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Table(Result):
    """Rows of named columns. ``values`` (rows, numeric columns) holds the numbers of ``numeric``, NaN where none."""

    finite: ClassVar[bool] = False
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numeric: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Curve(Result):
    """Named series over a common axis.

    ``values`` is (series, points), NaN where a series has no point; ``panels`` groups the series' names into plots
    below each other, each with its axis label and whether it is logarithmic.
    """

    finite: ClassVar[bool] = False
    series: Sequence[str]
    points: Sequence[str]
    panels: Sequence[tuple[str, Sequence[str], bool]]
    axis: str = ""


@dataclass(frozen=True, kw_only=True)
class Scatter(Result):
    """Points in the plane. ``values`` is (N, 2); ``groups`` (N,) colours them; ``names`` is said on hover."""

    groups: Tensor | None = None
    names: Sequence[str] = ()


def settle(result: Result, provenance: Provenance) -> Result:
    """The result on the CPU, without a graph, with its provenance."""

    def plain_tensor(value: Any) -> Any:
        return value.detach().cpu() if isinstance(value, Tensor) else value

    found = {f.name: plain_tensor(getattr(result, f.name)) for f in fields(result)}
    values = found["values"]
    found["values"] = values.float() if values.dtype in (torch.half, torch.bfloat16) else values
    return replace(result, **{**found, "provenance": provenance})


def plain(value: Any) -> Any:
    """What JSON can hold of a value."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    return str(value)
