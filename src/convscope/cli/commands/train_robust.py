"""``convscope train-robust``: adversarial training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from convscope.cli.bar import make_console, watched
from convscope.cli.options import (
    CONTEXT,
    FILE,
    NETWORK_OPTIONS,
    QUIET_OPTIONS,
    Command,
    Options,
    epsilon,
    load,
    parameters,
)


def _train_robust(folder: Path, output: Path, resume: Path | None, half: bool, quiet: bool, **given: Any) -> None:
    from convscope.optimize import load_state
    from convscope.robust import training
    from convscope.robust.pictures import read_classes

    told = {option: given.pop(option) for option in TRAINING}
    told["crop"] = told.pop("area")
    told["epsilon"] = epsilon(told["epsilon"])
    recipe = training.Recipe(**told)
    network, console = load(given, recipe.seed), make_console(quiet)
    state = None if resume is None else load_state(resume)
    with watched(console, "train-robust"):
        photographs = read_classes(network, folder)
        about = {**recipe.noted(), "network": network.name, "weights": network.weights, "photographs": len(photographs)}
        job = training.Training(network, photographs, recipe)
        done = training.train_into(output, job.through(state), job.steps, about, half=half)
    unreadable = photographs.unreadable
    notes = [f"{len(unreadable)} pictures could not be read"] if unreadable else []
    for note in [*done.notes, *notes, *training.told(done.last.history(), recipe)]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for path in done.wrote:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


SHARE = {"type": click.FloatRange(0, 1), "show_default": True}
COUNT = {"type": click.IntRange(1), "show_default": True}
TRAINING: dict[str, dict[str, Any]] = {
    "epochs": {**COUNT, "default": 20, "help": "Passes over the photographs."},
    "epsilon": {"default": "4/255", "show_default": True, "metavar": "NUMBER",
                "help": "Farthest that a value is moved, in L-inf; a number or a fraction."},
    "attack": {"type": click.Choice(["fgsm", "pgd"]), "default": "fgsm", "show_default": True,
               "help": "One step from a random start, or several."},
    "attack_steps": {**COUNT, "default": 3, "help": "Steps of pgd."},
    "ramp": {**SHARE, "default": 0.25, "help": "Share of the training over which epsilon rises."},
    "small": {**SHARE, "default": 0.0,
              "help": "Share of the training with pictures of three quarters of the side, which is faster."},
    "area": {"type": click.FloatRange(0, 1, min_open=True), "default": 0.4, "show_default": True,
             "help": "Smallest share of a photograph's area that is seen at a time."},
    "mirror": {"default": True, "show_default": True,
               "help": "Mirror half of the photographs; not for what must not be, as writing."},
    "batch": {**COUNT, "default": 64, "help": "Photographs a step."},
    "rate": {"type": click.FloatRange(0, min_open=True), "default": 5e-4, "show_default": True,
             "help": "AdamW's rate at its peak."},
    "decay": {"type": click.FloatRange(0), "default": 0.02, "show_default": True, "help": "AdamW's, of the weights."},
    "smoothing": {**SHARE, "default": 0.1, "help": "Of the labels."},
    "average": {**SHARE, "default": 0.998, "help": "How much of the averaged weights each step keeps."},
    "held_out": {"type": click.FloatRange(0, 0.9, min_open=True), "default": 0.1, "show_default": True,
                 "help": "Share of the photographs that watches the training and is not trained on."},
    "watched": {**COUNT, "default": 256, "help": "How many of those are attacked after each epoch."},
    "seed": {"type": click.IntRange(0), "default": 0, "help": "Seed of everything random."},
}  # fmt: skip
TRAIN_ROBUST_OPTIONS: Options = {
    ("--output", "-o"): {"type": FILE, "default": Path("robust.safetensors"), "show_default": True,
                         "help": "Weights to write, for --weights."},
    **{(f"--{name.replace('_', '-')}" + ("/--no-mirror" if name == "mirror" else ""), name): about
       for name, about in TRAINING.items()},
    ("--half",): {"is_flag": True, "help": "Store them in half precision."},
    ("--resume",): {"type": FILE, "metavar": "FILE.state", "help": "What a stopped training goes on from."},
}  # fmt: skip
COMMAND = Command(
    "train-robust",
    callback=_train_robust,
    params=[
        click.Argument(["folder"], metavar="FOLDER", type=click.Path(path_type=Path)),
        *parameters(TRAIN_ROBUST_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="Train a network on pictures that fool it, until they fool it less.",
    help="Train a network on pictures that fool it, until they fool it less.\n\nFOLDER holds a folder of photographs "
    "for each class, with the name of one of the network's labels. Training starts from the network's weights. It can "
    "be stopped at any time and keeps what it has; --resume ends with the weights of a training that never stopped. "
    "After every epoch an attack of ten steps on photographs that are held out says whether the network stands more "
    "than the one step it is trained on, and the weights that stood it best are written.\n\n"
    "Papers: arXiv:1706.06083; fgsm arXiv:2001.03994.",
    context_settings=CONTEXT,
)
