"""For which kind of pictures a network fails: its accuracy over what can be measured of a picture.

Pictures are put into bins of equal size by each number in turn. Whether the bins differ by more than chance is asked
twice. Of all pictures: by the chi-squared test of accuracy against bins. And within each class: with each picture's
mark less the accuracy of its class, and the number shuffled among the pictures of the class (a permutation test), since
a number may seem to matter only because some classes are both darker and harder. Both are corrected for asking about
many numbers (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from scipy.stats import chi2
from torch import Tensor

from convscope import progress
from convscope.errors import IndexUnusable, OptionError
from convscope.images import fit
from convscope.index import Index
from convscope.intervals import difference, proportion
from convscope.registry import Seed, technique
from convscope.results import Trends

MEASURED = ("brightness", "contrast", "colourfulness", "sharpness", "clutter", "aspect")
BOXED = ("object size", "distance from the middle")
LEVEL = 0.05
SHUFFLES = 999
FEWEST = 10  # pictures in a bin
THUMBNAIL, EACH = (60, 60), 3  # pixels of a picture at the ends of an axis, and how many


@dataclass(frozen=True)
class Trend:
    """One number over the pictures: bins, shares, and how far chance would go."""

    name: str
    bins: np.ndarray  # (N,) bin of each picture, -1 where it has no number
    middles: np.ndarray  # (B,)
    hits: np.ndarray  # (B,)
    counts: np.ndarray  # (B,)


@technique(
    family="dataset",
    order=8,
    paper="Wilson 1927 for the bands; Holm 1979 for many looks",
    see=(
        "A band that leaves the dashed line of all pictures: there the network does better or worse. Numbers that "
        "matter beyond chance come first."
    ),
    caution=(
        "What goes together need not be the cause: sharper pictures may be of other things. The second test only rules "
        "out that it is the class."
    ),
    quick={"bins": 3},
    example={"bins": 6},
)
def attributes(
    index: Index,
    *,
    bins: Annotated[int, Field(ge=2, le=50, description="of equal numbers of pictures")] = 10,
    boxes: Annotated[
        str | Path | None,
        Field(description="CSV file of objects' boxes: path, top, left, height, width, in pixels of the stored files"),
    ] = None,
    seed: Seed = 0,
) -> Trends:
    """How accuracy depends on brightness, contrast, colour, sharpness, clutter, shape, and the object's size and place.

    Args:
        index: of pictures whose classes the network knows.
        bins: how many; fewer where there are too few pictures or different values for as many.
        boxes: a CSV file with a head line; a picture is found by the end of its path. Adds ``object size`` (share of
            the picture's area) and ``distance from the middle`` (of the object's centre, in half diagonals).
        seed: of the shuffles.

    Returns:
        ``values`` (numbers, bins, 4): median of the number, accuracy, and the ends of its 95 % interval (Wilson), NaN
        beyond a number's last bin; numbers in the order of how much they matter. The summary holds for each ``name``,
        ``edges``, ``p`` (chi-squared), ``p_within_classes`` (permutation), both corrected, ``matters``, and
        ``change``: accuracy in the last bin minus that in the first, with its interval (Newcombe).

    Raises:
        IndexUnusable: no picture has a class that the network knows, or all or none are classified right.
        OptionError: the boxes cannot be read or fit no picture.
    """
    columns = ["id", "path", "label_index", "correct", "height", "width", *MEASURED]
    rows = index.pictures(columns, "error is null and correct is not null").to_pydict()
    right = np.array(rows["correct"], bool)
    _check(index, right)
    classes = np.array(rows["label_index"])
    numbers = {name: np.array(rows[name], float) for name in MEASURED}
    numbers |= _of_boxes(boxes, rows) if boxes is not None else {}
    trends = [trend for trend in (binned(n, v, right, bins) for n, v in numbers.items()) if trend is not None]
    if not trends:
        raise IndexUnusable(f"{index.path} has {len(right)} pictures with a class, too few for two bins of {FEWEST}")
    plain = holm([_independent(trend) for trend in trends])
    within = holm(shuffled([trend.bins for trend in trends], right, classes, seed))
    order = sorted(range(len(trends)), key=lambda i: (max(plain[i], within[i]), plain[i]))
    return _result(index, rows, numbers, right, [(trends[i], plain[i], within[i]) for i in order])


def _check(index: Index, right: np.ndarray) -> None:
    if not len(right):
        raise IndexUnusable(
            f"{index.path} has no picture whose class the network knows; scan folders that are named like its labels"
        )
    if right.all() or not right.any():
        raise IndexUnusable(
            f"{'all' if right.all() else 'none'} of the {len(right)} pictures of {index.path} are classified right, so "
            "nothing can make a difference; scan harder pictures or other labels"
        )


# ---- numbers


def binned(name: str, values: np.ndarray, right: np.ndarray, count: int) -> Trend | None:
    """Bins of equal numbers of pictures, fewer where values repeat; None where there is nothing to compare."""
    known = np.isfinite(values)
    count = min(count, int(known.sum()) // FEWEST)
    if count < 2:
        return None
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, count + 1)[1:-1], method="higher"))
    places = np.where(known, np.searchsorted(edges, values, side="right"), -1)
    kept = [place for place in range(len(edges) + 1) if (places == place).any()]
    places = np.where(known, np.searchsorted(kept, places), -1)
    if len(kept) < 2:
        return None
    middles = np.array([np.median(values[places == place]) for place in range(len(kept))])
    counts = np.bincount(places[known], minlength=len(kept))
    hits = np.bincount(places[known], weights=right[known], minlength=len(kept)).astype(int)
    return Trend(name, places, middles, hits, counts)


def _of_boxes(file: str | Path, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Sizes and places of the objects, NaN for a picture without a box."""
    found = read_boxes(file)
    size, place = (np.full(len(rows["path"]), np.nan) for _ in range(2))
    for row, path in enumerate(rows["path"]):
        box = box_of(found, path)
        if box is not None:
            top, left, height, width = box
            tall, wide = rows["height"][row], rows["width"][row]
            size[row] = height * width / (tall * wide)
            place[row] = math.hypot(top + height / 2 - tall / 2, left + width / 2 - wide / 2) / math.hypot(tall, wide)
    if not np.isfinite(size).any():
        raise OptionError(f"{file} names none of the pictures of the index, such as {rows['path'][0]}")
    return {BOXED[0]: size, BOXED[1]: 2 * place}


