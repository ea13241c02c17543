"""All measures for all methods on one sample of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from convscope import progress
from convscope.errors import ConvscopeError, OptionError, nearest
from convscope.evaluate.cost import COST, passes, timed
from convscope.evaluate.grid import GRID
from convscope.evaluate.insertion import INSERTION
from convscope.evaluate.inside import INSIDE
from convscope.evaluate.measures import Column, Measure, Scores
from convscope.evaluate.methods import CONTROLS, Given, Maps, Method, all_methods, methods_of
from convscope.evaluate.randomisation import RANDOMISATION, THRESHOLD, Word, word
from convscope.evaluate.road import ROAD
from convscope.evaluate.sample import Sample, sample, without_nan
from convscope.evaluate.sensitivity import SENSITIVITY
from convscope.intervals import Interval, interval
from convscope.network import Network
from convscope.results import Comparison, Provenance
from convscope.zoo import load_network

MEASURES = {m.name: m for m in (GRID, INSIDE, INSERTION, ROAD, SENSITIVITY, RANDOMISATION, COST)}
CHEAP = 40.0
"""Passes a picture up to which a technique is among those that are judged when none is named."""
MARK = "hardly depends on the weights"


def evaluate(
    network: Network,
    images: Tensor,
    *,
    methods: str | Sequence[Given] | None = None,
    measures: str | Sequence[str] | None = None,
    labels: Sequence[int | str | None] | None = None,
    masks: Tensor | None = None,
    names: Sequence[str] | None = None,
    controls: bool = True,
    seed: int = 0,
) -> Comparison:
    """How far heat maps can be trusted: several methods, by several measures, on the same pictures.

    Args:
        network: a classifier, or whatever ``load_network`` takes.
        images: (N, 3, H, W) in [0, 1]. Every map explains the class that the network predicts.
        methods: techniques with options, ``"saliency rule=guided, gradcam"``, or a list of such texts and of pairs
            (name, options); for None every technique of the registry that makes heat maps and costs at most 40
            passes a picture.
        measures: of ``grid``, ``inside``, ``insertion``, ``road``, ``sensitivity``, ``randomisation``, ``cost``; for
            None all, ``inside`` only where there are masks.
        labels: the true class of each picture, index or label, None where unknown: mosaics are made of pictures that
            are classified rightly.
        masks: (N, H, W), true on the object; empty ones are passed over.
        names: what to call the pictures.
        controls: put maps beside them that are made without looking: noise, and a hill in the middle.
        seed: of everything random.

    Returns:
        ``values`` (methods, columns), means over pictures, NaN where a measure gave none; ``lows`` and ``highs`` are
        the ends of their 95 % intervals, by drawing pictures with replacement. ``marks`` are the methods that fail
        the randomisation check. The summary holds every number of every picture.

    Raises:
        OptionError, UnknownTarget, ImageError; what a measure cannot do on these pictures is a note.
    """
    network = load_network(network)
    given = sample(network, images, labels=labels, masks=masks, names=names, seed=seed)
    return judge(given, methods=methods, measures=measures, controls=controls)


def judge(
    given: Sample,
    *,
    methods: str | Sequence[Given] | None = None,
    measures: str | Sequence[str] | None = None,
    controls: bool = True,
) -> Comparison:
    """:func:`evaluate`, on a sample."""
    chosen = _measures(measures, given)
    named = all_methods() if methods is None else methods_of(methods)
    with torch.inference_mode(False):
        able, costs, notes = _able(named, given, math.inf if methods else CHEAP)
        judged: list[Maps] = [*able, *(CONTROLS if controls else ())]
        maps = _maps(judged, given, costs)
        scores: dict[str, dict[str, Scores]] = {}
        for measure in progress.over(chosen, "measures"):
            found, failed = _run(measure, [m for m in judged if m.name in maps], given, maps)
            scores[measure.name] = found
            notes += failed
    return _comparison(given, chosen, [m for m in judged if m.name in maps], scores, costs, notes)


def _measures(names: str | Sequence[str] | None, given: Sample) -> list[Measure]:
    if names is None:
        return [m for m in MEASURES.values() if m is not INSIDE or given.masks is not None]
    found = list(dict.fromkeys(n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()))
    for name in found:
        if name not in MEASURES:
            raise OptionError(f"there is no measure {name!r}{nearest(name, MEASURES)}; those are {', '.join(MEASURES)}")
    if not found:
        raise OptionError(f"no measure is named; those are {', '.join(MEASURES)}")
    return [MEASURES[name] for name in found]


# ---- running


Costs = dict[str, dict[str, float]]


def _able(methods: Sequence[Method], given: Sample, most: float) -> tuple[list[Method], Costs, list[str]]:
    """The methods that work on the first picture and cost at most so many passes, their costs, and what to say."""
    able, costs, notes, dear = [], {}, [], []
    one, target = given.images[:1], given.targets[:1]
    for method in progress.over(methods, "methods tried"):
        try:
            cost = passes(given.network, one, partial(method, given.network, one, target), most=most)
        except ConvscopeError as error:
            notes.append(f"{method.name} is left out: {error}")
            continue
        if math.isinf(cost):
            dear.append(method.name)
            continue
        able.append(method)
        costs[method.name] = {"passes": cost}
    if dear:
        notes.append(f"over {most:g} passes a picture, and judged only when named: {', '.join(dear)}")
    if not able:
        raise OptionError(f"no method works on {given.network.name}; {'; '.join(notes)}")
    return able, costs, notes


def _maps(methods: Sequence[Maps], given: Sample, costs: Costs) -> dict[str, Tensor]:
    """Each method's maps (N, H, W); their seconds go into ``costs``."""
    found = {}
    for method in progress.over(methods, "methods drawn"):
        found[method.name], seconds = timed(partial(method, given.network, given.images, given.targets))
        if not method.control:
            costs[method.name]["seconds"] = seconds / len(given)
    return found


