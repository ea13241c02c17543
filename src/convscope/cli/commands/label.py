"""``convscope label``: a person against a network, on the same pictures."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import click

from convscope.cli.bar import make_console
from convscope.cli.options import (
    CONTEXT,
    FILE,
    FOLDER,
    NETWORK_OPTIONS,
    QUIET_OPTIONS,
    Command,
    Options,
    load,
    parameters,
)


def _label(
    folder: Path, limit: int, classes: str | None, output: Path, picture: Path, subject: str | None,
    opens: bool | None, random_seed: int, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    from convscope.behaviour.study import as_shown, label_study
    from convscope.cli.asking import Sitting, check_table
    from convscope.reporting.explained import beside

    console, subj = make_console(quiet), subject or getpass.getuser()
    check_table(output)
    opens = sys.stdin.isatty() if opens is None else opens
    sitting = Sitting(console, subj, output, picture, opens, lambda question: as_shown([question.picture]))
    done = [row.imagename for row in sitting.earlier() if row.subj == subj]
    wanted = [name.strip() for name in (classes or "").split(",") if name.strip()]
    network = load(given, random_seed)
    study = label_study(network, folder, limit=limit, classes=wanted, done=done, seed=random_seed)
    rows = sitting.asked(study)
    for line in beside(subj, rows, study.network):
        click.echo(line)
    if rows:
        console.print(f"wrote {output}", markup=False)


ASKING_OPTIONS: Options = {
    ("--limit",): {"type": click.IntRange(1), "default": 20, "show_default": True, "metavar": "N",
                   "help": "Pictures at most, drawn by the seed."},
    ("--subject",): {"metavar": "NAME", "help": "Who answers; the user's name if left out."},
    ("--open/--no-open", "opens"): {"default": None, "help": "Show each picture with the system's viewer; by default "
                                    "where answers are typed."},
    ("--seed", "random_seed"): {"type": click.IntRange(0), "default": 0, "show_default": True,
                                "help": "Seed of everything random."},
}  # fmt: skip
LABEL_OPTIONS: Options = {
    ("--classes",): {"metavar": "LIST", "help": "Names to choose among, separated by commas; up to 16 of the folders, "
                     "drawn by the seed, if left out."},
    ("--output", "-o"): {"type": FILE, "default": Path("answers.csv"), "show_default": True,
                         "help": "Table of answers, to which those of this sitting are added."},
    ("--picture",): {"type": FILE, "default": Path("label.png"), "show_default": True,
                     "help": "File in which each picture is shown."},
}  # fmt: skip
COMMAND = Command(
    "label",
    callback=_label,
    params=[
        click.Argument(["folder"], metavar="FOLDER", type=FOLDER),
        *parameters(LABEL_OPTIONS | ASKING_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="Label pictures yourself, as the network sees them, and compare both scores.",
    help="Label pictures yourself, as the network sees them, and compare both scores.\n\nFOLDER holds a folder of "
    "photographs for each class. Each is written to a file, cut and scaled as the network gets it; type what it is: a "
    "number, a name or a part of one, nothing for no answer, q to stop. Both choose among the same names. "
    "The table has the columns of Geirhos et al. 2018 (arXiv:1808.08750), and `convscope humans` compares everybody in "
    "it with any network.",
    context_settings=CONTEXT,
)