def read_boxes(file: str | Path) -> dict[str, tuple[float, float, float, float]]:
    """Path to (top, left, height, width) of a CSV file with the head line path,top,left,height,width.

    Raises :class:`OptionError` naming the line that cannot be read.
    """
    wanted = ("path", "top", "left", "height", "width")
    try:
        with open(file, newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            missing = [name for name in wanted if name not in (reader.fieldnames or ())]
            if missing:
                raise OptionError(f"{file} has no column {missing[0]!r}; its head line should be {','.join(wanted)}")
            return {row["path"]: _numbers(row, wanted[1:], f"{file}, line {n}") for n, row in enumerate(reader, 2)}
    except OSError as error:
        raise OptionError(f"{file} cannot be read: {error.strerror}") from error


def _numbers(row: Mapping[str, str], names: Sequence[str], where: str) -> tuple[float, float, float, float]:
    try:
        top, left, height, width = (float(row[name]) for name in names)
    except (TypeError, ValueError):
        raise OptionError(f"{where}: top, left, height and width should be four numbers") from None
    return top, left, height, width


def box_of(
    boxes: Mapping[str, tuple[float, float, float, float]], path: str
) -> tuple[float, float, float, float] | None:
    """The box whose path is the picture's, or the longest end of it."""
    parts = Path(path).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((boxes[end] for end in [path, *ends] if end in boxes), None)


# ---- chance


def _independent(trend: Trend) -> float:
    """p of the chi-squared test that accuracy is the same in all bins."""
    share = trend.hits.sum() / trend.counts.sum()
    if share in (0, 1):
        return 1.0
    expected = share * trend.counts
    statistic = ((trend.hits - expected) ** 2 / (expected * (1 - share))).sum()
    return float(chi2.sf(statistic, len(trend.counts) - 1))


def shuffled(bins: Sequence[np.ndarray], right: np.ndarray, classes: np.ndarray, seed: int) -> list[float]:
    """For each number (N,) of bins, p that bins differ so much once the pictures of each class are shuffled.

    The statistic is the sum over bins of count times squared mean of what is left of each picture's mark (right is 1)
    after its class's accuracy is taken away.
    """
    _, places = np.unique(classes, return_inverse=True)
    accuracy = np.bincount(places, right) / np.bincount(places)
    rest = right - accuracy[places]
    generator = np.random.default_rng(seed)
    found = np.array([_between(each, rest) for each in bins])
    above = np.ones(len(bins))
    order = np.argsort(places, kind="stable")
    for _ in progress.over(SHUFFLES, "shuffles"):
        mixed = np.empty_like(rest)
        mixed[order] = rest[np.lexsort((generator.random(len(rest)), places))]
        above += np.array([_between(each, mixed) for each in bins]) >= found - 1e-12
    return (above / (SHUFFLES + 1)).tolist()


def _between(bins: np.ndarray, rest: np.ndarray) -> float:
    known = bins >= 0
    counts = np.bincount(bins[known])
    sums = np.bincount(bins[known], rest[known])
    return float((sums**2 / np.maximum(counts, 1)).sum())


def holm(chances: Sequence[float]) -> list[float]:
    """Each p corrected for how many there are (Holm 1979): the smallest times all, the next times one fewer."""
    order = np.argsort(chances, kind="stable")
    corrected = np.maximum.accumulate([chances[i] * (len(chances) - rank) for rank, i in enumerate(order)])
    found = np.empty(len(chances))
    found[order] = np.minimum(corrected, 1.0)
    return found.tolist()


# ---- the result


def _result(
    index: Index, rows: Mapping[str, Any], numbers: Mapping[str, np.ndarray], right: np.ndarray,
    trends: Sequence[tuple[Trend, float, float]],
) -> Trends:  # fmt: skip
    width = max(len(trend.counts) for trend, _, _ in trends)
    values = np.full((len(trends), width, 4), np.nan)
    counts = np.zeros((len(trends), width), np.int64)
    for place, (trend, _, _) in enumerate(trends):
        shares = [proportion(int(h), int(n)) for h, n in zip(trend.hits, trend.counts, strict=True)]
        table = [(m, s.mean, s.low, s.high) for m, s in zip(trend.middles, shares, strict=True)]
        values[place, : len(table)] = table
        counts[place, : len(table)] = trend.counts
    summaries = [_said(trend, plain, within) for trend, plain, within in trends]
    return Trends(
        values=torch.from_numpy(values), counts=torch.from_numpy(counts), names=[t.name for t, _, _ in trends],
        verdicts=[_verdict(plain, within) for _, plain, within in trends],
        marks=[bool(said["matters"]) for said in summaries], overall=float(right.mean()), quantity="accuracy",
        ends=torch.stack([_ends(index, np.array(rows["id"]), numbers[t.name]) for t, _, _ in trends]),
        per_picture=False,
        summaries=[{"pictures": len(right), "accuracy": float(right.mean()), "attributes": summaries}],
        notes=_notes(summaries, right),
    )  # fmt: skip


def _said(trend: Trend, plain: float, within: float) -> dict[str, Any]:
    ends = [(int(trend.hits[i]), int(trend.counts[i])) for i in (-1, 0)]
    change = difference(*ends)
    return {
        "name": trend.name, "middles": trend.middles.tolist(), "pictures": trend.counts.tolist(),
        "right": trend.hits.tolist(), "p": plain, "p_within_classes": within,
        "matters": plain < LEVEL and within < LEVEL,
        "change": {"from_first_to_last": change.mean, "low": change.low, "high": change.high},
    }  # fmt: skip


def _verdict(plain: float, within: float) -> str:
    if plain >= LEVEL and within >= LEVEL:
        return f"no more than chance (p {_p(plain)})"
    if within >= LEVEL:
        return f"between classes only: p {_p(plain)}, within them {_p(within)}"
    if plain >= LEVEL:
        return f"within classes only: p {_p(within)}, over all {_p(plain)}"
    return f"matters: p {_p(plain)}, within classes {_p(within)}"


def _p(chance: float) -> str:
    return "< 0.001" if chance < 0.001 else f"{chance:.2g}"


def _notes(summaries: Sequence[Mapping[str, Any]], right: np.ndarray) -> list[str]:
    share = proportion(int(right.sum()), len(right))
    notes = [
        f"{len(right):,} pictures, {100 * share.mean:.1f} % right ({100 * share.low:.1f} to {100 * share.high:.1f}); "
        f"bands are 95 % intervals, and p is corrected for {len(summaries)} looks"
    ]
    matters = [s["name"] for s in summaries if s["matters"]]
    notes.append(
        f"beyond chance also within classes: {', '.join(matters)}" if matters else "within classes none matters"
    )
    classes = [s["name"] for s in summaries if s["p"] < LEVEL <= s["p_within_classes"]]
    if classes:
        notes.append(f"{', '.join(classes)}: classes that have more of it are easier or harder, not their pictures")
    return notes


def _ends(index: Index, ids: np.ndarray, values: np.ndarray) -> Tensor:
    """(2, K, 3, h, w): pictures near the 2nd and the 98th percentile of a number."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    start = round(0.02 * (len(order) - 1))
    low = order[start : start + EACH]
    high = order[::-1][start : start + EACH]
    return torch.stack([torch.stack([_small(index, int(ids[i])) for i in part]) for part in (low, high)])


def _small(index: Index, id: int) -> Tensor:
    return fit(index.thumbnail(id), THUMBNAIL)
