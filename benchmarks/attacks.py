"""PGD against its floor of bare passes forward and back, and against foolbox; in bfloat16 too where the CPU has it.

    python benchmarks/attacks.py           # builtin and SqueezeNet, random weights for the latter
    python benchmarks/attacks.py --quick

Each round times, in turn, so that a noisy machine is noisy for all: the floor (a forward pass, the cross-entropy and
one ``autograd.grad`` for the pixels a step, weights frozen), the attack of this package, foolbox's LinfPGD with the
same steps from the same start, and the attack in bfloat16. Reported are medians of the seconds and of the ratios of
each round. What is fooled is judged in float32 on the 8-bit pictures, whatever the attack computed in.

The floor and the attack take as many pictures a pass as the network likes (``network.at_once``); foolbox takes all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _plain import plainly
from torch import Tensor, nn
from torch.nn import functional as F

import convscope
from convscope.network import Network, fast_in_bfloat16
from convscope.techniques.robustness._attack import attack, logits_of, on_grid, quantised

SPECS: dict[str, dict[str, Any]] = {"builtin": {}, "torchvision:squeezenet1_0": {"weights": "random"}}
EPSILON, STEP = 8 / 255, 2 / 255


class Bare(nn.Module):
    """What foolbox takes: a module on pictures in [0, 1]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module, self._network = network.module, network

    def forward(self, images: Tensor) -> Tensor:
        with plainly():
            return self._network(images)


def floor(network: Network, images: Tensor, classes: Tensor, steps: int) -> None:
    """Nothing but the passes."""
    size = network.at_once(images)
    for part, goal in zip(images.split(size), classes.split(size), strict=True):
        for _ in range(steps):
            pixels = part.clone().requires_grad_()
            with plainly():
                loss = F.cross_entropy(network(pixels).float(), goal, reduction="sum")
            torch.autograd.grad(loss, pixels)


def by_foolbox(network: Network, images: Tensor, classes: Tensor, steps: int) -> Tensor:
    """Its attack, begun at the pictures."""
    import foolbox

    model = foolbox.PyTorchModel(Bare(network).eval(), bounds=(0, 1))
    made = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=STEP, random_start=False)
    return made.run(model, images, foolbox.criteria.Misclassification(classes), epsilon=EPSILON)


def ours(network: Network, images: Tensor, classes: Tensor, steps: int) -> Tensor:
    return attack(network, images, classes, epsilon=EPSILON, steps=steps, rate=STEP)


def seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def measure(spec: str, count: int, steps: int, repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds, ratios, and how many pictures each fools."""
    network = convscope.load_network(spec, precision="float32", **SPECS[spec])
    network.module.requires_grad_(False)
    drawn = torch.rand(count, 3, *network.input_size, generator=torch.Generator().manual_seed(0))
    images = on_grid(drawn.to(network.device))
    classes = logits_of(network, images).argmax(1).to(network.device)
    half = dataclasses.replace(network, precision="bfloat16") if fast_in_bfloat16(network.device) else None
    runs: dict[str, Callable[[], Any]] = {
        "floor": lambda: floor(network, images, classes, steps),
        "convscope": lambda: ours(network, images, classes, steps),
        "foolbox": lambda: by_foolbox(network, images, classes, steps),
        **({"convscope bfloat16": lambda: ours(half, images, classes, steps)} if half else {}),
    }
    made = {name: run() for name, run in runs.items()}  # also warms up
    fooled = {
        name: int((logits_of(network, quantised(images, found, EPSILON, "linf")).argmax(1) != classes.cpu()).sum())
        for name, found in made.items() if found is not None
    }  # fmt: skip
    rounds = [{name: seconds(run, clock) for name, run in runs.items()} for _ in range(repeats)]
    return {
        "seconds": {name: round(statistics.median(r[name] for r in rounds), 3) for name in runs},
        "of the floor": {
            name: round(statistics.median(r[name] / r["floor"] for r in rounds), 3) for name in runs if name != "floor"
        },
        "times as fast as foolbox": {
            name: round(statistics.median(r["foolbox"] / r[name] for r in rounds), 2)
            for name in runs if name.startswith("convscope")
        },
        "fooled, judged in float32": fooled,
        "largest difference from foolbox": float((made["convscope"] - made["foolbox"]).abs().max()),
        "pictures a pass": network.at_once(images),
    }  # fmt: skip


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pictures, steps and rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "attacks.json")
    parser.add_argument("--busy", action="store_true", help="the processor's time on one thread, for a busy machine")
    options = parser.parse_args()
    if options.busy:
        torch.set_num_threads(1)
    clock = time.process_time if options.busy else time.perf_counter
    count, steps, repeats = (2, 2, 1) if options.quick else (4, 3, 3) if options.busy else (4, 5, 5)
    settings = {
        "pictures": count, "steps": steps, "repeats": repeats, "epsilon": EPSILON, "step": STEP,
        "clock": "processor" if options.busy else "wall", "threads": torch.get_num_threads(),
        "machine": platform.machine(), "torch": torch.__version__,
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }  # fmt: skip
    found: dict[str, Any] = {}
    for spec in SPECS:
        found[spec] = measure(spec, count, steps, repeats, clock)
        print(json.dumps({spec: found[spec]}, indent=2), flush=True)
        if not options.quick:
            options.output.parent.mkdir(exist_ok=True)
            options.output.write_text(json.dumps({"settings": settings, "cases": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
