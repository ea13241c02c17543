"""Maps of a data set: 10,000 codes of 512 numbers by t-SNE, how far that is to be trusted, 2,500 pictures on a grid.

    python benchmarks/embed.py                          # a minute or two on two cores
    python benchmarks/embed.py --index photos.index     # on codes of your own
    python benchmarks/embed.py --quick                  # a tenth of the pictures; seconds

Without an index the codes are made: 100 kinds of pictures, each a normal cloud around a centre of its own, cut off at
zero as a rectifier does it. The grid is assigned for 2,500 places of that map, and for places that are drawn evenly and
for places in few dense clouds, since the time depends on how far pictures must move. Repeated, the map is the same.

Times are seconds of the wall clock and, beside them, of the processor: on a busy machine the second is the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openTSNE
import scipy
import torch

from convscope.techniques.dataset._plane import assigned, lattice_for, principal, snapped
from convscope.techniques.dataset._quality import agreement, trustworthiness
from convscope.techniques.dataset.embed import METHODS, ROOM

RESULTS = Path(__file__).parent / "results" / "embed.json"


def main() -> None:
    options = parsed()
    codes, kinds = read(options.index) if options.index else made(1_000 if options.quick else 10_000)
    points, found = maps(codes, kinds, repeat=options.repeat)
    count = min(len(points), 250 if options.quick else 2_500)
    report = {
        "codes": list(codes.shape), "source": "an index" if options.index else "made", "map": found,
        "grid": grids(points, count), "poster": poster(points),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "openTSNE": openTSNE.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
        "machine": platform.processor() or platform.machine(), "quick": options.quick,
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, help="an index, whose codes are used")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pictures")
    parser.add_argument("--repeat", action="store_true", help="make the map twice and compare")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def made(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, 512) of 100 kinds, and which kind each is of."""
    chance = np.random.default_rng(0)
    kinds = chance.integers(0, 100, count)
    centres = chance.normal(0, 1, (100, 512))
    return np.maximum(centres[kinds] + chance.normal(0, 1.5, (count, 512)), 0).astype(np.float32), kinds


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Codes of an index, and its labels as numbers."""
    from convscope.index import open_index

    index = open_index(path)
    labels = index.pictures(["label"], "error is null")["label"].to_pylist()
    return index.codes(), np.unique([str(label) for label in labels], return_inverse=True)[1]


def timed(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}, result


def maps(codes: np.ndarray, kinds: np.ndarray, *, repeat: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """The map by t-SNE, with what each part takes."""
    METHODS["tsne"](codes[:100], 10.0, 0)  # what is loaded and compiled once
    seconds: dict[str, Any] = {"components": timed(lambda: principal(codes, 50))[0]}
    seconds["t-SNE, components among them"], (points, told) = timed(lambda: METHODS["tsne"](codes, 30.0, 0))
    seconds["trustworthiness"], trust = timed(lambda: trustworthiness(codes, points, 10))
    seconds["neighbour accuracy"], accuracy = timed(lambda: agreement(points, kinds, 10))
    found = {"seconds": seconds, **told, "trustworthiness": trust, "neighbour accuracy": accuracy}
    if repeat:
        found["the same again"] = bool((METHODS["tsne"](codes, 30.0, 0)[0] == points).all())
    print(json.dumps(found, indent=2), flush=True)
    return points, found


def grids(points: np.ndarray, count: int) -> dict[str, Any]:
    """Seconds of the assignment, and how far a picture moves on average, as a share of the side."""
    chance = np.random.default_rng(0)
    centres = chance.random((10, 2))
    places = {
        "the map": points[chance.choice(len(points), count, replace=False)],
        "evenly drawn": chance.random((count, 2)),
        "ten dense clouds": centres[chance.integers(0, 10, count)] + chance.normal(0, 0.01, (count, 2)),
    }
    lattice = lattice_for(count)
    found = {}
    for name, each in places.items():
        seconds, _ = timed(lambda each=each: assigned(each, lattice))
        found[name] = {"pictures": count, "seconds": seconds}
    return found


def poster(points: np.ndarray) -> dict[str, Any]:
    lattice = lattice_for(round(ROOM * len(points)))
    return {"pictures": len(points), "seconds": timed(lambda: snapped(points, lattice))[0]}


if __name__ == "__main__":
    main()
