"""Gradient methods against the bare passes that they cannot do without, and against captum, in one run.

    python benchmarks/attribution.py                      # ResNet-50, VGG-16, SqueezeNet; 224 px; random weights
    python benchmarks/attribution.py --network resnet50   # one of them, into the same file
    python benchmarks/attribution.py --quick

Each measured call is interleaved with its floor, so that a noisy machine is noisy for both; the median of the ratios
is reported, by the wall clock and by the time that the process's threads computed. The floor of saliency is one
forward pass and one ``autograd.grad`` for the picture with frozen weights; that of Grad-CAM a forward pass and the
backward pass to the layer; that of integrated gradients and SmoothGrad as many forward and backward passes as they take
points, at the number of pictures a pass that is fastest here. captum gets frozen weights and that number, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Collection
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from captum.attr import GuidedBackprop, IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from torch import Tensor, nn

import convscope
from convscope.network import Network

PARTS = ("path", "saliency", "gradcam")
PATHS = 2  # rounds of what takes many passes
SPECS = {"resnet50": "layer4", "vgg16": "features.29", "squeezenet1_0": "features.12"}


def saliency_floor(network: Network, images: Tensor) -> None:
    """One forward and one backward pass to the pixels."""
    images = images.clone().requires_grad_()
    torch.autograd.grad(network.module(network.normalise(images)).amax(1).sum(), images)


def gradcam_floor(network: Network, images: Tensor, layer: str) -> None:
    """One forward pass, of which only the part behind the layer keeps a graph, and the backward pass to it."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return kept[0] * 1

    handle = network.module.get_submodule(layer).register_forward_hook(keep)
    with torch.no_grad():
        score = network.module(network.normalise(images)).amax(1).sum()
        handle.remove()
    torch.autograd.grad(score, kept)


def path_floor(network: Network, image: Tensor, points: int, at_once: int) -> None:
    """Forward and backward passes over ``points`` pictures."""
    for images in image.expand(points, -1, -1, -1).split(at_once):
        saliency_floor(network, images)


def fastest(network: Network, image: Tensor) -> int:
    """How many pictures a forward and backward pass should hold."""
    sizes = (1, 2, 4, 8, 16)
    taken = {
        n: min(seconds(lambda n=n: path_floor(network, image, n, n))[1] for _ in range(1 + 4 // n)) / n for n in sizes
    }
    return min(sizes, key=lambda n: taken[n])


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Of one call: by the wall, and of computing."""
    start, computed = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - computed


def ratios(floor: Callable[[], object], calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, object]:
    """Median over ``repeats`` of each call's time over the floor's just before and after."""
    for call in (floor, *calls.values()) if repeats > PATHS else ():  # long calls are not warmed by themselves
        call()
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    floors = [seconds(floor)]
    for _ in range(repeats):
        for name, call in calls.items():
            taken = seconds(call)
            floors.append(seconds(floor))
            rounds[name].append(tuple(t / (a + b) * 2 for t, a, b in zip(taken, *floors[-2:], strict=True)))
    found: dict[str, object] = {name: medians(pairs) for name, pairs in rounds.items()}
    return {"floor seconds": medians(floors), **found}


def medians(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Of both clocks."""
    return {
        clock: round(statistics.median(values), 3)
        for clock, values in zip(("wall", "computing"), zip(*pairs, strict=True), strict=True)
    }


def measure(
    name: str, layer: str, batch: int, size: int, points: int, repeats: int, parts: Collection[str]
) -> dict[str, object]:
    """Ratios of one network, of those parts of it."""
    network = convscope.load_network(f"torchvision:{name}", weights="random")
    network.module.requires_grad_(False)
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(network.device)
    target = network(images).argmax(1)
    chosen = target.tolist()
    part = network.module.get_submodule(layer)
    prepared = network.normalise(images)
    image, first, only = images[:1], prepared[:1], target[:1]
    at_once = fastest(network, image) if "path" in parts else 0
    convscope.integrated_gradients(network, image, steps=1)  # imported and run once
    convscope.smoothgrad(network, image, samples=1)
    found: dict[str, Callable[[], object]] = {
        "points on a path": lambda: points,
        "pictures a pass on a path": lambda: at_once,
        "path": lambda: ratios(
            lambda: path_floor(network, image, points, at_once),
            {
                "convscope integrated-gradients": lambda: convscope.integrated_gradients(
                    network, image, target=chosen[:1], steps=points
                ),
                "captum IntegratedGradients": lambda: IntegratedGradients(network.module).attribute(
                    first, target=only, n_steps=points, internal_batch_size=at_once
                ),
                "convscope smoothgrad": lambda: convscope.smoothgrad(network, image, target=chosen[:1], samples=points),
                "captum NoiseTunnel": lambda: NoiseTunnel(Saliency(network.module)).attribute(
                    first.clone().requires_grad_(),
                    target=only,
                    nt_samples=points,
                    nt_samples_batch_size=at_once,
                    stdevs=0.15,
                    abs=False,
                ),
            },
            PATHS,
        ),
        "saliency": lambda: ratios(
            lambda: saliency_floor(network, images),
            {
                "convscope saliency": lambda: convscope.saliency(network, images, target=chosen),
                "captum Saliency": lambda: Saliency(network.module).attribute(
                    prepared.clone().requires_grad_(), target
                ),
                "convscope saliency, guided": lambda: convscope.saliency(network, images, target=chosen, rule="guided"),
                "captum GuidedBackprop": lambda: GuidedBackprop(network.module).attribute(
                    prepared.clone().requires_grad_(), target
                ),
            },
            repeats,
        ),
        "gradcam": lambda: ratios(
            lambda: gradcam_floor(network, images, layer),
            {
                "convscope gradcam": lambda: convscope.gradcam(network, images, target=chosen, layer=layer),
                "captum LayerGradCam": lambda: LayerGradCam(network.module, part).attribute(
                    prepared.clone().requires_grad_(), target
                ),
            },
            repeats,
        ),
    }
    return {name: measured() for name, measured in found.items() if any(part in name for part in parts)}


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pictures and few rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "attribution.json")
    parser.add_argument("--network", action="append", choices=list(SPECS), help="only this one; may be repeated")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    parser.add_argument("--points", type=int, default=50, help="on a path, and samples of SmoothGrad")
    options = parser.parse_args()
    size, batch, points, repeats = (64, 1, 4, 3) if options.quick else (224, 4, options.points, 6)
    known = json.loads(options.output.read_text())["ratios"] if options.output.exists() else {}
    for name in options.network or SPECS:
        measured = measure(name, SPECS[name], batch, size, points, repeats, options.part or PARTS)
        known[name] = {**known.get(name, {}), **measured}
        print(name, json.dumps(known[name]), flush=True)
    settings = {"size": size, "batch": batch, "repeats": repeats,
                "threads": torch.get_num_threads(), "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}  # fmt: skip
    if not options.quick:
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(json.dumps({"settings": settings, "ratios": known}, indent=2) + "\n")


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore", category=UserWarning, module="captum")
    main()
