"""``convscope train-style``: a network that paints in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from convscope import registry
from convscope.cli.bar import make_console, watched
from convscope.cli.options import CONTEXT, FILE, NETWORK_OPTIONS, QUIET_OPTIONS, Command, Options, load, parameters
from convscope.errors import OptionError


def _train_style(
    paintings: tuple[Path, ...], photos: Path, output: Path, resume: Path | None, quiet: bool, **given: Any
) -> None:
    from convscope.feedforward import training
    from convscope.images import read_image
    from convscope.techniques.synthesize._layers import stages

    told = {option: given.pop(option) for option in [name for name in given if name in TRAINING]}
    photographs, state = training.Photographs(photos), training.resumed(resume)
    pictures = {path.stem: read_image(path) for path in paintings}
    if len(pictures) < len(paintings):
        raise OptionError("two of the pictures have the same name, which becomes the style's; rename one")
    network, console = load(given, told["seed"]), make_console(quiet)
    layers = stages(network)
    told["style_layers"] = told["style_layers"] or tuple(layers)
    told["content_layers"] = told["content_layers"] or tuple(layers[-2:-1] or layers)
    for layer in (*told["style_layers"], *told["content_layers"]):
        network.layer(layer)
    recipe = training.Recipe(**told)
    about = {
        **recipe.noted(), "network": network.name, "weights": network.weights, "precision": network.precision,
        "photographs": len(photographs.paths), "paintings": {p.name: registry.digest(p) for p in paintings},
    }  # fmt: skip
    with watched(console, "train-style"):
        steps = training.train(network, photographs, pictures, recipe, resume=state)
        done = training.train_into(output, steps, recipe.steps, about)
    notes = [f"{len(photographs.unreadable)} pictures could not be read"] if photographs.unreadable else []
    for note in [*done.notes, *notes, f"loss {done.loss:.3f} over the last steps, of {done.steps}"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for path in done.wrote:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


WEIGHT = {"type": click.FloatRange(0), "show_default": True}
COUNT = {"type": click.IntRange(1), "show_default": True}
TRAINING: dict[str, dict[str, Any]] = {
    "steps": {**COUNT, "default": 4000, "help": "Batches."},
    "size": {
        **COUNT,
        "type": click.IntRange(32),
        "default": 128,
        "help": "Side of the crops of photographs, in pixels.",
    },
    "batch": {**COUNT, "default": 2, "help": "Photographs a step."},
    "style_size": {**COUNT, "default": 256, "help": "Shorter side of the paintings, in pixels: how large strokes are."},
    "content": {**WEIGHT, "default": 6.0, "help": "Weight of the photograph's features."},
    "opening": {
        **WEIGHT,
        "type": click.FloatRange(0, 1),
        "default": 0.25,
        "help": "Share of the steps before content counts in full.",
    },
    "style": {**WEIGHT, "default": 10.0, "help": "Weight of the painting's Gram matrices."},
    "colours": {**WEIGHT, "default": 30.0, "help": "Weight of the painting's colours, fine and coarse."},
    "details": {**WEIGHT, "default": 3.0, "help": "Weight of its neighbours' differences: against ripples and weaves."},
    "variation": {**WEIGHT, "default": 0.0, "help": "Weight of the total variation; more is smoother."},
    "rate": {**WEIGHT, "default": 2e-3, "help": "Adam's rate at the start."},
    "content_layers": {"multiple": True, "metavar": "LAYER", "help": "Chosen if left out, as the next."},
    "style_layers": {"multiple": True, "metavar": "LAYER"},
    "seed": {"type": click.IntRange(0), "default": 0, "help": "Seed of first weights and crops."},
}
TRAIN_STYLE_OPTIONS: Options = {
    ("--photos",): {"type": click.Path(path_type=Path), "required": True, "metavar": "FOLDER",
                    "help": "Photographs to train on, a few thousand."},
    ("--output", "-o"): {"type": FILE, "default": Path("style.safetensors"), "show_default": True},
    **{(f"--{name.replace('_', '-').removesuffix('s') if 'multiple' in about else name.replace('_', '-')}", name): about
       for name, about in TRAINING.items()},
    ("--resume",): {"type": FILE, "metavar": "FILE.state", "help": "What a stopped training goes on from."},
}  # fmt: skip
COMMAND = Command(
    "train-style",
    callback=_train_style,
    params=[
        click.Argument(["paintings"], nargs=-1, required=True, metavar="STYLE...", type=FILE),
        *parameters(TRAIN_STYLE_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="Train a network that paints in the style of one or several pictures in one pass, for `stylize`.",
    help="Train a network that paints in the style of one or several pictures in one pass, for `stylize`.\n\n"
    "It can be stopped at any time and keeps what it has; --resume ends with the weights of a training that never "
    "stopped.\n\nPapers: arXiv:1603.08155, 1607.08022, 1610.07629.",
    context_settings=CONTEXT,
)
