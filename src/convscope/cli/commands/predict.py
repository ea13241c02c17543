"""``convscope predict``: whether an explanation lets a person foretell the network."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope.cli.bar import make_console
from convscope.cli.commands.label import ASKING_OPTIONS
from convscope.cli.options import CONTEXT, FILE, NETWORK_OPTIONS, QUIET_OPTIONS, Options, load, parameters
from convscope.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from convscope.behaviour.responses import Response
    from convscope.behaviour.study import Question
    from convscope.network import Network


def _predict(
    photographs: tuple[Path, ...], limit: int, alternatives: int, method: str, output: Path, picture: Path,
    subject: str | None, opens: bool | None, random_seed: int, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    from convscope.behaviour.study import predict_study
    from convscope.cli.asking import Sitting, check_table
    from convscope.cli.work import found_photographs

    console, subj = make_console(quiet), subject or getpass.getuser()
    check_table(output)
    paths, network = found_photographs(photographs), load(given, random_seed)
    show = _shown(network, method)
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
    for line in scores(subj, [*earlier, *now]):
        click.echo(line)
    if now:
        console.print(f"wrote {output}", markup=False)


def _shown(network: Network, method: str) -> Callable[[Question], Tensor]:
    """The picture, and beside it the explanation of the network's answer where it is shown; nothing names the class."""
    import torch

    import convscope
    from convscope import registry
    from convscope.behaviour.scoring import WITH
    from convscope.behaviour.study import as_shown
    from convscope.errors import nearest
    from convscope.results import Heatmap
    from convscope.views.heatmaps import rows

    known = [name for name, entry in registry.discover().items() if entry.family == "attribute"]
    if method not in known:
        raise OptionError(f"{method!r} is no technique that explains an answer{nearest(method, known)}")
    technique = getattr(convscope, method.replace("-", "_"))

    def show(question: Question) -> Tensor:
        if question.condition != WITH:
            return as_shown([question.picture])
        result = technique.on(network, question.picture[None], target=network.labels.index(question.right))
        if not isinstance(result, Heatmap):
            raise OptionError(f"{method} makes no heat map to show; choose another --method, as gradcam")
        laid = torch.from_numpy(rows(result)[0].overlay).movedim(2, 0).float() / 255
        return as_shown([question.picture, laid])

    return show


def scores(subj: str, rows: Sequence[Response]) -> list[str]:
    """How often the network's answer was guessed, with the explanation and without."""
    from convscope.behaviour.scoring import WITH, WITHOUT, helpfulness

    found, lines = helpfulness(rows), []
    for condition, share in ((WITH, found.with_explanation), (WITHOUT, found.without)):
        if found.counts[condition]:
            ends = f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"
            lines.append(f"{subj}, {condition}: {ends} of {found.counts[condition]} guessed")
    gain = found.difference
    if gain.mean == gain.mean:
        lines.append(f"difference {gain.mean:+.0%} ({gain.low:+.0%} to {gain.high:+.0%}): {found.verdict}")
    return lines or ["nothing was answered"]


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
COMMAND = click.Command(
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
