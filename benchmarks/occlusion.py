"""Occlusion, 16 px window, stride 8: ours against captum's and against full passes, in one run.

python benchmarks/occlusion.py                      all windows of 224 px on VGG-16, ResNet-50 and SqueezeNet; minutes
python benchmarks/occlusion.py --network resnet50   the speed of one, into the same file; also --memory, --photographs
python benchmarks/occlusion.py --quick              a few windows of a small picture on SqueezeNet; seconds

SqueezeNet has its published weights where they lie beside the project (../shared/models). The others' are random, with
batch norms that have the statistics of some noise: with none, as they are made, ResNet-50 turns the trace of a window
into 0.15 of scores of 38, where float32 itself ends. The picture is noise; neither changes the arithmetic. captum runs
with one window an evaluation or with 32, whichever number of pictures a pass is faster. Full passes and passes in
float64 are made for every 27th window. Also measured: the same in bfloat16 where the processor multiplies such numbers,
the rank correlation of its map with that in float32 on photographs, and the peak memory over many windows, in a process
of its own.

Seconds depend on the machine and on what else it does, ratios far less. Both clocks are kept: the wall, and the time
that the process's threads computed, which another process hardly changes; threads that wait sleep, so it counts no
idling.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from captum.attr import Occlusion
from torch import Tensor, nn

import convscope
from convscope.images import read_image
from convscope.memory import give_back
from convscope.network import Network
from convscope.perturb import Variations
from convscope.reporting import photographs
from convscope.techniques.attribute.occlusion import boxes, positions
from convscope.zoo.torchvision_models import blueprint

RESULTS = Path(__file__).parent / "results" / "occlusion.json"
SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "models" / "squeezenet1_0_imagenet.safetensors"
NETWORKS = {"vgg16": 10.0, "resnet50": 2.2, "squeezenet1_0": 6.0}  # and how many times captum's speed is wanted
MANY = (8, 4, 2)  # strides at which memory is looked at: 729, 2,809 and 11,025 windows
WINDOW, STRIDE = 16, 8
EVERY = 27  # windows of which one gets full passes
MORE = 2  # photographs of the test split of Caltech-101, beside the free ones that packages bring
AT_ONCE = (1, 32)  # captum's perturbations_per_eval
BFLOAT16 = [n for n in ("amx_tile", "avx512_bf16") if getattr(torch.cpu, f"_is_{n}_supported", bool)()]

Seconds = dict[str, float]
"""By the wall and of computing."""


def main() -> None:
    options = parsed()
    if options.threads:
        torch.set_num_threads(options.threads)
    size = options.size or (96 if options.quick else 224)
    if options.alone:
        print(json.dumps(memory(options.alone, size, options.stride[0])))
        return
    report = json.loads(options.output.read_text()) if options.output.exists() and not options.quick else {}
    report |= {"window": WINDOW, "stride": STRIDE, "size": size, "quick": options.quick, "machine": machine()}
    networks = report.setdefault("networks", {})
    everything = not (options.network or options.photographs or options.memory)
    known = ["squeezenet1_0"] if options.quick else list(NETWORKS)
    for name in options.network or (known if everything else []):
        networks[name] = {**measured(name, size), "memory": networks.get(name, {}).get("memory", {})}
        told(name, networks[name], report, options)
    for name in options.memory or (known if everything else []):
        for stride in options.stride or ([8] if options.quick else MANY):
            rows = networks.setdefault(name, {}).setdefault("memory", {})
            rows[f"stride {stride}"] = apart(name, size, stride)
            told(name, rows[f"stride {stride}"], report, options)
    if options.photographs or (everything and not options.quick):
        report["bfloat16 on photographs"] = rounded()
        told("bfloat16", report["bfloat16 on photographs"], report, options)


def told(name: str, found: dict[str, Any], report: dict[str, Any], options: argparse.Namespace) -> None:
    """What was found last is printed, and all kept, so that a long run may be cut short."""
    print(name, json.dumps(found), flush=True)
    if not options.quick:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few windows on one small network; nothing is written")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="the speed of this one only; again")
    parser.add_argument("--memory", action="append", choices=list(NETWORKS), help="the memory of this one only; again")
    parser.add_argument("--photographs", action="store_true", help="only the rank correlation of maps in bfloat16")
    parser.add_argument("--stride", type=int, action="append", help="of the windows, with --memory; again")
    parser.add_argument("--alone", choices=list(NETWORKS), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help="side of the picture in pixels")
    parser.add_argument("--threads", type=int, help="threads that torch may use")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "bfloat16 by": BFLOAT16}


# ---- speed


def measured(name: str, size: int) -> dict[str, Any]:
    network, image, fill = setting(name, size)
    places = windows(size, STRIDE)
    some = list(range(0, len(places), EVERY))
    at_once = min(AT_ONCE, key=lambda n: pass_of(network, image.expand(n, -1, -1, -1)) / n)
    ours, outcome = timed(lambda: Variations(network).of(image, places, fill))
    theirs = captums(network, image, at_once)
    full, expected = timed(
        lambda: Variations(network, incremental=False).of(image, [places[i] for i in some], fill).logits
    )
    full = {clock: round(taken * len(places) / len(some), 3) for clock, taken in full.items()}
    exact = replace(network, module=copy.deepcopy(network.module).double())
    true = Variations(exact, incremental=False).of(image.double(), [places[i] for i in some], fill.double())
    drop = float((true.logits - true.clean).abs().max())

    def off(found: Tensor, wanted: Tensor) -> float:
        return float(f"{float((found.double() - wanted.double()).abs().max()) / drop:.2g}")

    return {
        "weights": network.weights, "windows": len(places), "engine": outcome.engine,
        "captum's windows an evaluation": at_once,
        "seconds": {"ours": ours, "full passes": full, "captum": theirs},
        "times captum": ratio(theirs, ours), "times captum wanted": NETWORKS[name],
        "times full passes": ratio(full, ours), "arithmetic": round(1 / (1 - outcome.saved), 2),
        **(in_bfloat16(network, image, places, fill, theirs) if BFLOAT16 else {}),
        "largest difference, of the largest drop": {
            "ours from full passes": off(outcome.logits[some], expected),
            "ours from full passes in float64": off(outcome.logits[some], true.logits),
            "full passes from full passes in float64": off(expected, true.logits),
        },
    }  # fmt: skip


def in_bfloat16(network: Network, image: Tensor, places: list[Any], fill: Tensor, theirs: Seconds) -> dict[str, Any]:
    taken, outcome = timed(lambda: Variations(replace(network, precision="bfloat16")).of(image, places, fill))
    return {
        "bfloat16 seconds": taken, "bfloat16 times captum": ratio(theirs, taken), "bfloat16 engine": outcome.engine,
    }  # fmt: skip


def setting(name: str, size: int) -> tuple[Network, Tensor, Tensor]:
    torch.manual_seed(0)
    if name == "squeezenet1_0" and WEIGHTS.exists():
        network = convscope.load_network(f"torchvision:{name}", weights=str(WEIGHTS))
        network = replace(network, weights="published", input_size=(size, size))
    else:
        module = calibrated(blueprint(name, (size, size)).build(None).requires_grad_(False), size)
        network = Network(module, name=name, input_size=(size, size), weights="random")
    image = torch.rand(3, size, size)
    network(image[None])  # warm
    return network, image, torch.zeros(3, 1, 1)


def calibrated(module: nn.Module, size: int) -> nn.Module:
    """With the batch norms' statistics over some noise, layer behind layer."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in norms:
        part.momentum = None  # the plain mean
    if norms:
        with torch.no_grad():
            module.train()(torch.randn(4, 3, size, size))
    return module.eval()


