"""Saliency and Grad-CAM against the bare forward and backward pass, and against captum, in one run.

    python benchmarks/attribution.py            # ResNet-50, VGG-16, SqueezeNet; 224 px; random weights
    python benchmarks/attribution.py --quick

Each measured call is interleaved with its floor, so that a noisy machine is noisy for both; the median of the ratios
is reported. The floor of saliency is one forward pass and one ``autograd.grad`` for the picture with frozen weights;
that of Grad-CAM a forward pass and the backward pass to the layer. captum gets frozen weights too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import GuidedBackprop, LayerGradCam, Saliency
from torch import Tensor, nn

import convscope
from convscope.network import Network

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


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratios(floor: Callable[[], object], calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median over ``repeats`` of each call's time over the floor's in the same round."""
    for call in (floor, *calls.values()):
        call()
    rounds = []
    for _ in range(repeats):
        base = (seconds(floor) + seconds(floor)) / 2
        rounds.append({"floor seconds": base, **{name: seconds(call) / base for name, call in calls.items()}})
    return {name: round(statistics.median(r[name] for r in rounds), 4) for name in rounds[0]}


def measure(name: str, layer: str, batch: int, size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Ratios of one network."""
    network = convscope.load_network(f"torchvision:{name}", weights="random")
    network.module.requires_grad_(False)
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    target = network(images).argmax(1)
    chosen = target.tolist()
    part = network.module.get_submodule(layer)
    prepared = network.normalise(images)
    return {
        "saliency": ratios(
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
        "gradcam": ratios(
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


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pictures and few rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "attribution.json")
    options = parser.parse_args()
    size, batch, repeats = (64, 1, 3) if options.quick else (224, 4, 9)
    found = {name: measure(name, layer, batch, size, repeats) for name, layer in SPECS.items()}
    settings = {"size": size, "batch": batch, "repeats": repeats, "threads": torch.get_num_threads(),
                "machine": platform.machine(), "torch": torch.__version__}  # fmt: skip
    print(json.dumps(found, indent=2))
    if not options.quick:
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(json.dumps({"settings": settings, "ratios": found}, indent=2) + "\n")


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore", category=UserWarning, module="captum")
    main()
