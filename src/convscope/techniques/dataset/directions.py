"""Whether single channels stand for something that random directions of code space do not (Szegedy et al. 2013).

For a direction v the pictures x that maximise <phi(x), v> are taken, phi being the codes of a layer: for v an axis,
which is a channel, and for v drawn at random. If channels are special, their pictures have more in common.

How alike the pictures of a set are is measured blind, by a judge that knows neither the layer nor which set it looks
at: the codes of another layer, or of another network that scanned the same pictures, or the pixels. With the judge's
codes c less their mean over the data set,

    score = mean of cos(c_i, c_j) over all pairs of the set,

which is 0 on average for pictures drawn at random. Channels are compared with random directions by shuffling which
score belongs to which (a permutation test), with means in bootstrap intervals.

Departures: the paper shows sets of pictures and leaves the judgement to the reader; the score, the sets of random
pictures and the test are ours. Directions are normal variates, of length one. Codes are averages over positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from convscope import progress
from convscope.errors import OptionError
from convscope.index import Index, open_index
from convscope.intervals import LEVEL, Interval, interval
from convscope.registry import Layer, Seed, technique
from convscope.results import Panel, Rows
from convscope.techniques.dataset._pictures import in_pixels, rows_of, short, tile

PIXELS = "pixels"
SHUFFLES = 9_999
DRAWS = 2_000  # of the bootstrap of the difference
BASE = 1_000  # pictures at most from which the judge's mean is taken
TILE = 128  # pixels
Judge: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.floating]]  # (M,) places of pictures to (M, D) codes


@technique(
    family="dataset",
    order=4,
    paper="Szegedy et al. 2013, arXiv:1312.6199, section 3",
    see=(
        "Guess which rows are channels before you read their names (--blind hides them): rows whose pictures have "
        "something in common are found in both halves, or they are not."
    ),
    caution=(
        "What is alike to the judge need not be so to you. Random directions mix the channels of this layer, so they "
        "are not free of them; and Bau et al. 2017 (arXiv:1704.05796), who count concepts, find channels special."
    ),
    quick={"directions": 3, "count": 3, "shown": 2},
)
def directions(
    index: Index,
    *,
    layer: Layer = None,
    judge: Annotated[
        str | Path | None,
        Field(
            description="who says how alike pictures are: another code layer, another index of the same pictures, or "
            "pixels; the first of these that there is if left out"
        ),
    ] = None,
    directions: Annotated[int, Field(ge=2, description="channels, and random directions, that are compared")] = 100,
    count: Annotated[int, Field(ge=2, description="pictures of each set")] = 8,
    shown: Annotated[int, Field(ge=1, description="sets of each kind that are drawn")] = 4,
    blind: Annotated[bool, Field(description="draw the sets in random order and without their names")] = False,
    seed: Seed = 0,
) -> Rows:
    """Whether the pictures that single channels prefer are more alike than those of random directions.

    Args:
        index: what a scan wrote.
        layer: of whose codes; the index's first code layer if left out.
        judge: blind to the layer: another of the index's code layers, the folder of another index of the same pictures,
            or ``pixels`` (32 x 32).
        directions: of each kind; channels are drawn by chance from those that fire for some picture.
        count: pictures of each set, those with the largest product.
        shown: sets of each kind in the picture, the first that were drawn.
        blind: hide which is which; the key is in the summary.
        seed: of channels, directions, random sets and shuffles.

    Returns:
        ``values`` (3, directions), scores in [-1, 1] of channels, random directions, and random sets of pictures, NaN
        beyond the last channel that fires. The summary holds for each kind ``mean``, ``low`` and ``high`` (95 %, over
        directions) and ``distinct``, the share of different pictures in its sets; ``difference`` of channels and
        directions with its interval; ``p`` of the permutation test; ``answer`` in words; and ``judge``.

    Raises:
        OptionError: the index has no codes of that layer, the judge judges itself or is unknown, or too few channels.
    """
    name = layer or index.code_layers[0]
    codes = index.codes(name)
    if len(codes) < 2 * count:
        raise OptionError(f"{index.path} holds {len(codes)} pictures, too few for sets of {count}; lower count")
    judged, said = _judge(index, name, judge)
    chance = np.random.default_rng(seed)
    sets = _sets(codes, directions, count, chance)
    mean = judged(_base(len(codes), chance)).mean(0, dtype=np.float64)
    scores = [_scores(judged, kind.members, mean) for kind in progress.over(sets, "kinds")]
    summary = {"layer": name, "judge": said, "count": count, **_compared(sets, scores, seed)}
    return _result(index, name, sets, scores, summary, min(shown, directions), blind, seed)


@dataclass(frozen=True)
class Kind:
    """Sets of pictures, (S, count) places in the order of the index, with a title each."""

    name: str
    titles: Sequence[str]
    members: NDArray[np.int64]


# ---- sets


def _sets(codes: NDArray[np.float32], directions: int, count: int, chance: np.random.Generator) -> list[Kind]:
    live = np.flatnonzero((codes > 0).any(0))
    if len(live) < 2:
        raise OptionError("fewer than two channels fire for any picture; `convscope health` says more")
    channels = chance.choice(live, min(directions, len(live)), replace=False)
    drawn = chance.standard_normal((directions, codes.shape[1]))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    random = np.stack([chance.choice(len(codes), count, replace=False) for _ in range(directions)])
    return [
        Kind("channels", [f"channel {c}" for c in channels], strongest(codes[:, channels].T, count)),
        Kind("directions", [f"direction {n + 1}" for n in range(directions)], strongest(drawn @ codes.T, count)),
        Kind("chance", [f"random {n + 1}" for n in range(directions)], random),
    ]


def strongest(products: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """(S, count) places of the largest of (S, N), largest first, the first of equals first."""
    return np.argsort(-products, axis=1, kind="stable")[:, :count]


# ---- the judge


def _judge(index: Index, layer: str, judge: str | Path | None) -> tuple[Judge, str]:
    others = [name for name in index.code_layers if name != layer]
    wanted = judge if judge is not None else others[0] if others else PIXELS
    if wanted == PIXELS:
        return lambda places: _pixels(index, places), "pixels"
    if wanted in index.code_layers:
        if wanted == layer:
            raise OptionError(f"layer {layer!r} would judge itself; name another code layer, an index, or pixels")
        codes = index.codes(str(wanted))
        return lambda places: codes[places], f"codes of layer {wanted}"
    if not Path(wanted).is_dir():
        listed = ", ".join([*others, PIXELS])
        raise OptionError(f"there is no judge {str(wanted)!r}; name one of {listed}, or the folder of another index")
    return _other(index, open_index(wanted))


def _other(index: Index, other: Index) -> tuple[Judge, str]:
    """The codes of another index, whose pictures are found by their paths."""
    there = {path: place for place, path in enumerate(_paths(other))}
    mine = _paths(index)
    missing = [path for path in mine if path not in there]
    if missing:
        raise OptionError(
            f"{other.path} lacks {len(missing):,} of the pictures, as {missing[0]}; scan the same pictures"
        )
    place, codes = np.array([there[path] for path in mine]), other.codes()
    return lambda places: codes[place[places]], f"codes of {other.provenance['network']}, layer {other.code_layers[0]}"


def _paths(index: Index) -> list[str]:
    return index.pictures(["path"], "error is null")["path"].to_pylist()


def _pixels(index: Index, places: NDArray[np.int64]) -> NDArray[np.float32]:
    rows = rows_of(index, index.ids[places].tolist(), ["thumbnail"])
    return np.stack([in_pixels(index, row["thumbnail"]) for row in progress.over(rows, "thumbnails")])


def _base(total: int, chance: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(chance.choice(total, min(BASE, total), replace=False))


def _scores(judged: Judge, members: NDArray[np.int64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """How alike the pictures of each set are: mean cosine over pairs, of the judge's codes less their mean."""
    places, back = np.unique(members, return_inverse=True)
    codes = judged(places).astype(np.float64) - mean
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    units = np.divide(codes, lengths, out=np.zeros_like(codes), where=lengths > 0)[back.reshape(members.shape)]
    count = members.shape[1]
    found: NDArray[np.float64] = ((units.sum(1) ** 2).sum(1) - (units**2).sum((1, 2))) / (count * (count - 1))
    return found


