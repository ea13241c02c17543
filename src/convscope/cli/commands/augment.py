"""``convscope augment``: a painted copy of a folder of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from convscope.cli.bar import make_console, watched
from convscope.cli.options import CONTEXT, QUIET_OPTIONS, Command, Options, parameters


def _augment(folder: Path, output: Path, quiet: bool, styles: tuple[str, ...], **given: Any) -> None:
    from convscope.feedforward.augment import MANIFEST, augment

    console = make_console(quiet)
    with watched(console, "augment"):
        found = augment(folder, output, styles, **given)
    for name, reason in list(found.unreadable.items())[:5]:
        console.print(f"note: skipped {name}: {reason}", markup=False)
    if len(found.unreadable) > 5:
        console.print(f"note: {len(found.unreadable)} pictures were skipped; {output / MANIFEST} has them all")
    console.print(f"wrote {found.painted} pictures into {output}; {found.before} were there already", markup=False)


AUGMENT_OPTIONS: Options = {
    ("--output", "-o"): {"type": click.Path(path_type=Path, file_okay=False), "required": True, "metavar": "FOLDER"},
    ("--style", "styles"): {"multiple": True, "required": True, "metavar": "NAME|FILE",
                            "help": "As `stylize` takes it; of several, each picture gets one by chance."},
    ("--strength",): {"type": click.FloatRange(0, 1), "default": 1.0, "show_default": True,
                      "help": "Share of the painting in the picture."},
    ("--size",): {"type": click.IntRange(1), "help": "Longer side at most, in pixels."},
    ("--seed",): {"type": click.IntRange(0), "default": 0, "help": "Seed of the choice among styles."},
}  # fmt: skip
COMMAND = Command(
    "augment",
    callback=_augment,
    params=[
        click.Argument(["folder"], metavar="FOLDER", type=click.Path(path_type=Path)),
        *parameters(AUGMENT_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="A painted copy of a folder of photographs, for training networks that go by shape.",
    help="A painted copy of a folder of photographs, for training networks that go by shape and not by texture "
    "(Geirhos et al. 2019, arXiv:1811.12231).\n\nFolders of classes stay as they are; what is there already "
    "stays, so that a stopped run goes on where it was; what cannot be read is skipped and listed in augment.json.",
    context_settings=CONTEXT,
)
