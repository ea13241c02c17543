"""Neighbour synthesis, 64² to 128², window 11: ours against plain NumPy loops with the same draws, in one run.

    python benchmarks/texture.py            # a grey and a colour sample; minutes, most of them the loops'
    python benchmarks/texture.py --quick    # smaller, fewer pixels of the loops; seconds

Two loops are timed. The plain one goes over pixels and over candidates, as the pseudo-code of the paper does, and
compares two windows in NumPy. The strong one goes over pixels only, and compares all windows at once through
``sliding_window_view``. Both take the pixels in our order, with our draws. They are timed on some of the pixels,
spread evenly over the order, and what our run had made before each is what they see; each must copy the same pixel as
ours did. Their time for the whole is that of these pixels, scaled. "first call" is a new process without anything
compiled on disk, "first call, compiled before" one that finds it there; both without importing numba and convscope.

Times are seconds of the wall clock and, beside them, of the processor: on a busy machine the second is the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from skimage import data
from torch import Tensor

from convscope.images import resize
from convscope.techniques.synthesize import _neighbour
from convscope.techniques.synthesize._neighbour import EPSILON, NeighbourTexture, neighbour_texture

RESULTS = Path(__file__).parent / "results" / "texture.json"
WINDOW = 11
ONCE = """
import time, torch, numba
from convscope.techniques.synthesize._neighbour import neighbour_texture
sample = torch.rand(3, {side}, {side}, generator=torch.Generator().manual_seed(0))
wall, processor = time.perf_counter(), time.process_time()
neighbour_texture(sample, ({size}, {size}), window={window})
print(time.perf_counter() - wall, time.process_time() - processor)
"""


def main() -> None:
    options = parsed()
    side, size = (32, 48) if options.quick else (64, 128)
    found = {name: measured(sample, size, options.quick) for name, sample in samples(side).items()}
    report = {
        "sample": side, "picture": size, "window": WINDOW, "quick": options.quick, "textures": found,
        "compilation": compilation(side, size), "cores": os.cpu_count(), "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(), "numba": numba.__version__, "numpy": np.__version__,
        "machine": platform.processor() or platform.machine(),
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller pictures, few pixels of the loops")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def samples(side: int) -> dict[str, Tensor]:
    """Bricks, whose colours are equal, and a part of a photograph."""
    brick = torch.from_numpy(data.brick()).float()[None, None] / 255
    colour = torch.from_numpy(data.coffee()).float().permute(2, 0, 1) / 255
    return {
        "brick, grey": resize(brick[0], (180, 180))[:, :side, :side].expand(3, -1, -1),
        "coffee, colour": resize(colour, (200, 300))[:, 60 : 60 + side, 100 : 100 + side],
        "noise, colour": torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)),
    }


def timed(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}, result


def measured(sample: Tensor, size: int, quick: bool) -> dict[str, Any]:
    neighbour_texture(sample, (size, size), window=WINDOW)  # compiled
    rounds = [timed(lambda: neighbour_texture(sample, (size, size), window=WINDOW)) for _ in range(5)]
    ours = {clock: statistics.median(times[clock] for times, _ in rounds) for clock in ("wall", "processor")}
    texture = rounds[0][1]
    strong = loop(sample, texture, at_once, 20 if quick else 400)
    plain = loop(sample, texture, one_by_one, 4 if quick else 40)
    result: dict[str, Any] = {"ours": ours, "plain loop": plain, "strong loop": strong}
    for name in ("plain loop", "strong loop"):
        result[f"times {name}"] = {clock: result[name][clock] / ours[clock] for clock in ours}
    print({name: value for name, value in result.items() if name.startswith("times")}, flush=True)
    return result


def loop(sample: Tensor, texture: NeighbourTexture, distances: Callable[..., Any], pixels: int) -> dict[str, float]:
    """Seconds that a loop takes for the whole picture, from some of its pixels, which must be the same as ours."""
    height, width = texture.known.shape
    chance = _neighbour._Chance.drawn(0, height * width)
    order = ours_order(sample, (height, width), chance)
    chosen = np.linspace(0, len(order) - 1, pixels).astype(int)
    colours = 1 if bool((sample == sample[:1]).all()) else 3  # of a grey sample one is enough for the loops as well
    values, draws, half = sample[:colours].permute(1, 2, 0).numpy(), chance.draws.numpy(), WINDOW // 2
    rank = np.full(height * width, -1)
    rank[order] = np.arange(len(order))
    padded = np.pad(texture.picture[:colours].permute(1, 2, 0).numpy(), ((half, half), (half, half), (0, 0)))
    ranks = np.pad(rank.reshape(height, width), half, constant_values=len(order))
    total = {"wall": 0.0, "processor": 0.0}
    for place in chosen:
        y, x = divmod(int(order[place]), width)
        window = padded[y : y + WINDOW, x : x + WINDOW].copy()
        known = ranks[y : y + WINDOW, x : x + WINDOW] < place
        spent, found = timed(lambda w=window, k=known, p=order[place]: picked(values, w, k, distances, draws[p]))
        if found != tuple((texture.source[y, x] - half).tolist()):
            raise SystemExit(f"the loop copied {found} to {(y, x)}, and we did not")
        total = {clock: total[clock] + spent[clock] for clock in total}
    return {clock: seconds * len(order) / pixels for clock, seconds in total.items()}


def ours_order(sample: Tensor, size: tuple[int, int], chance: Any) -> np.ndarray:
    """In which our run filled the pixels."""
    begun, source = _neighbour._seeded(sample, size, 3, chance)
    usable = torch.ones(sample.shape[1:], dtype=torch.bool)
    growth = _neighbour._Growth(sample, usable, begun, source, WINDOW, EPSILON)
    return growth._planned("layers", chance.keys.numpy())


def picked(
    sample: np.ndarray, window: np.ndarray, known: np.ndarray, distances: Callable[..., np.ndarray], draw: float
) -> tuple[int, int]:
    """Corner of one of the best windows."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    gauss = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (WINDOW / 6.4) ** 2)).astype(np.float32)
    errors = distances(sample, window, gauss * known)
    matches = np.argwhere(errors <= errors.min() * (1 + EPSILON))
    y, x = matches[int(draw * len(matches))]
    return int(y), int(x)


def one_by_one(sample: np.ndarray, window: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Distance of each candidate, one after the other."""
    height, width = (side - WINDOW + 1 for side in sample.shape[:2])
    errors = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            difference = sample[y : y + WINDOW, x : x + WINDOW] - window
            errors[y, x] = (weights[..., None] * difference**2).sum()
    return errors


def at_once(sample: np.ndarray, window: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Distances of all candidates, at the known places only."""
    known = weights > 0
    windows = sliding_window_view(sample, (WINDOW, WINDOW), (0, 1)).transpose(0, 1, 3, 4, 2)
    difference = windows[:, :, known] - window[known]
    return np.einsum("yxkc,yxkc,k->yx", difference, difference, weights[known])


def compilation(side: int, size: int) -> dict[str, Any]:
    """Seconds of the first call in a new process, without and with what an earlier one compiled."""
    code = ONCE.format(side=side, size=size, window=WINDOW)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        names = ("first call", "first call, compiled before")
        found = {}
        for name in names:
            printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
            wall, processor = map(float, printed.split())
            found[name] = {"wall": wall, "processor": processor}
    return found


if __name__ == "__main__":
    main()
