"""``convscope report``: photographs, or the index of a data set, as one self-contained page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from convscope.cli.bar import make_console, watched
from convscope.cli.options import (
    CONTEXT,
    FILE,
    INDEXED_NETWORK_OPTIONS,
    QUIET_OPTIONS,
    SEED,
    Command,
    Options,
    arguments,
    parameters,
)


def _report(pictures: tuple[Path, ...], output: Path, quiet: bool, random_seed: int | None, **given: Any) -> None:
    import convscope
    from convscope.reporting.report import checked_output, separated

    asked = {name: given.pop(name) for name in ("target", "limit")}
    asked |= {"methods": list(methods)} if (methods := given.pop("methods")) else {}
    checked_output(output)
    paths = list(map(str, pictures))
    _, indexes = separated(paths)
    console = make_console(quiet)
    with watched(console, "report"):
        loaded = _loaded(given, random_seed, indexes)
        network = convscope.load_network(**loaded) if loaded else None
        convscope.report(paths, output, network=network, loaded=loaded, **asked)
    size = os.path.getsize(output) / 1e6
    console.print(f"wrote {output}: {size:.1f} MB, opens in any browser", markup=False, soft_wrap=True)


def _loaded(given: dict[str, Any], seed: int | None, indexes: list[str]) -> dict[str, Any] | None:
    """Keywords of ``load_network``; None where an index knows its network and nothing else is said."""
    from convscope.index import open_index

    said = {name: value for name, value in given.items() if value is not None}
    if indexes and not said:
        return None
    known = dict(open_index(indexes[0]).provenance["loaded"]) if indexes else {"network": "builtin"}
    return arguments({**known, **said}, seed)


REPORT_OPTIONS: Options = {
    ("--output", "-o"): {"type": FILE, "default": Path("report.html"), "show_default": True, "help": "Page to write."},
    ("--methods",): {"multiple": True, "metavar": "LIST",
                     "help": "Techniques that make heat maps, separated by commas, with options behind their names: "
                     "'saliency rule=guided, gradcam'. A few good ones if left out."},
    ("--target",): {"metavar": "CLASS",
                    "help": "Class whose evidence is shown, an index or a label; the predicted one if left out."},
    ("--limit",): {"type": click.IntRange(1), "default": 8, "show_default": True, "metavar": "N",
                   "help": "Photographs at most; of more, some in equal steps."},
}  # fmt: skip
COMMAND = Command(
    "report",
    callback=_report,
    params=[
        click.Argument(
            ["pictures"], nargs=-1, required=True, metavar="PHOTO...|INDEX", type=click.Path(path_type=Path)
        ),
        *parameters(REPORT_OPTIONS | SEED | INDEXED_NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="Photographs, or the index of a data set, as one page to send to a colleague.",
    help="What the network says of photographs and why, or what it does over a whole data set, as one self-contained "
    "page: the answer, where it looked by several methods on one scale with the same on random weights beside, a "
    "change that fools it, what its layers saw; of an index its health, a t-SNE grid, neighbours, patches, strategies, "
    "and accuracy against what the pictures are like.\n\nPHOTO is a picture or a folder with some, and INDEX what "
    "`convscope scan` wrote; both may be given. The network is the one that the index was made with, else the built-in "
    "one.",
    context_settings=CONTEXT,
)
