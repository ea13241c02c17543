"""Fast stylisation against optimisation, and frames per second of film, in one run.

    python benchmarks/stylize.py                 # 512 px, the shipped style, 100 steps timed of 300
    python benchmarks/stylize.py --quick

``style`` is what ``convscope style`` does at its heart: ``optimize`` on the pixels, for the same features, Gram
matrices and total variation on the same network as the stylist was trained with. A step of it is timed, and times the
steps that such a picture takes. Both are measured in turns, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch import Tensor

import convscope
from convscope import films
from convscope.feedforward.files import find, read_recipe
from convscope.hooks import observe
from convscope.images import resize, to_uint8
from convscope.objectives import Objective, features, gram, grams
from convscope.optimize import optimize
from convscope.parameterizations import Pixels
from convscope.regularizers import TotalVariation


def photograph(size: int) -> Tensor:
    """(1, 3, size, size) of scikit-image's coffee."""
    image = torch.from_numpy(np.ascontiguousarray(skimage.data.coffee())).permute(2, 0, 1)[None, :, :, 100:500] / 255
    return resize(image, (size, size))


def objective(network: convscope.Network, content: Tensor, style: Tensor, recipe: dict) -> Objective:
    """What the stylist was trained for, of one picture."""
    with torch.no_grad():
        seen = observe(network, content, recipe["content_layers"])
        painted = observe(network, style, recipe["style_layers"])
    targets = {layer: gram(painted[layer].float()) for layer in recipe["style_layers"]}
    wanted = features({layer: seen[layer] for layer in recipe["content_layers"]})
    return wanted * recipe["content"] + grams(network, targets) * (recipe["style"] / len(targets))


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compared(name: str, size: int, steps: int, timed: int, repeats: int) -> dict[str, float]:
    """Seconds of a step and of a pass, and how many times faster the pass is than all steps."""
    recipe = read_recipe(find(name)[0])
    network, image = convscope.load_network("builtin").drawing, photograph(size)
    style = torch.rand(1, 3, 256, 410, generator=torch.Generator().manual_seed(0))  # as good as a painting for its time
    aim, penalty = objective(network, image, style, recipe), TotalVariation(recipe["variation"] / size**2)
    passes, ascents = [], []
    convscope.stylize(image, style=name)
    for _ in range(repeats):
        run = optimize(network, aim, Pixels(image.clone()), steps=timed + 1, regularizers=[penalty])
        next(run)  # warm
        ascents.append(seconds(lambda run=run: list(run)) / timed)
        passes.append(seconds(lambda: convscope.stylize(image, style=name)))
    step, one = statistics.median(ascents), statistics.median(passes)
    return {"step of style, s": step, "style, s": step * steps, "stylize, s": one, "times faster": step * steps / one}


def film(name: str, size: int, frames: int) -> dict[str, float]:
    """Frames per second of a film, read, painted and written."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        with av.open(str(source), "w") as written:
            stream = written.add_stream("libx264", rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            for number in range(frames):
                picture = to_uint8(photograph(size).roll(8 * number, 3))[0]
                written.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            written.mux(stream.encode())
        made = films.changed(source, target, lambda frame: convscope.stylize(frame, style=name).values[0])
    return {"frames": made.frames, "frames a second": made.rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 px and few repeats")
    parser.add_argument("--style", default="starry-night")
    parser.add_argument("--steps", type=int, default=300, help="that a picture takes by optimisation")
    parser.add_argument("--threads", type=int, help="of torch")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    size, timed, repeats = (256, 4, 3) if options.quick else (512, 10, 5)
    found = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "size": size,
        "steps": options.steps, **compared(options.style, size, options.steps, timed, repeats),
        "film": {str(side): film(options.style, side, 4 if options.quick else 12) for side in (256, size)},
    }  # fmt: skip
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
