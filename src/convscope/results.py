"""What techniques return: raw numbers and where they came from, without a colour.

``values`` always holds the untouched numbers, on the CPU and without a graph. How a result looks is the business of
``convscope.views``, which is imported when the first is drawn; how a number became a colour is shown there with its
scale.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from convscope.animation import Frame, write_film
from convscope.errors import OutputError
from convscope.extras import summary_writer
from convscope.images import atomic_write, png_text, read_image, to_uint8, write_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch.utils.tensorboard import SummaryWriter

    from convscope.behaviour.conflict import Count

Summary: TypeAlias = Mapping[str, Any]


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    known = {name: _version(name) for name in ("convscope", "torch", "torchvision", "timm", "numpy")}
    return {"python": platform.python_version(), **{name: found for name, found in known.items() if found}}


@functools.cache  # each costs as much as a small network's pass, and does not change while it is imported
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _views() -> Any:
    """What draws results, from the floor above."""
    return importlib.import_module("convscope.views")


@dataclass(frozen=True)
class Provenance:
    """Everything that is needed to make a result again.

    ``photographs`` are the files that it was made of, ``digests`` the SHA-256 of each file, ``loaded`` the options
    with which the command line loaded the network, ``index`` the folder of the index that was asked, and ``defence``
    what stood in front of the network. ``stopped`` is after how many steps the user stopped the run, where that was
    before its end.
    """

    technique: str
    options: Mapping[str, Any]
    network: str
    weights: str
    layer: str | None
    seed: int | None
    precision: str
    device: str
    photographs: tuple[str, ...] = ()
    stopped: int | None = None
    versions: Mapping[str, str] = field(default_factory=versions)
    loaded: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    index: str = ""
    defence: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """Base of all results.

    Attributes:
        values: the raw numbers; each type says their shape.
        summaries: what to say in words and JSON, one mapping a picture, or a single one for the whole network.
        per_picture: whether ``summaries`` has one entry a picture.
        layer: the layer that was used, where there is one.
        notes: sentences that the reader must not miss (a constant map, a class without positive evidence).
        state: where a run that the user stopped can be taken up again.
        provenance: filled in by the registry.
    """

    values: Tensor
    summaries: Sequence[Summary]
    per_picture: bool = True
    layer: str | None = None
    notes: Sequence[str] = ()
    state: Mapping[str, Any] | None = None
    provenance: Provenance | None = None

    finite: ClassVar[bool] = True  # whether NaN among the values is a fault

    @property
    def summary(self) -> Summary | Sequence[Summary]:
        """The one summary, or a list of them for several pictures."""
        return self.summaries[0] if len(self.summaries) == 1 else list(self.summaries)

    def numpy(self) -> np.ndarray:
        """The raw values as an array."""
        return self.values.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The raw values, for what takes arrays: ``numpy.asarray(result)``."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def figure(self) -> Figure:
        """A matplotlib figure of it."""
        found: Figure = _views().figure(self)
        return found

    def page(self) -> str:
        """A whole HTML document of it, which needs nothing beside it and no network."""
        found: str = _views().page(self)
        return found

    def picture(self) -> Image:
        """The figure as a Pillow picture."""
        from io import BytesIO

        from PIL import Image

        figure, buffer = self.figure(), BytesIO()
        figure.savefig(buffer, format="rgba", dpi=figure.dpi)  # the pixels as they are: no PNG is made to be read again
        width, height = (int(side) for side in figure.bbox.size)
        return Image.frombytes("RGBA", (width, height), buffer.getvalue()).convert("RGB")

    def log(self, writer: SummaryWriter | str | Path, tag: str | None = None, step: int = 0) -> None:
        """Show it in TensorBoard: its picture under Images, what it says and how it was made under Text.

        Args:
            writer: a ``SummaryWriter`` that is open, or a folder, to which one is opened and closed again.
            tag: its name there; the technique's for None.
            step: where along the training it belongs.

        Raises:
            MissingExtra: a folder is given and TensorBoard is not installed.
            OutputError: the folder cannot be made.
        """
        if isinstance(writer, (str, Path)):
            with summary_writer(writer) as opened:
                return self.log(opened, tag, step)
        name = tag or (self.provenance.technique if self.provenance else type(self).__name__.lower())
        writer.add_image(name, np.asarray(self.picture()), step, dataformats="HWC")
        writer.add_text(name, f"```json\n{self.to_json()}\n```", step)

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return str(_views().cell(self))

    def __repr__(self) -> str:
        """A line, and not all its numbers."""
        made = f" by {self.provenance.technique}" if self.provenance else ""
        return f"<{type(self).__name__}{made}: values {tuple(self.values.shape)}>"

    def to_json(self) -> str:
        """One object with the summary and the provenance; a list of such objects for several pictures."""
        provenance = asdict(self.provenance) if self.provenance else None
        notes = {"notes": list(self.notes)} if self.notes else {}
        objects = [{**summary, **notes, "provenance": provenance} for summary in self._said()]
        return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, default=plain)

    def _said(self) -> Sequence[Summary]:
        """What JSON says of each picture."""
        return self.summaries

    def recipe(self) -> str:
        """The provenance as JSON, which PNG files carry and ``convscope rerun`` reads."""
        return json.dumps(asdict(self.provenance) if self.provenance else None, default=plain)

    def arrays(self) -> dict[str, np.ndarray]:
        """What the ``.npz`` file holds: ``values``, what they belong to, and ``provenance`` as JSON."""
        return {"values": self.numpy(), "provenance": np.array(self.recipe())}

    def save(self, path: str | Path) -> Path:
        """Write it by suffix: a picture (.png, .jpg, .webp, .pdf, .svg), a page (.html), the raw numbers (.npz), .json.

        Written under a temporary name and renamed, so that no half file is ever left.
        """
        path = Path(path)
        writers = self._writers()
        writer = writers.get(path.suffix.lower())
        if writer is None:
            raise OutputError(f"cannot write {path.name}: the name must end in one of {', '.join(sorted(writers))}")
        with atomic_write(path) as temporary:
            writer(temporary)
        return path

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        """What writes a file of each suffix."""
        pictures = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
        return {
            ".npz": self._save_arrays,
            ".json": lambda target: target.write_text(self.to_json() + "\n"),
            ".html": lambda target: target.write_text(self.page(), encoding="utf-8"),
            **dict.fromkeys(pictures, self._save_picture),
        }

    def _save_arrays(self, path: Path) -> None:
        with open(path, "wb") as handle:
            np.savez_compressed(handle, **self.arrays())  # type: ignore[arg-type]

    def _save_picture(self, path: Path) -> None:
        kind = path.suffix.lower().lstrip(".").replace("jpg", "jpeg")
        options: dict[str, Any] = {"format": kind}
        if kind == "png" and self.provenance:
            options["pil_kwargs"] = {"pnginfo": png_text(self.recipe())}
        self.figure().savefig(path, **options)


@dataclass(frozen=True, kw_only=True, repr=False)
class Heatmap(Result):
    """One number for each pixel of each picture.

    ``values`` is (N, H, W); ``images`` (N, 3, H, W) in [0, 1] are the pictures that it belongs to. ``signed`` says
    whether below zero means something (evidence against), so that zero must look neutral. ``quantity`` names the
    number and its unit; ``titles`` has a line a picture. ``cells`` (N, h, w) is the map at the resolution at which
    it was computed, where that is coarser than the pictures. ``shared`` puts all maps on one scale, where they are to
    be compared; otherwise each has its own.
    """

    images: Tensor
    signed: bool
    quantity: str
    titles: Sequence[str] = ()
    cells: Tensor | None = None
    shared: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        cells = {} if self.cells is None else {"cells": self.cells.float().numpy()}
        return {**super().arrays(), **cells, "images": self.images.float().numpy()}


@dataclass(frozen=True, kw_only=True, repr=False)
class Regions(Heatmap):
    """A heat map and the parts of each picture that were found in it.

    ``masks`` is (N, H, W), true on the parts. ``boxes`` (N, K, 4) are their boxes as top, left, height and width in
    pixels, the largest part first; where there are fewer than K, height and width are zero. ``outlined`` says what a
    view draws around: ``box``, or ``mask``.
    """

    masks: Tensor
    boxes: Tensor
    outlined: Literal["box", "mask"]

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "masks": self.masks.numpy(), "boxes": self.boxes.numpy()}


@dataclass(frozen=True, kw_only=True, repr=False)
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


@dataclass(frozen=True, kw_only=True, repr=False)
class Ranking(Result):
    """A picture beside the names that fit it best, with a share in [0, 1] for each.

    ``values`` are the logits (N, classes); ``names`` and ``shares`` have a list a picture, best first.
    """

    images: Tensor
    names: Sequence[Sequence[str]]
    shares: Sequence[Sequence[float]]
    titles: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Table(Result):
    """Rows of named columns. ``values`` (rows, numeric columns) holds the numbers of ``numeric``, NaN where none."""

    finite: ClassVar[bool] = False
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numeric: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Table):
    """Methods beside each other, each by several measures, as a table whose numbers have intervals.

    ``values``, ``lows`` and ``highs`` are (methods, measures), NaN where there is none: means and the ends of their
    intervals. ``better`` is 1 for a measure of which more is better, -1 where less is, 0 where neither; ``chances``
    holds what a method without any knowledge gets, None where that is not known. ``marks`` flags methods, and
    ``mark`` says what the flag means; ``controls`` flags those that stand there for comparison only;
    ``each`` is what one of them is called.
    """

    lows: Tensor
    highs: Tensor
    methods: Sequence[str]
    measures: Sequence[str]
    better: Sequence[int]
    chances: Sequence[float | None]
    marks: Sequence[bool] = ()
    mark: str = ""
    controls: Sequence[bool] = ()
    each: str = "method"

    def arrays(self) -> dict[str, np.ndarray]:
        names = {"methods": np.array(self.methods), "measures": np.array(self.measures)}
        return {**super().arrays(), "lows": self.lows.numpy(), "highs": self.highs.numpy(), **names}


@dataclass(frozen=True, kw_only=True, repr=False)
class Bias(Table):
    """Decisions for the shape, for the texture and for neither, by class, of one network or of several.

    ``values`` is (classes + 1, 3), all classes together last. ``series`` has a name and such counts for each network,
    this one first. ``examples`` (K, 3, H, W) are some of the pictures, with lines under each.
    """

    series: Sequence[tuple[str, Sequence[Count]]]
    examples: Tensor | None = None
    example_titles: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Agreement(Table):
    """People and a network on the same pictures, the network last.

    ``values`` is (participants, 4): the share of right answers with the ends of its interval, and kappa with the
    network, or of the network itself the mean with people; ``kappa_ends`` (participants, 2) are its interval's ends.
    ``confusions`` (2, K, K + 1) count people's and the network's answers to the categories ``names``, others last.
    """

    participants: Sequence[str]
    names: Sequence[str]
    confusions: Tensor
    kappa_ends: Tensor

    def arrays(self) -> dict[str, np.ndarray]:
        more = {"confusions": self.confusions.numpy(), "categories": np.array(self.names)}
        return {**super().arrays(), **more, "participants": np.array(self.participants)}


@dataclass(frozen=True, kw_only=True, repr=False)
class Curve(Result):
    """Named series over a common axis.

    ``values`` is (series, points), NaN where a series has no point; ``panels`` groups the series' names into plots
    below each other, each with its axis label and whether it is logarithmic. ``lows`` and ``highs`` of the same shape
    are the ends of intervals. Series that are ``dashed`` have the colour of the one before them in the panel; ``dash``
    says what that means.
    """

    finite: ClassVar[bool] = False
    series: Sequence[str]
    points: Sequence[str]
    panels: Sequence[tuple[str, Sequence[str], bool]]
    axis: str = ""
    lows: Tensor | None = None
    highs: Tensor | None = None
    dashed: Sequence[str] = ()
    dash: str = ""

    def arrays(self) -> dict[str, np.ndarray]:
        ends = {"lows": self.lows, "highs": self.highs}
        return {**super().arrays(), **{name: end.numpy() for name, end in ends.items() if end is not None}}


@dataclass(frozen=True, kw_only=True, repr=False)
class Scatter(Result):
    """Points in the plane.

    ``values`` is (N, 2); ``groups`` (N,) colours them, whole numbers that ``group_names`` names where there are any;
    ``names`` is said on hover.
    """

    groups: Tensor | None = None
    names: Sequence[str] = ()
    group_names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Embedding(Scatter):
    """Pictures in the plane, by what a network makes of them.

    ``values`` is (N, 2); ``thumbnails`` (N, 3, s, s) uint8 are the pictures. ``group_names`` names the groups, of which
    -1 is none. ``fields`` are what a page says of each picture beside its name. ``arrangement`` is how it is drawn:
    ``scatter`` as points, ``grid`` and ``poster`` as thumbnails at ``places`` (N, 2), rows and columns of ``lattice``
    (rows, columns), no two at one place; a place of -1 is none. ``save`` then writes the thumbnails and nothing else.
    """

    thumbnails: Tensor
    arrangement: Literal["scatter", "grid", "poster"] = "scatter"
    places: Tensor | None = None
    lattice: tuple[int, int] = (0, 0)
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        groups = {} if self.groups is None else {"groups": self.groups.numpy()}
        places = {} if self.places is None else {"places": self.places.numpy()}
        return {**super().arrays(), **groups, **places, "names": np.array(self.names, dtype=str)}

    def sheet(self) -> Frame:
        """(H, W, 3): the thumbnails at their places, on white."""
        if self.places is None:
            raise OutputError("a scatter has no sheet of thumbnails: arrange it as a grid or as a poster")
        side = self.thumbnails.shape[-1]
        cells = np.full((*self.lattice, side, side, 3), 255, np.uint8)
        there = self.places[:, 0] >= 0
        rows, columns = self.places[there].T.numpy()
        cells[rows, columns] = self.thumbnails[there].permute(0, 2, 3, 1).numpy()
        height, width = self.lattice
        return np.ascontiguousarray(cells.swapaxes(1, 2).reshape(height * side, width * side, 3))

    def _save_picture(self, path: Path) -> None:
        if self.places is None or path.suffix.lower() in (".pdf", ".svg"):
            return super()._save_picture(path)
        from PIL import Image

        write_image(Image.fromarray(self.sheet()), path, recipe=self.recipe() if self.provenance else None)


@dataclass(frozen=True)
class Panel:
    """Tiles of one kind for every row of :class:`Rows`.

    ``tiles`` has a tensor (K, 3, h, w) a row, in [0, 1], or ``signed`` around zero, each scaled by itself.
    ``captions`` has a line a tile; ``boxes`` a tensor (K, 4) a row, (top, left, bottom, right) in pixels of the tile,
    which are outlined.
    """

    name: str
    tiles: Sequence[Tensor]
    signed: bool = False
    captions: Sequence[Sequence[str]] = ()
    boxes: Sequence[Tensor] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Rows(Result):
    """Rows of tiles, each with a name: what units or pictures have for company, in one or more ``panels``.

    ``titles`` and ``subtitles`` have a line a row; a section begins where ``sections`` says something new.
    ``images`` (rows, 3, H, W) is what each row is about, at its left. Panels stand beside each other, or ``stacked``
    below each other; in ``columns`` tiles are wrapped, where one line is not wanted. ``values`` may hold NaN where a
    row has fewer tiles.
    """

    finite: ClassVar[bool] = False
    panels: Sequence[Panel]
    titles: Sequence[str]
    subtitles: Sequence[str] = ()
    sections: Sequence[str] = ()
    images: Tensor | None = None
    stacked: bool = False
    columns: int | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        tiles = {
            f"{panel.name}, {title}": tiles.float().numpy()
            for panel in self.panels
            for title, tiles in zip(self.titles, panel.tiles, strict=True)
        }
        return {**super().arrays(), **tiles}


@dataclass(frozen=True, kw_only=True, repr=False)
class Trends(Result):
    """How often something holds, over numbers that each picture has: a curve with a band for each of these numbers.

    ``values`` is (numbers, bins, 4): of each bin the median of the number, the share, and the ends of the share's
    interval; NaN beyond a number's last bin. ``counts`` (numbers, bins) are pictures. ``names`` and ``verdicts`` have
    a line for each number, and ``marks`` flags those that matter. ``overall`` is the share of all pictures, named
    ``quantity``. ``ends`` (numbers, 2, K, 3, h, w) shows pictures with the least and with the most of each number.
    """

    finite: ClassVar[bool] = False
    counts: Tensor
    names: Sequence[str]
    verdicts: Sequence[str]
    marks: Sequence[bool]
    overall: float
    quantity: str
    ends: Tensor

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "counts": self.counts.numpy(), "names": np.array(self.names)}


@dataclass(frozen=True, kw_only=True, repr=False)
class Checkup(Table):
    """Layers as rows of a table, with what is wrong.

    ``verdict`` says it in a word or two and ``sound`` whether all is well; ``findings`` are where, what was measured,
    what it usually means, and whether it is grave. ``bars`` names the numeric columns that a view draws, with the value
    that fills a bar, and ``bad`` (rows, bars) flags what is out of order. ``filters`` (K, C, h, w) are the first
    layer's.
    """

    verdict: str
    sound: bool
    findings: Sequence[tuple[str, str, str, bool]]
    bars: Sequence[tuple[str, float]]
    bad: Tensor
    filters: Tensor


@dataclass(frozen=True, kw_only=True, repr=False)
class Clusters(Result):
    """Maps of many pictures in groups that are alike.

    ``values`` is (N, h, w), the maps; ``groups`` (N,) the group of each, the largest group 0; ``ids`` (N,) the pictures
    in the index. ``eigenvalues`` (M,) are those of the graph's Laplacian, the smallest first, and ``chance`` (M,) the
    same where nothing holds the maps together. ``means`` (K, h, w) are the groups' mean maps, ``mean_pictures`` (K, 3,
    H, W) their mean pictures, and ``spots`` (K, H, W) where each is strongest. ``examples`` (K, E, 3, H, W) and
    ``example_maps`` (K, E, H, W) are some of each with its map, of which ``shown`` says how many there are. ``facts``
    are lines about each group, and ``marks`` flags those to look at.
    """

    groups: Tensor
    ids: Tensor
    eigenvalues: Tensor
    chance: Tensor
    means: Tensor
    mean_pictures: Tensor
    spots: Tensor
    examples: Tensor
    example_maps: Tensor
    shown: Sequence[int]
    facts: Sequence[Sequence[str]]
    marks: Sequence[bool]

    def arrays(self) -> dict[str, np.ndarray]:
        more = {"groups": self.groups, "ids": self.ids, "eigenvalues": self.eigenvalues, "means": self.means}
        return {**super().arrays(), **{name: tensor.numpy() for name, tensor in more.items()}}


@dataclass(frozen=True, kw_only=True, repr=False)
class Matches(Result):
    """Points of pictures that were found again in other pictures.

    ``values`` (N, M, P, 4) is the row and column in pixels at which each of the P points of each of N pictures was
    found in M others, how alike the two are (cosine), and how far off the way back leads. ``points`` (N, P, 2) are the
    points; ``images`` (N, 3, H, W) and ``others`` (N, M, 3, H, W) the pictures; ``rebuilt`` (N, 3, H, W) the pictures
    put together from pieces of others. ``found`` has for each way of matching (3, T): the share of points of
    warped pictures that were found within each of ``tolerances``, shares of the longer side, and its interval's ends.
    """

    points: Tensor
    images: Tensor
    others: Tensor
    rebuilt: Tensor
    tolerances: Sequence[float]
    found: Mapping[str, Tensor]
    titles: Sequence[str] = ()

    def arrays(self) -> dict[str, np.ndarray]:
        more = {f"found {name}": tensor.numpy() for name, tensor in self.found.items()}
        return {**super().arrays(), "points": self.points.numpy(), "rebuilt": self.rebuilt.float().numpy(), **more}


@dataclass(frozen=True, kw_only=True, repr=False)
class Synthesis(Result):
    """Pictures that were made: class images, dreams, textures, styles.

    ``values`` is (N, 3, H, W) in [0, 1], before it is rounded to 8 bits. ``frames`` are pictures on the way there, as
    (step, (N, 3, h, w) uint8), of whatever size they had; the finished ones need not be among them. ``trace``
    (steps, N) is what was maximised, named ``quantity``, at each step. ``originals`` (N, 3, h, w) or (1, 3, h, w) are
    the photographs that they were made from, shown beside them but not in the picture that is saved.

    ``save("x.png")`` writes a single picture at its own size and nothing else, several as a sheet without words;
    ``.gif``, ``.mp4``, and ``.webp`` where there are frames, write the film of how they came about.
    """

    titles: Sequence[str] = ()
    frames: Sequence[tuple[int, Tensor]] = ()
    trace: Tensor | None = None
    quantity: str = "objective"
    originals: Tensor | None = None
    columns: int | None = None

    def _said(self) -> Sequence[Summary]:
        ends = [self._ends(index) for index in range(len(self.values))]
        size = {"height": self.values.shape[2], "width": self.values.shape[3]}
        return [{**size, **end, **summary} for end, summary in zip(ends, self.summaries, strict=True)]

    def _ends(self, picture: int) -> Summary:
        """The first and the last of what was maximised."""
        if self.trace is None or not len(self.trace):
            return {}
        found = self.trace[:, picture].tolist()
        return {"steps": len(found), "objective_first": found[0], "objective_last": found[-1]}

    def arrays(self) -> dict[str, np.ndarray]:
        trace = {} if self.trace is None else {"trace": self.trace.float().numpy()}
        return {**super().arrays(), **trace}

    def sheet(self) -> Frame:
        """(H, W, 3): what ``save`` writes; the picture, or all of them side by side with white gaps."""
        return contact_sheet(to_uint8(self.values), self.columns)

    def film(self) -> list[Frame]:
        """The sheets of all frames, and of the finished pictures last."""
        frames = [contact_sheet(f.permute(0, 2, 3, 1).numpy(), self.columns) for _, f in self.frames]
        last = self.sheet()
        return frames if frames and np.array_equal(frames[-1], last) else [*frames, last]

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        films = [".gif", ".mp4", *([".webp"] if self.frames else [])]
        return {**super()._writers(), **dict.fromkeys(films, lambda path: write_film(self.film(), path))}

    def _save_picture(self, path: Path) -> None:
        if path.suffix.lower() in (".pdf", ".svg"):
            return super()._save_picture(path)
        from PIL import Image

        write_image(Image.fromarray(self.sheet()), path, recipe=self.recipe() if self.provenance else None)


@dataclass(frozen=True, kw_only=True, repr=False)
class Adversarial(Result):
    """Pictures that were changed so that a network errs, each beside the one that it was.

    ``values`` (N, 3, H, W) and ``originals`` of the same shape hold the very numbers that reading their 8-bit PNG
    gives. ``names`` has two or more classes a picture, its own first, ``before`` and ``after`` their probabilities in
    [0, 1]; ``success`` says whether the changed file fools the network. ``captions`` are lines about each change.
    ``factor`` is by how much a view enlarges the difference where it is shown a second time. ``places`` says which of
    the given pictures each is, where it is not all of them in their order. ``change`` (1, 3, H, W) is what all of them
    were changed by, where it is one for all.

    ``save("x.png")`` writes the sheet with both pictures and their difference; :meth:`write_pictures` writes the
    pictures alone.
    """

    originals: Tensor
    names: Sequence[Sequence[str]]
    before: Sequence[Sequence[float]]
    after: Sequence[Sequence[float]]
    success: Sequence[bool]
    titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()
    factor: float = 10.0
    places: Sequence[int] = ()
    change: Tensor | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        change = {} if self.change is None else {"change": self.change.float().numpy()}
        return {**super().arrays(), **change, "originals": self.originals.float().numpy()}

    def place(self, index: int) -> int:
        """Which of the given pictures it is."""
        return self.places[index] if self.places else index

    def write_pictures(self, path: str | Path) -> list[Path]:
        """Write the changed pictures as PNG, numbered where there are several, and read them back.

        Raises OutputError for another kind of file, and where a file does not hold the very picture.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise OutputError(f"{path}: only PNG keeps every level of a changed picture; end the name in .png")
        count = len(self.values)
        several = [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]
        paths = [path] if count == 1 else several
        for target, picture in zip(paths, self.values, strict=True):
            write_image(picture, target)
            if not torch.equal(read_image(target), picture):
                raise OutputError(f"{target} does not hold the changed picture; is another program writing it?")
        return paths


