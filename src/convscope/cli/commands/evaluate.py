"""``convscope evaluate``: how far heat maps can be trusted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope import registry
from convscope.cli.bar import make_console, watched
from convscope.cli.options import (
    CONTEXT,
    FILE,
    NETWORK_OPTIONS,
    OUTPUT_OPTIONS,
    QUIET_OPTIONS,
    Command,
    Options,
    load,
    parameters,
)
from convscope.cli.work import Sinks, loaded_with
from convscope.errors import OptionError

if TYPE_CHECKING:
    from convscope.results import Result


def _evaluate(photographs: tuple[Path, ...], planted: bool, **given: Any) -> None:

    sinks, console = Sinks.taken(given), make_console(given.pop("quiet"))
    asked = {name: given.pop(name) for name in ("measures", "limit", "masks", "boxes")}
    methods = given.pop("methods") or None
    seed = given.pop("random_seed")
    if planted == bool(photographs):
        raise OptionError("evaluate takes photographs or a folder of them, or else --planted, which makes its own")
    with watched(console, "evaluate"):
        if planted:
            from convscope.evaluate.planted import planted as benchmark

            result: Result = benchmark(methods, seed=seed or 0)
        else:
            result = _evaluated(photographs, methods, seed, given, **asked)
        sinks.save(result, "evaluate", None)
    sinks.say([result], console)


def _evaluated(
    photographs: tuple[Path, ...], methods: Any, seed: int | None, spec: dict[str, Any], *, measures: str | None,
    limit: int, masks: Path | None, boxes: Path | None,
) -> Result:  # fmt: skip
    from convscope.evaluate import judge, read_sample

    network = load(dict(spec), seed)
    sample, count = read_sample(network, photographs, limit=limit, masks=masks, boxes=boxes, seed=seed or 0)
    result = judge(sample, methods=methods, measures=measures)
    digests = {path: registry.digest(path) for path in sample.files}
    assert result.provenance is not None
    provenance = dataclasses.replace(result.provenance, digests=digests, loaded=loaded_with(spec))
    drawn = [f"{len(sample)} of {count:,} photographs, drawn by seed {seed or 0}"] if count > len(sample) else []
    return dataclasses.replace(result, provenance=provenance, notes=[*drawn, *result.notes])


EVALUATE_OPTIONS: Options = {
    ("--methods",): {"multiple": True, "metavar": "LIST",
                     "help": "Techniques that make heat maps, separated by commas, with options behind their names: "
                     "'saliency, saliency rule=guided, gradcam'. All that are cheap if left out."},
    ("--measures",): {"metavar": "LIST", "help": "Of grid, inside, insertion, road, sensitivity, randomisation and "
                      "cost, separated by commas; all that are possible if left out."},
    ("--limit",): {"type": click.IntRange(1), "default": 50, "show_default": True, "metavar": "N",
                   "help": "Photographs at most, drawn by the seed, as many of each folder."},
    ("--masks",): {"type": click.Path(path_type=Path, file_okay=False), "metavar": "FOLDER",
                   "help": "Mask pictures, bright on the object, of the photographs' names and sizes."},
    ("--boxes",): {"type": FILE, "help": "Boxes: CSV with photograph,left,top,right,bottom, or JSON."},
    ("--planted",): {"is_flag": True, "help": "Instead of photographs: small networks of which it is known what they "
                     "look at, trained on the spot."},
}  # fmt: skip
COMMAND = Command(
    "evaluate",
    callback=_evaluate,
    params=[
        click.Argument(["photographs"], nargs=-1, metavar="[PHOTO|FOLDER]...", type=click.Path(path_type=Path)),
        *parameters(EVALUATE_OPTIONS | NETWORK_OPTIONS | OUTPUT_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="How far heat maps can be trusted: methods beside each other, measured.",
    help="How far heat maps can be trusted: methods beside each other, by where their maps lie, what happens "
    "when the pixels that they name are taken away, how steady they are, whether they depend on what the network "
    "has learned, and what they cost. In folders that have the names of classes, those are taken for the truth.",
    context_settings=CONTEXT,
)