def _run(
    measure: Measure, methods: Sequence[Maps], given: Sample, maps: Mapping[str, Tensor]
) -> tuple[dict[str, Scores], list[str]]:
    """The scores of a measure, and what to say of it."""
    try:
        found = dict(measure.run(methods, given, maps))
    except ConvscopeError as error:
        return {method.name: Scores(error=str(error)) for method in methods}, [f"no {measure.name}: {error}"]
    notes = [f"no {measure.name} of {name}: {scores.error}" for name, scores in found.items() if scores.error]
    if any(scores.more.get("full_size") is False for scores in found.values()):
        notes.append(f"{given.network.name} takes no larger pictures, so those in mosaics are shrunk to half")
    return found, notes


# ---- what is said


def _comparison(
    given: Sample, measures: Sequence[Measure], methods: Sequence[Maps], scores: Mapping[str, Mapping[str, Scores]],
    costs: Costs, notes: Sequence[str],
) -> Comparison:  # fmt: skip
    pairs = [(measure, column) for measure in measures for column in measure.columns]
    columns = [column for _, column in pairs]
    raw = {
        method.name: [_values(measure, column, scores, costs, method) for measure, column in pairs]
        for method in methods
    }
    ends = {name: [interval(values, seed=given.seed) for values in rows] for name, rows in raw.items()}
    verdicts = {m.name: _verdict(m, scores.get(RANDOMISATION.name, {})) for m in methods}
    checked = RANDOMISATION in measures
    said = [
        _said(method, columns, raw[method.name], ends[method.name], verdicts[method.name], measures, scores)
        for method in methods
    ]
    summary = {"pictures": given.described(), "measures": [_about(m) for m in measures], "methods": said}
    return comparison(
        [m.name for m in methods], columns, ends, summaries=[summary], notes=list(notes),
        provenance=_provenance(given, methods, measures),
        marks=[verdicts[m.name] == "fails" and not m.control for m in methods] if checked else (),
        controls=[m.control for m in methods],
        verdicts=[verdicts[m.name] for m in methods] if checked else (), verdict="random weights", mark=MARK,
    )  # fmt: skip