@dataclass(frozen=True, kw_only=True, repr=False)
class Spots(Adversarial):
    """Pictures of which a few pixels were changed; a view marks them and shows them from near."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Patch(Result):
    """A patch that was made to be laid on pictures, and how often it fools.

    ``values`` is (1, 3, h, h) in [0, 1], as an 8-bit file holds it, and ``covered`` (h, h) true where the patch is.
    ``rates`` and ``controls`` (S, 3) hold, for each of ``shares`` of the picture's area, the success and its interval's
    ends, of the patch and of an untrained one. ``examples`` (K, 3, H, W) show it in use, with a line under each.

    ``save("x.png")`` writes the sheet; :meth:`write_print` the patch alone, to be printed.
    """

    finite: ClassVar[bool] = False
    form: str
    target: str
    shares: Sequence[float]
    rates: Tensor
    controls: Tensor
    covered: Tensor
    examples: Tensor | None = None
    example_titles: Sequence[str] = ()

    def arrays(self) -> dict[str, np.ndarray]:
        more = {"shares": np.array(self.shares), "rates": self.rates.numpy(), "controls": self.controls.numpy()}
        return {**super().arrays(), **more, "covered": self.covered.numpy()}

    def write_print(self, path: str | Path, size_cm: float) -> Path:
        """Write the patch as .png or .pdf that prints ``size_cm`` wide, at 300 dots an inch or more, white around it.

        Raises :class:`OutputError` for another suffix.
        """
        from PIL import Image

        path, side = Path(path), self.values.shape[-1]
        if path.suffix.lower() not in (".png", ".pdf"):
            raise OutputError(f"{path}: a patch is printed from .png or .pdf; end the name in one")
        enlarged = side * max(1, math.ceil(size_cm / 2.54 * 300 / side))
        colours = torch.where(self.covered, self.values[0], 1.0)
        shown = Image.fromarray(to_uint8(colours)).resize((enlarged, enlarged), Image.Resampling.NEAREST)
        dots = enlarged / (size_cm / 2.54)
        options: dict[str, Any] = (
            {"resolution": dots, "quality": 100} if path.suffix.lower() == ".pdf" else {"dpi": (dots,) * 2}
        )
        with atomic_write(path) as temporary:
            shown.save(temporary, **options)
        return path


@dataclass(frozen=True, kw_only=True, repr=False)
class Parts(Result):
    """Several results that belong together, drawn below each other under one heading.

    ``parts`` are (title, result), results without a provenance of their own. ``values`` are the technique's own.
    """

    parts: Sequence[tuple[str, Result]]

    def arrays(self) -> dict[str, np.ndarray]:
        """``values``, and the arrays of each part under its number and name, as ``1.originals``."""
        found = super().arrays()
        for number, (_, part) in enumerate(self.parts, 1):
            found |= {f"{number}.{name}": array for name, array in part.arrays().items() if name != "provenance"}
        return found


def contact_sheet(pictures: np.ndarray, columns: int | None = None) -> Frame:
    """(N, h, w, 3) side by side in rows, near a square, with white gaps of 4 to 8 pixels; one alone is itself."""
    count, height, width = pictures.shape[:3]
    if count == 1:
        return np.ascontiguousarray(pictures[0])
    columns = columns or math.ceil(math.sqrt(count * height / width))  # rather wider than high
    gap = min(8, max(4, width // 32))
    rows, columns = math.ceil(count / columns), min(columns, count)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def settle(result: Result, provenance: Provenance) -> Result:
    """The result on the CPU, without a graph, with its provenance."""
    found = {f.name: _settled(getattr(result, f.name)) for f in fields(result)}
    values = found["values"]
    found["values"] = values.float() if values.dtype in (torch.half, torch.bfloat16) else values
    return replace(result, **{**found, "provenance": provenance})


def _settled(value: Any) -> Any:
    """Tensors on the CPU and without a graph, also within sequences and panels."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Panel):
        return replace(value, **{f.name: _settled(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, (list, tuple)) and any(isinstance(each, (Tensor, Panel, list, tuple)) for each in value):
        return type(value)(_settled(each) for each in value)
    return value


def plain(value: Any) -> Any:
    """What JSON can hold of a value."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    return str(value)
