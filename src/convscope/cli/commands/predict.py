"""``convscope predict``: whether an explanation lets a person foretell the network."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import click

from convscope.cli.bar import make_console
from convscope.cli.commands.label import ASKING_OPTIONS
from convscope.cli.options import CONTEXT, FILE, NETWORK_OPTIONS, QUIET_OPTIONS, Command, Options, load, parameters


def _predict(
    photographs: tuple[Path, ...], limit: int, alternatives: int, method: str, output: Path, picture: Path,
    subject: str | None, opens: bool | None, random_seed: int, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    from convscope.behaviour.study import predict_study
    from convscope.cli.asking import Sitting, check_table
    from convscope.images import pictures_in
    from convscope.reporting.explained import helped, shown_with

    console, subj = make_console(quiet), subject or getpass.getuser()
    check_table(output)
    paths, network = pictures_in(photographs), load(given, random_seed)
    show = shown_with(network, method)
    opens = sys.stdin.isatty() if opens is None else opens
    sitting = Sitting(console, subj, output, picture, opens, show)
    earlier = [row for row in sitting.earlier() if row.subj == subj]
    study = predict_study(
        network,
        paths,
        limit=limit,
        alternatives=alternatives,
        done=[row.imagename for row in earlier],
        seed=random_seed,
    )
    console.print(f"guess what {network.name} answers, which need not be right", markup=False)
    now = sitting.asked(study)
    for line in helped(subj, [*earlier, *now]):
        click.echo(line)
    if now:
        console.print(f"wrote {output}", markup=False)


PREDICT_OPTIONS: Options = {
    ("--method",): {"default": "gradcam", "show_default": True, "metavar": "TECHNIQUE",
                    "help": "What explains: a technique that makes heat maps."},
    ("--alternatives",): {"type": click.IntRange(2, 30), "default": 5, "show_default": True, "metavar": "N",
                          "help": "Names to choose among: the network's answer and its next ones, shuffled."},
    ("--output", "-o"): {"type": FILE, "default": Path("guesses.csv"), "show_default": True,
                         "help": "Table of guesses, to which those of this sitting are added."},
    ("--picture",): {"type": FILE, "default": Path("predict.png"), "show_default": True,
                     "help": "File in which each picture is shown."},
}  # fmt: skip
COMMAND = Command(
    "predict",
    callback=_predict,
    params=[
        click.Argument(["photographs"], nargs=-1, required=True, metavar="PHOTO|FOLDER...",
                       type=click.Path(path_type=Path)),
        *parameters(PREDICT_OPTIONS | ASKING_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="Guess what the network answers, with its explanation and without: does it help?",
    help="Guess what the network answers, with its explanation and without: does it help?\n\nHalf of the pictures are "
    "shown with a heat map for the network's answer, half without, in random order; the names to choose among are the "
    "network's likeliest. An explanation that says how the network decides makes guesses better (Doshi-Velez & Kim "
    "2017, arXiv:1702.08608). Several sittings add up; dozens of pictures of each kind are needed for a small effect.",
    context_settings=CONTEXT,
)  # fmt: skip
