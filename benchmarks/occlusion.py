"""Occlusion, 16 px window, stride 8: ours against captum's and against our own full passes, in one run.

python benchmarks/occlusion.py            all windows of 224 px on VGG-16, ResNet-50 and SqueezeNet; minutes
python benchmarks/occlusion.py --quick    a few windows of a small picture on SqueezeNet; seconds

Weights are random and the picture is noise: neither changes the arithmetic. Seconds depend on the machine, ratios far
less; both go to benchmarks/results/occlusion.json, with the largest difference from full passes in shares of the
largest drop. captum runs with one window an evaluation, its default, and with 32; the better one counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from captum.attr import Occlusion
from torch import Tensor

from convscope.network import Network
from convscope.perturb import Variations
from convscope.techniques.attribute.occlusion import boxes, positions
from convscope.zoo.torchvision_models import blueprint

RESULTS = Path(__file__).parent / "results" / "occlusion.json"
NETWORKS = {"vgg16": 10.0, "resnet50": 2.2, "squeezenet1_0": 6.0}  # and how many times captum's speed is wanted
WINDOW, STRIDE = 16, 8
AT_ONCE = (1, 32)  # captum's perturbations_per_eval


def main() -> None:
    options = parsed()
    size = options.size or (96 if options.quick else 224)
    names = options.network or (["squeezenet1_0"] if options.quick else list(NETWORKS))
    if options.threads:
        torch.set_num_threads(options.threads)
    found = {name: measured(name, size, options.quick) for name in names}
    report = {
        "window": WINDOW, "stride": STRIDE, "size": size, "precision": "float32", "quick": options.quick,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.processor(),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "networks": found,
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.output}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few windows on one small network")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this one; may be repeated")
    parser.add_argument("--size", type=int, help="side of the picture in pixels")
    parser.add_argument("--threads", type=int, help="threads that torch may use")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def measured(name: str, size: int, quick: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    module = blueprint(name, (size, size)).build(None).eval()
    network = Network(module, name=name, input_size=(size, size))
    image, fill = torch.rand(3, size, size), torch.zeros(3, 1, 1)
    places = boxes(positions((size, size), (WINDOW, WINDOW), (STRIDE, STRIDE)), (WINDOW, WINDOW))
    network(image[None])  # warm
    ours, outcome = timed(lambda: Variations(network).of(image, places, fill))
    full, expected = timed(lambda: Variations(network, incremental=False).of(image, places, fill))
    theirs = {str(n): captums(network, image, n) for n in (AT_ONCE[-1:] if quick else AT_ONCE)}
    drop = (expected.logits - expected.clean).abs().max()
    result = {
        "windows": len(places), "engine": outcome.engine, "reason": outcome.reason,
        "seconds": {"ours": ours, "full passes": full, "captum": theirs},
        "times captum": min(theirs.values()) / ours, "times captum wanted": NETWORKS[name],
        "times full passes": full / ours, "arithmetic": 1 / (1 - outcome.saved),
        "largest difference": float((outcome.logits - expected.logits).abs().max() / drop),
    }  # fmt: skip
    print(name, json.dumps(result))
    return result


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def captums(network: Network, image: Tensor, at_once: int) -> float:
    """Seconds of captum's Occlusion for the same windows and class."""
    occlusion = Occlusion(network)

    def run() -> Tensor:
        with torch.no_grad():
            return occlusion.attribute(
                image[None],
                target=0,
                sliding_window_shapes=(3, WINDOW, WINDOW),
                strides=(3, STRIDE, STRIDE),
                baselines=0,
                perturbations_per_eval=at_once,
            )

    return timed(run)[0]


if __name__ == "__main__":
    main()