def windows(size: int, stride: int) -> list[Any]:
    return boxes(positions((size, size), (WINDOW, WINDOW), (stride, stride)), (WINDOW, WINDOW))


def ratio(slow: Seconds, fast: Seconds) -> Seconds:
    return {clock: round(slow[clock] / fast[clock], 2) for clock in slow}


def timed(run: Callable[[], Any]) -> tuple[Seconds, Any]:
    start, computed = time.perf_counter(), time.process_time()
    result = run()
    wall, computing = time.perf_counter() - start, time.process_time() - computed
    return {"wall": round(wall, 3), "computing": round(computing, 3)}, result


def pass_of(network: Network, images: Tensor) -> float:
    """Seconds of computing of the faster of two passes."""
    with torch.no_grad():
        return min(timed(lambda: network(images))[0]["computing"] for _ in range(2))


def captums(network: Network, image: Tensor, at_once: int) -> Seconds:
    """Of captum's Occlusion for the same windows and one class."""
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


# ---- memory


def apart(name: str, size: int, stride: int) -> dict[str, Any]:
    """Peak memory in a process that does nothing else."""
    command = [sys.executable, __file__, "--alone", name, "--size", str(size), "--stride", str(stride)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory(name: str, size: int, stride: int) -> dict[str, Any]:
    network, image, fill = setting(name, size)
    loading = megabytes("VmHWM")
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is resident now
    before, start = megabytes("VmRSS"), time.perf_counter()
    places = windows(size, stride)
    Variations(network).of(image, places, fill, read=lambda logits: logits[:, 0])
    return {
        "windows": len(places), "stride": stride, "megabytes at the peak of making the network": loading,
        "megabytes with the network loaded and run once": before, "megabytes at the peak": megabytes("VmHWM"),
        "below 2 GB": megabytes("VmHWM") < 2000, "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def megabytes(what: str) -> int:
    """Resident size of this process: now, or its largest; getrusage would count in who started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) * 1024 // 10**6


# ---- bfloat16


def rounded() -> dict[str, Any]:
    """Rank correlation of the maps in bfloat16 with those in float32; empty where the weights are missing."""
    if not WEIGHTS.exists():
        return {}
    network = convscope.load_network("torchvision:squeezenet1_0", weights=str(WEIGHTS))
    coarse = replace(network, precision="bfloat16")
    found = {}
    for name, photograph in shown().items():
        image = network.prepare(photograph)[None]
        exact = convscope.occlusion(network, image, window=WINDOW, stride=STRIDE)
        target = exact.summaries[0]["target"]["index"]
        same = convscope.occlusion(coarse, image, target=target, window=WINDOW, stride=STRIDE)
        found[name] = correlation(exact.cells, same.cells)
        print(name, found[name], flush=True)
    values = sorted(found.values())
    return {"lowest": values[0], "median": values[len(values) // 2], "wanted": 0.97, "each": found}


def shown() -> dict[str, Tensor]:
    """The free photographs of packages, and some of Caltech-101, of different classes."""
    found = {name: read_image(path) for name, path in photographs()}
    file = SHARED / "data" / "caltech101" / "test.tar"
    if file.exists():
        with tarfile.open(file) as archive:
            members = sorted((m for m in archive if m.name.endswith(".jpg")), key=lambda m: m.name)
            for member in members[::164][:MORE]:
                handle = archive.extractfile(member)
                assert handle is not None
                found[member.name] = read_image(handle.read())
    return found


def correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's."""
    ranks = torch.stack([values.flatten().argsort().argsort().double() for values in (first, second)])
    return round(float(torch.corrcoef(ranks)[0, 1]), 4)


if __name__ == "__main__":
    main()
