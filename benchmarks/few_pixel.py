"""A generation of the one-pixel attack: all candidates in one incremental pass against full passes, in one run.

python benchmarks/few_pixel.py            400 candidates on VGG-16 at 224 px, of one, three and five pixels; minutes
python benchmarks/few_pixel.py --quick    a few candidates of a small picture on SqueezeNet; seconds

Weights are random and the picture is noise: neither changes the arithmetic. Candidates are drawn as the attack draws
its first generation. Full passes take long, so fewer candidates go through them, and both are given a candidate. Both
clocks are kept, the wall's and that of computing, which another process hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from convscope.network import Network
from convscope.perturb import Variations
from convscope.techniques.robustness.few_pixel import _first, decoded
from convscope.zoo.torchvision_models import blueprint

RESULTS = Path(__file__).parent / "results" / "few_pixel.json"
WANTED = 5.0  # times full passes, of one pixel on VGG-16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few candidates on one small network")
    parser.add_argument("--network", default=None, help="of torchvision; vgg16 if left out")
    parser.add_argument("--candidates", type=int, help="of a generation; 400 if left out")
    parser.add_argument("--full", type=int, help="of them through full passes; 32 if left out")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    name = options.network or ("squeezenet1_0" if options.quick else "vgg16")
    size, count, full = (96, 40, 16) if options.quick else (224, options.candidates or 400, options.full or 32)
    torch.manual_seed(0)
    module = blueprint(name, (size, size)).build(None).eval().requires_grad_(False)
    network = Network(module, name=name, input_size=(size, size))
    network(torch.rand(1, 3, size, size))  # warm
    report: dict[str, Any] = {
        "network": name, "size": size, "candidates": count, "of these by full passes": full,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "times full passes wanted": WANTED,
        "pixels": {},
    }  # fmt: skip
    for pixels in (1, 3, 5):
        report["pixels"][str(pixels)] = measured(network, size, count, full, pixels)
        print(pixels, json.dumps(report["pixels"][str(pixels)]), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.output}")


def measured(network: Network, size: int, count: int, full: int, pixels: int) -> dict[str, Any]:
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    vectors = _first(np.random.default_rng(0), (size, size), count, pixels)
    boxes, colours = decoded(vectors.T, pixels)
    variations, plain = Variations(network), Variations(network, incremental=False)
    variations.of(image, boxes[: 4 * pixels], colours[: 4 * pixels], each=pixels)  # follows the network, once
    fast, found = timed(lambda: variations.of(image, boxes, colours, each=pixels))
    part = full * pixels
    slow, expected = timed(lambda: plain.of(image, boxes[:part], colours[:part], each=pixels))
    ours, theirs = ({c: s / n for c, s in each.items()} for each, n in ((fast, count), (slow, full)))
    reach = float((expected.logits - expected.clean).abs().max())
    return {
        "engine": found.engine,
        "milliseconds a candidate": {"incremental": thousand(ours), "full passes": thousand(theirs)},
        "times full passes": {clock: round(theirs[clock] / ours[clock], 2) for clock in ours},
        "arithmetic": round(1 / (1 - found.saved), 2),
        "largest difference": float((found.logits[:full] - expected.logits).abs().max()) / reach,
    }


def thousand(seconds: dict[str, float]) -> dict[str, float]:
    return {clock: round(1000 * value, 2) for clock, value in seconds.items()}


def timed(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    start, computed = time.perf_counter(), time.process_time()
    result = run()
    return {"wall": time.perf_counter() - start, "computing": time.process_time() - computed}, result


if __name__ == "__main__":
    main()
