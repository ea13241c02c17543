"""A step of the techniques that make pictures against the bare forward and backward pass to the layers used.

    python benchmarks/synthesis.py              # builtin and SqueezeNet, random weights for the latter
    python benchmarks/synthesis.py --quick

A run of ``steps`` steps of the technique, minus a run of one step, is what a step costs: what is done once for each
picture (targets, octaves) is left out on both sides. The floor is one forward pass that ends behind the deepest layer
asked for and one ``autograd.grad`` for the pixels, with frozen weights, in the same precision: once as one writes it,
and once with the pictures' colours next to each other in memory, which is faster on many CPUs, and which ``optimize``
does by itself. All are measured in turn, so that a noisy machine is noisy for all, and the medians of the ratios are
reported; on a CPU times are those of one thread of the processor.

A case is a line of ``CASES``: the technique, the layer of each network, and the options of the technique.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _plain import plainly
from torch import Tensor

import convscope
from convscope.hooks import observe
from convscope.network import Network, Precision

SPECS: dict[str, dict[str, Any]] = {"builtin": {}, "torchvision:squeezenet1_0": {"weights": "random"}}
MOST = 1.15  # what a step may cost, in floors


@dataclass(frozen=True)
class Case:
    """One technique with its options, and for each of ``SPECS`` the deepest layer that it reads."""

    technique: str
    layers: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


DEEP = {"builtin": "relu3_2", "torchvision:squeezenet1_0": "features.10"}
CASES = [
    Case("dream", DEEP, {"octaves": 1}),
    Case("invert", DEEP, {"optimizer": "lbfgs"}, "invert lbfgs"),
    Case("invert", DEEP, {"optimizer": "adam"}, "invert adam"),
]


def seconds(call: Callable[[], object]) -> float:
    """Of one call: of the processor on a CPU, so that others at work do not count; of the clock on a GPU."""
    if not torch.cuda.is_available():
        start = time.process_time()
        call()
        return time.process_time() - start
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def floor(network: Network, images: Tensor, layer: str, steps: int) -> None:
    """So many bare passes forward and back."""
    for _ in range(steps):
        pixels = images.clone().requires_grad_()
        with torch.enable_grad(), plainly():
            score = observe(network, pixels, [layer])[layer].float().square().sum()
        torch.autograd.grad(score, pixels)


def measure(case: Case, spec: str, size: int, steps: int, repeats: int, precision: Precision) -> dict[str, float]:
    """Milliseconds of a step of one case and of its floor, and the median of their ratios."""
    network = convscope.load_network(spec, precision=precision, **SPECS[spec])
    network.module.requires_grad_(False)
    bare = getattr(network, "drawing", network)  # in what the technique computes
    layer = case.layers[spec]
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(network.device)
    technique = getattr(convscope, case.technique)

    def run(count: int) -> float:
        return seconds(lambda: technique(network, images.cpu(), layer=layer, steps=count, **case.options))

    orders = (images, images.contiguous(memory_format=torch.channels_last))

    def bottoms(count: int) -> list[float]:
        return [seconds(lambda order=order: floor(bare, order, layer, count)) for order in orders]

    run(2), bottoms(2)
    rounds = [(run(steps + 1) - run(1), *bottoms(steps)) for _ in range(repeats)]
    step, plain, last = (1000 * statistics.median(column) / steps for column in zip(*rounds, strict=True))
    return {
        "step ms": round(step, 2), "floor ms": round(plain, 2), "floor, channels last, ms": round(last, 2),
        "ratio": round(statistics.median(r[0] / r[1] for r in rounds), 3),
        "ratio, channels last": round(statistics.median(r[0] / r[2] for r in rounds), 3),
    }  # fmt: skip


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pictures and few rounds, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--precision", default="float32", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "synthesis.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    size, steps, repeats = (64, 3, 2) if options.quick else (224, 8, options.repeats)
    cases = [dataclasses.replace(case, name=case.name or case.technique) for case in CASES]
    found = {
        f"{case.name}, {spec}": measure(case, spec, size, steps, repeats, options.precision)
        for case in cases for spec in SPECS if not options.only or options.only in case.name
    }  # fmt: skip
    settings = {"size": size, "steps": steps, "repeats": repeats, "precision": options.precision, "most": MOST,
                "threads": torch.get_num_threads(), "machine": platform.machine(), "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}  # fmt: skip
    print(json.dumps(found, indent=2))
    if not options.quick:
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(json.dumps({"settings": settings, "cases": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