# ---- the comparison


def _compared(sets: Sequence[Kind], scores: Sequence[NDArray[np.float64]], seed: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for kind, found in zip(sets, scores, strict=True):
        mean = interval(found.tolist(), seed=seed)
        distinct = len(np.unique(kind.members)) / kind.members.size
        told[kind.name] = {"mean": mean.mean, "low": mean.low, "high": mean.high, "distinct": distinct}
    apart, p = difference_of(scores[0], scores[1], seed), permuted(scores[0], scores[1], seed)
    told["difference"] = {"mean": apart.mean, "low": apart.low, "high": apart.high}
    return {**told, "p": p, "answer": answer(apart.mean, p)}


def answer(difference: float, p: float) -> str:
    """What the test says of the channels."""
    if p >= 1 - LEVEL:
        return "no difference beyond chance between channels and random directions"
    return f"channels are {'more' if difference > 0 else 'less'} alike in their pictures than random directions"


def difference_of(first: NDArray[np.float64], second: NDArray[np.float64], seed: int) -> Interval:
    """Mean of the first less that of the second, with its 95 % bootstrap interval."""
    chance = np.random.default_rng(seed)
    draws = [each[chance.integers(0, len(each), (DRAWS, len(each)))].mean(1) for each in (first, second)]
    low, high = np.quantile(draws[0] - draws[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(first.mean() - second.mean()), float(low), float(high))


def permuted(first: NDArray[np.float64], second: NDArray[np.float64], seed: int) -> float:
    """Share of shuffles, this one among them, in which the means are at least as far apart: two-sided."""
    both, count = np.concatenate([first, second]), len(first)
    chance = np.random.default_rng(seed)
    seen = abs(first.mean() - second.mean())
    as_far = 1
    for _ in range(SHUFFLES):
        shuffled = chance.permutation(both)
        as_far += abs(shuffled[:count].mean() - shuffled[count:].mean()) >= seen - 1e-12
    return float(as_far / (SHUFFLES + 1))


# ---- the result


def _result(
    index: Index, layer: str, sets: Sequence[Kind], scores: Sequence[NDArray[np.float64]], summary: dict[str, Any],
    shown: int, blind: bool, seed: int,
) -> Rows:  # fmt: skip
    places = [(kind, n) for kind in (0, 1) for n in range(min(shown, len(sets[kind].titles)))]
    if blind:
        places = [places[n] for n in np.random.default_rng([seed, 1]).permutation(len(places))]
    members = [sets[kind].members[n] for kind, n in places]
    titles = [sets[kind].titles[n] for kind, n in places]
    letters = [f"set {n + 1}" for n in range(len(places))]
    listed = sorted({int(i) for each in members for i in each})
    known = dict(zip(listed, rows_of(index, index.ids[listed].tolist(), ["path", "label"]), strict=True))
    captions = [[known[int(i)]["label"] or short(known[int(i)]["path"]) for i in each] for each in members]
    tiles = [torch.stack([tile(index, int(index.ids[i]), TILE) for i in each]) for each in members]
    values = torch.full((3, max(map(len, scores))), torch.nan, dtype=torch.float64)
    for line, found in zip(values, scores, strict=True):
        line[: len(found)] = torch.from_numpy(found)
    rows = [{"name": title, "score": float(scores[k][n])} for title, (k, n) in zip(titles, places, strict=True)]
    return Rows(
        values=values, layer=layer, per_picture=False, titles=letters if blind else titles,
        panels=[Panel("the pictures with the largest product", tiles, captions=captions)],
        subtitles=() if blind else [f"alike: {row['score']:.2f}" for row in rows],
        sections=() if blind else [_section(summary, sets[kind].name) for kind, _ in places],
        summaries=[{**summary, "rows": dict(zip(letters, rows, strict=True)) if blind else rows}],
        notes=[_sentence(summary)] if not blind else ["which set is which is in the summary, --json, as rows"],
    )  # fmt: skip


def _section(summary: dict[str, Any], kind: str) -> str:
    name = "Single channels" if kind == "channels" else "Random directions"
    found = summary[kind]
    return f"{name}: alike {found['mean']:.3f}, {found['low']:.3f} to {found['high']:.3f}"


def _sentence(summary: dict[str, Any]) -> str:
    apart = summary["difference"]
    return (
        f"{summary['answer']} (difference {apart['mean']:.3f}, {apart['low']:.3f} to {apart['high']:.3f}, "
        f"p = {summary['p']:.2g}, judged by {summary['judge']})"
    )
