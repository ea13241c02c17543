"""A step of ``visualize`` against the bare forward and backward pass, and against lucent, in one run.

    python benchmarks/visualize.py              # SqueezeNet, ResNet-50 and VGG-16 at 224 px; random weights
    python benchmarks/visualize.py --quick

All maximise one channel of a layer from Fourier coefficients under the transforms of Olah et al. 2017, which make views
of 236 pixels of a picture of 224. The floor is the module's forward pass for one view, ended behind the layer, and one
``autograd.grad`` for the pixels with frozen weights, in float32: as one writes it, and with the view's colours next to
each other in memory, as ``optimize`` has them. Each round measures all in turn, so that a noisy machine is noisy for
all, and the median of the ratios counts; on a CPU times are those of one thread of the processor. Where the CPU does
not multiply bfloat16 numbers there is only float32, which is what ``--precision auto`` means there. At the end the
pictures' objectives are measured in float32, without transforms.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import convscope
from convscope.hooks import observe
from convscope.network import Network, fast_in_bfloat16
from convscope.objectives import channel
from convscope.optimize import optimize
from convscope.parameterizations import Fourier
from convscope.transforms import ROBUST, viewed

LAYERS = {"squeezenet1_0": "features.10", "resnet50": "layer3", "vgg16": "features.23"}


class Reached(Exception):
    """Ends a forward pass."""


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


def bare(module: nn.Module, part: nn.Module, images: Tensor, index: int) -> None:
    """Forward to the layer and back to the pixels, nothing else."""
    kept: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        kept.append(output)
        raise Reached

    handle = part.register_forward_hook(stop)
    pixels = images.clone().requires_grad_()
    with contextlib.suppress(Reached):
        module(pixels)
    handle.remove()
    torch.autograd.grad(kept[0][:, index].mean(), pixels)


def ours(network: Network, layer: str, index: int, size: int, steps: int) -> Tensor:
    """The picture after so many steps."""
    for step in optimize(
        network,
        channel(network, layer, index),
        Fourier(1, (size, size)).to(network.device),
        steps=steps,
        transforms=ROBUST,
    ):
        last = step
    return last.images


def theirs(module: nn.Module, layer: str, index: int, size: int, steps: int) -> Tensor:
    """The same by lucent."""
    from lucent.optvis import param, render, transform

    found = render.render_vis(
        module, f"{layer.replace('.', '_')}:{index}", lambda: param.image(size, fft=True, decorrelate=True),
        transforms=transform.standard_transforms, thresholds=(steps,), show_image=False, progress=False,
    )  # fmt: skip
    return torch.from_numpy(found[-1]).permute(0, 3, 1, 2)


def measure(name: str, layer: str, size: int, steps: int, repeats: int) -> dict[str, Any]:
    """Medians over the rounds of one network."""
    network = convscope.load_network(f"torchvision:{name}", weights="random", precision="float32")
    network.module.requires_grad_(False)
    drawn = torch.Generator().manual_seed(0)
    view = viewed(torch.rand(1, 3, size, size, generator=drawn), ROBUST, drawn)
    images = network.normalise(view.to(network.device))
    rough = dataclasses.replace(network, precision="auto").drawing
    part = network.module.get_submodule(layer)
    with torch.no_grad():  # of random weights, a channel that is not silent
        index = int(observe(network, images.clamp(0, 1), [layer])[layer].mean((0, 2, 3)).argmax())
    calls = {
        "floor": lambda: [bare(network.module, part, images, index) for _ in range(steps)],
        "floor, channels last": lambda: [
            bare(network.module, part, images.contiguous(memory_format=torch.channels_last), index)
            for _ in range(steps)
        ],
        "convscope, float32": lambda: ours(network, layer, index, size, steps),
        "lucent": lambda: theirs(network.module, layer, index, size, steps),
    }
    if rough.arithmetic == "bfloat16":
        calls["convscope, bfloat16"] = lambda: ours(rough, layer, index, size, steps)
    for call in calls.values():
        call()
    rounds = [{key: seconds(call) / steps for key, call in calls.items()} for _ in range(repeats)]
    mine = [key for key in calls if key.startswith("convscope")]
    return {
        "step ms": {key: round(1000 * statistics.median(r[key] for r in rounds), 2) for key in calls},
        "floors, float32": ratio(rounds, "convscope, float32", "floor"),
        "floors, channels last, float32": ratio(rounds, "convscope, float32", "floor, channels last"),
        **{key.replace("convscope", "times lucent"): ratio(rounds, "lucent", key) for key in mine},
        "objective": {
            key: reached(network, rough if "bf" in key else network, layer, index, size, 10 * steps) for key in mine
        },
    }


def ratio(rounds: list[dict[str, float]], over: str, under: str) -> float:
    """The median over the rounds."""
    return round(statistics.median(each[over] / each[under] for each in rounds), 3)


def reached(network: Network, drawing: Network, layer: str, index: int, size: int, steps: int) -> float:
    """The objective of the picture that ``drawing`` makes, measured in float32 and without transforms."""
    picture = ours(drawing, layer, index, size, steps)
    with torch.no_grad():
        return float(channel(network, layer, index)(observe(network, picture, [layer])))


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pictures and few rounds, to see that it runs")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "visualize.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    size, steps, repeats = (64, 3, 2) if options.quick else (224, 5, options.repeats)
    layers = dict(list(LAYERS.items())[:1]) if options.quick else LAYERS
    found: dict[str, Any] = {}
    settings = {
        "size": size, "steps": steps, "repeats": repeats, "threads": torch.get_num_threads(),
        "machine": platform.machine(), "torch": torch.__version__,
        "fast in bfloat16": fast_in_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }  # fmt: skip
    for name, layer in layers.items():
        if options.only not in name:
            continue
        found[name] = measure(name, layer, size, steps, repeats)
        print(name, json.dumps(found[name], indent=2), flush=True)
        if not options.quick:
            options.output.parent.mkdir(exist_ok=True)
            options.output.write_text(json.dumps({"settings": settings, "networks": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
