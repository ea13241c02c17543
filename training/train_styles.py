"""Trains the styles that come with convscope, src/convscope/feedforward/styles/*.safetensors.

    python training/train_styles.py photographs/ starry-night.jpg the-scream.jpg

Photographs: Caltech-101 (Fei-Fei, Fergus and Perona 2004, CC BY 4.0), the training split of the built-in network and
the background class. Paintings: in the public domain. The network that judges is the built-in one.

One network is trained for all paintings, whose convolutions they share (Dumoulin et al. 2017), and is then written
once for each, with that painting's own scales and shifts. A training that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import convscope
from convscope import registry
from convscope.feedforward.files import FOLDER, SUFFIX, read_stylist, save_stylist
from convscope.feedforward.stylist import Shape, StyleNorm, Stylist
from convscope.feedforward.training import Photographs, Recipe, resumed, train, train_into
from convscope.images import read_image

RECIPE = Recipe(content_layers=("relu2_2", "relu3_2"), style_layers=("relu1", "relu2_2", "relu3_2", "relu4_3"))


def alone(stylist: Stylist, index: int) -> Stylist:
    """A stylist that knows only one of the styles."""
    shape = Shape(**{**stylist.shape.noted(), "styles": 1})
    found = Stylist(shape, [stylist.names[index]])
    own = {name for name, part in stylist.named_modules() if isinstance(part, StyleNorm)}
    weights = {
        name: value[index : index + 1] if name.rpartition(".")[0] in own or name == "palette" else value
        for name, value in stylist.state_dict().items()
    }
    found.load_state_dict(weights)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("paintings", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("runs/styles.safetensors"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    state = options.output.with_suffix(".state")
    network, photographs = convscope.load_network("builtin"), Photographs(options.photographs)
    pictures = {path.stem.replace("_", "-"): read_image(path) for path in options.paintings}
    about = {
        **RECIPE.noted(), "network": network.name, "weights": network.weights, "precision": network.drawing.precision,
        "photographs": f"{len(photographs.paths)} of Caltech-101 (CC BY 4.0)",
        "paintings": {p.name: registry.digest(p) for p in options.paintings},
    }  # fmt: skip
    steps = train(network, photographs, pictures, RECIPE, resume=resumed(state if state.exists() else None))

    def told():
        for step in steps:
            if step.number % 50 == 0:
                print(step.number, {name: round(part, 3) for name, part in step.parts.items()}, flush=True)
            yield step

    done = train_into(options.output, told(), RECIPE.steps, about)
    print(*done.notes, f"loss {done.loss:.3f}")
    stylist = read_stylist(options.output)
    for index, name in enumerate(stylist.names):
        save_stylist(FOLDER / f"{name}{SUFFIX}", alone(stylist, index), about)


if __name__ == "__main__":
    main()
