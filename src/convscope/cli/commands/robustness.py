"""``convscope robustness``: accuracy against the size of changes, and on spoiled photographs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope import registry
from convscope.cli.bar import make_console, watched
from convscope.cli.options import (
    CONTEXT,
    NETWORK_OPTIONS,
    OUTPUT_OPTIONS,
    QUIET_OPTIONS,
    Command,
    Options,
    epsilon,
    load,
    parameters,
)
from convscope.cli.work import Sinks

if TYPE_CHECKING:
    from convscope.network import Network
    from convscope.results import Result


def _robustness(photographs: tuple[Path, ...], corruptions: bool, **given: Any) -> None:
    from convscope.evaluate import robustness as bench

    sinks, console = Sinks.taken(given), make_console(given.pop("quiet"))
    specs, defences, limit = (given.pop(name) for name in ("networks", "defences", "limit"))
    plan: dict[str, Any] = {name: given.pop(name) for name in ("steps", "draws")}
    plan["attacks"] = given.pop("attacks") or ("pgd",)
    budgets = [epsilon(each) for each in given.pop("epsilons")] or bench.EPSILONS
    seed = given.pop("random_seed") or 0
    with watched(console, "robustness"):
        networks = [_named(spec, given, seed) for spec in specs or ("builtin",)]
        subjects = bench.read_subjects(networks, photographs, limit=limit, seed=seed)
        curve = bench.robustness(subjects, defences=defences, epsilons=budgets, seed=seed, **plan)
        results: list[Result] = [_with_digests(curve)]
        sinks.save(results[0], "robustness", 1 if corruptions else None)
        if corruptions:
            results.append(_with_digests(bench.corruption(subjects, defences=defences, seed=seed)))
            sinks.save(results[1], "robustness", 2)
    sinks.say(results, console)


def _named(spec: str, given: dict[str, Any], seed: int) -> Network:
    """SPEC, or SPEC=WEIGHTS, which is called by the file."""
    name, _, weights = spec.partition("=")
    more = {"weights": weights, "name": Path(weights).stem} if weights else {}
    return load({**given, "network": name, **more}, seed)


def _with_digests(result: Result) -> Result:
    assert result.provenance is not None
    digests = {path: registry.digest(path) for path in result.provenance.photographs}
    return dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, digests=digests))


COUNT = {"type": click.IntRange(1), "show_default": True}
#: the options of networks that make sense for several at once
SHARED = {names: about for names, about in NETWORK_OPTIONS.items() if names[0] in ("--device", "--precision")}
ROBUSTNESS_OPTIONS: Options = {
    ("--network", "-n", "networks"): {"multiple": True, "metavar": "SPEC[=WEIGHTS]",
                                      "help": "A network, by itself or with a file of weights; may be repeated. "
                                      "builtin if left out."},
    ("--defence", "defences"): {"multiple": True, "metavar": "SPEC",
                                "help": "A defence to judge in front of each network, as jpeg:75; may be repeated."},
    ("--attack", "attacks"): {"multiple": True, "type": click.Choice(["pgd", "fgsm"]), "help": "pgd if left out."},
    ("--epsilon", "epsilons"): {"multiple": True, "metavar": "NUMBER",
                                "help": "A budget, as 4/255; may be repeated. 1, 2, 4 and 8/255 if left out."},
    ("--steps",): {**COUNT, "default": 20, "help": "Steps of pgd."},
    ("--draws",): {**COUNT, "default": 8, "help": "Draws a step over which an attack averages what is random."},
    ("--limit",): {**COUNT, "default": 100, "metavar": "N",
                   "help": "Photographs at most, drawn by the seed, as many of each folder."},
    ("--corruptions",): {"is_flag": True, "help": "Photographs spoiled in twelve ways at five severities as well; the "
                         "files are numbered."},
}  # fmt: skip
COMMAND = Command(
    "robustness",
    callback=_robustness,
    params=[
        click.Argument(["photographs"], nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path)),
        *parameters(ROBUSTNESS_OPTIONS | SHARED | OUTPUT_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="How many photographs are told right, against how far each may be changed.",
    help="How many photographs are told right, against how far each may be changed: clean accuracy first, then at each "
    "budget, with intervals.\n\nFolders hold one folder of photographs a class, with the name of a label. A defence is "
    "judged twice: by attacks that do not know it, and by attacks that go through it. Only the second says what it is "
    "worth.\n\nPapers: pgd arXiv:1706.06083; through defences arXiv:1802.00420; corruptions arXiv:1903.12261.",
    context_settings=CONTEXT,
)
