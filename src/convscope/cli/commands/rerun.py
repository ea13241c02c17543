"""``convscope rerun``: a picture again, from the recipe that it carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope.cli.bar import make_console
from convscope.cli.options import (
    CONTEXT,
    FILE,
    INDEXED_NETWORK_OPTIONS,
    OUTPUT_OPTIONS,
    QUIET_OPTIONS,
    Command,
    Options,
    parameters,
)
from convscope.cli.work import Sinks, Work, do

if TYPE_CHECKING:
    from convscope.network import Network


def _rerun(picture: Path, photographs: tuple[Path, ...], **given: Any) -> None:
    from convscope import progress
    from convscope.reporting import recipe as recipes

    recipe = recipes.read(picture)
    sinks, console = Sinks.taken(given), make_console(given.pop("quiet"))
    sinks.output = sinks.output or picture.with_name(f"{picture.stem}-again{picture.suffix}")
    notes: list[str] = []

    def check(network: Network | None) -> None:
        recipe.check_network(network)
        notes.extend(recipe.notes(network))

    work = Work(
        recipe.technique, recipe.options(), recipe.photographs(photographs), recipe.network(given), recipe.seed,
        console, check, recipe.index(),
    )  # fmt: skip
    with progress.counted(recipe.made.get("stopped")):  # where the user stopped it then
        do(work, sinks)
    for note in [*notes, *recipes.compared(picture, sinks.output)]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


RERUN_OPTIONS: Options = {
    **OUTPUT_OPTIONS,
    ("--output", "-o"): {"type": FILE, "help": "Picture to write; PICTURE-again.png if left out."},
    **INDEXED_NETWORK_OPTIONS,
    **QUIET_OPTIONS,
}
del RERUN_OPTIONS["--seed", "random_seed"]
COMMAND = Command(
    "rerun",
    callback=_rerun,
    params=[
        click.Argument(["picture"], metavar="PICTURE", type=FILE),
        click.Argument(["photographs"], nargs=-1, metavar="[PHOTO...]", type=FILE),
        *parameters(RERUN_OPTIONS),
    ],
    short_help="Make a picture of convscope again, from the recipe that it carries.",
    help="Make a picture of convscope again, from the recipe that its PNG carries or that the JSON beside it is: "
    "the same technique, options, network, weights, photographs and seed, and so the same pixels. Photographs "
    "that have moved are named behind it, and other options say where the network is now.",
    context_settings=CONTEXT,
)
