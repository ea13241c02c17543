"""Trains the styles that come with convscope, src/convscope/feedforward/styles/*.safetensors.

    python training/train_styles.py photographs/ starry-night.jpg the-scream.jpg

Photographs: Caltech-101 (Fei-Fei, Fergus and Perona 2004, CC BY 4.0), the training split of the built-in network and
the background class. Paintings: in the public domain. The network that judges is the built-in one.

They were trained before the loss knew of details, which are left out here for that reason; with them a weave that shows
at 384 px and more should go.

One network is trained for each painting. A training that was stopped goes on where it was; two paintings can be trained
side by side, by two calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

import convscope
from convscope import registry
from convscope.feedforward.files import FOLDER, SUFFIX, read_stylist, save_stylist
from convscope.feedforward.training import Photographs, Recipe, Step, resumed, train, train_into
from convscope.images import read_image
from convscope.network import Network
from convscope.optimize import State, save_state

RECIPE = Recipe(
    steps=3500, batch=1, style_size=320, details=0.0, content_layers=("relu3_2",),
    style_layers=("relu1", "relu2_2", "relu3_2", "relu4_3"),
)  # fmt: skip
#: (steps for which rate and opening are planned, steps after which the plan ends): it was shortened on the way
PLANS = ((6000, 3250), (4000, 3500))


def told(steps: Iterator[Step]) -> Iterator[Step]:
    """The steps, and every hundredth in words."""
    for step in steps:
        if step.number % 100 == 0:
            print(step.number, {name: round(part, 3) for name, part in step.parts.items()}, flush=True)
        yield step


def trained(network: Network, photographs: Photographs, painting: Path, folder: Path) -> None:
    """One style, in ``folder`` while it is trained and in the package at the end."""
    name = painting.stem.replace("_", "-")
    output = folder / f"{name}{SUFFIX}"
    state = output.with_suffix(".state")
    about = {
        **RECIPE.noted(), "plans": PLANS, "network": network.name, "weights": network.weights,
        "precision": network.drawing.precision,
        "photographs": f"{len(photographs.paths)} of Caltech-101 (CC BY 4.0)",
        "paintings": {painting.name: registry.digest(painting)},
    }  # fmt: skip
    pictures = {name: read_image(painting)}
    for planned, until in PLANS:
        going = resumed(state if state.exists() else None)
        if going is not None and going["number"] >= until:
            continue
        steps = train(network, photographs, pictures, replace(RECIPE, steps=planned), resume=as_planned(going, planned))
        done = train_into(output, told(islice(steps, until - (going or {"number": 0})["number"])), until, about)
        print(name, *done.notes, f"loss {done.loss:.3f}", flush=True)
        if done.notes:
            return
        save_state(state, done.last.state())
    state.unlink()
    save_stylist(FOLDER / f"{name}{SUFFIX}", read_stylist(output), {**about, "steps_done": PLANS[-1][1]})


def as_planned(state: State | None, steps: int) -> State | None:
    """The state for another plan."""
    return None if state is None else {**state, "recipe": {**state["recipe"], "steps": steps}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("paintings", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    network, photographs = convscope.load_network("builtin"), Photographs(options.photographs)
    for painting in options.paintings:
        trained(network, photographs, painting, options.output)


if __name__ == "__main__":
    main()