def comparison(
    names: Sequence[str], columns: Sequence[Column], ends: Mapping[str, Sequence[Interval]], *,
    verdicts: Sequence[str] = (), verdict: str = "", **said: Any,
) -> Comparison:  # fmt: skip
    """The result of intervals by method and column, and of one ``verdict`` a method, in words."""
    parts = {
        kind: torch.tensor([[getattr(each, kind) for each in ends[name]] for name in names], dtype=torch.float64)
        for kind in ("mean", "low", "high")
    }
    rows = [[name, *(_cell(each) for each in ends[name]), *verdicts[place : place + 1]]
            for place, name in enumerate(names)]  # fmt: skip
    return Comparison(
        values=parts["mean"], lows=parts["low"], highs=parts["high"], per_picture=False, methods=names,
        measures=[column.title for column in columns], better=[column.better for column in columns],
        chances=[column.chance for column in columns],
        columns=["method", *(column.title for column in columns), *([verdict] if verdicts else [])],
        rows=rows, numeric=[column.title for column in columns], **said,
    )  # fmt: skip


def _cell(found: Interval) -> str:
    if math.isnan(found.mean):
        return "–"
    digits = 2 if abs(found.mean) < 10 else 0 if abs(found.mean) >= 100 else 1
    spread = f" ± {found.half:.{digits}f}" if found.half else ""
    return f"{found.mean:.{digits}f}{spread}".replace("-", "−")


def _values(
    measure: Measure, column: Column, scores: Mapping[str, Mapping[str, Scores]], costs: Costs, method: Maps
) -> Sequence[float]:
    if measure is COST:
        known = costs.get(method.name, {}).get(column.key)
        return [] if known is None else [known]
    return scores[measure.name][method.name].values.get(column.key, [])


def _verdict(method: Maps, scores: Mapping[str, Scores]) -> Word:
    return word(scores.get(method.name, Scores()).values.get("randomised", []))


def _said(
    method: Maps, columns: Sequence[Column], values: Sequence[Sequence[float]], ends: Sequence[Interval],
    verdict: Word, measures: Sequence[Measure], scores: Mapping[str, Mapping[str, Scores]],
) -> dict[str, Any]:  # fmt: skip
    """A method in JSON."""
    found = {
        column.key: dict(zip(("mean", "low", "high"), without_nan([end.mean, end.low, end.high]), strict=True))
        | {"each": without_nan(numbers)}
        for column, numbers, end in zip(columns, values, ends, strict=True)
        if len(numbers)
    }
    of = {measure.name: scores[measure.name][method.name] for measure in measures}
    more = {name: dict(each.more) for name, each in of.items() if each.more}
    errors = {name: each.error for name, each in of.items() if each.error}
    checked = {"randomisation_check": verdict} if RANDOMISATION in measures else {}
    failed = {"errors": errors} if errors else {}
    return {"name": method.name, "control": method.control, **checked, "scores": found, "details": more, **failed}


def _about(measure: Measure) -> dict[str, Any]:
    better = {1: "more", -1: "less", 0: "neither"}
    columns = {c.key: {"title": c.title, "better": better[c.better], "chance": c.chance} for c in measure.columns}
    limit = {"threshold": THRESHOLD} if measure is RANDOMISATION else {}
    return {"name": measure.name, "says": measure.says, "paper": measure.paper, "columns": columns, **limit}


def _provenance(given: Sample, methods: Sequence[Maps], measures: Sequence[Measure]) -> Provenance:
    network = given.network
    options = {"methods": [m.name for m in methods if not m.control], "measures": [m.name for m in measures]}
    return Provenance(
        technique="evaluate", options=options, network=network.name, weights=network.weights, layer=None,
        seed=given.seed, precision=network.precision, device=str(network.device),
        photographs=tuple(given.files or given.names),
    )  # fmt: skip
