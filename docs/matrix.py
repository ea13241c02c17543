"""Every technique that looks into a network, on one network of each of torchvision's families, with random weights.

    python docs/make.py matrix                  # all of them: minutes
    python docs/make.py matrix resnet18         # some, into the same table

Each technique runs with as few steps as its tests take, on a picture of noise. What is asked is whether it runs and
gives finite numbers that are not all alike; not whether its picture makes sense. What does not work is a sentence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from convscope import registry
from convscope.errors import ConvscopeError
from convscope.matrix_test import cheap_draws, smallest
from convscope.network import Network
from convscope.registry import Technique
from convscope.zoo.torchvision_models import import_torchvision

FOUND = Path(__file__).parent / "matrix.json"
PAGE = Path(__file__).parent / "matrix.md"
NETWORKS = (
    "alexnet", "vgg11", "squeezenet1_1", "resnet18", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3",
    "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf",
    "convnext_tiny", "swin_t", "maxvit_t", "vit_b_16",
)  # fmt: skip
FEW = {"samples": 2, "steps": 2, "channels": 4, "units": 2, "rounds": 1, "stride": 16}
OWN_FILES = ("shape-bias", "humans")  # ask for files of one's own, and read only the scores
HEAD = """# Networks and techniques

Every technique that looks into a network, on one network of each of torchvision {torchvision}'s families. Weights are
random, pictures are the smallest that the network takes, and there are as few steps as possible: ✓ says that it runs
and gives numbers, not that its picture makes sense there. A number stands for a sentence below the table, which is what
convscope answers. On [all networks](networks.md) five things are tried.

"""


def asked(technique: Technique) -> bool:
    """Whether it looks into a network by itself."""
    return technique.takes_network and not technique.takes_index and technique.name not in OWN_FILES


def brief(technique: Technique) -> dict[str, Any]:
    """Options with which it takes little time."""
    names = {option.name for option in technique.options}
    few = {name: value for name, value in FEW.items() if name in names}
    return {**few, **technique.quick} if technique.name != "activations" else {}


def answer(technique: Technique, network: Network, images: torch.Tensor) -> str:
    """``works``, or the sentence that convscope says instead; any other exception is raised."""
    try:
        values = technique.on(network, images if technique.takes_images else None, **brief(technique)).values
    except ConvscopeError as error:
        return " ".join(str(error).split()).replace(network.name, "the network")
    known = values[values.isfinite()] if values.is_floating_point() else values
    if values.numel() == 1 or (known.numel() and known.max() > known.min()):
        return "works"
    return "it runs; with these random weights all its numbers are alike"


def examine(name: str) -> dict[str, Any]:
    """A network with what each technique answers."""
    network = smallest(f"torchvision:{name}")
    images = torch.rand(1, 3, *network.input_size, generator=torch.Generator().manual_seed(0))
    found = {}
    for technique in map(registry.load, registry.discover()):
        if asked(technique):
            start = time.perf_counter()
            with cheap_draws():
                found[technique.name] = answer(technique, network, images)
            if (took := time.perf_counter() - start) > 3:
                print(f"{name} {technique.name}: {took:.0f} s", flush=True)
    return {"side": network.input_size[0], "answers": found}


def page(found: Mapping[str, Any], torchvision: str) -> str:
    """The table, techniques down and networks across."""
    notes: list[str] = []
    families = {e.name: e.family for e in registry.discover().values()}
    techniques = dict.fromkeys(t for name in found for t in found[name]["answers"])
    lines = [["", *found], ["---"] + [":-:"] * len(found)]
    lines.append(["picture, px", *(str(found[name]["side"]) for name in found)])
    for technique in sorted(techniques, key=lambda t: list(families).index(t) if t in families else len(families)):
        marks = [_mark(found[name]["answers"].get(technique, ""), notes) for name in found]
        lines.append([f"[{technique}](techniques/{technique}.md)", *marks])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    said = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1))
    return HEAD.format(torchvision=torchvision) + table + "\n" + (f"\n{said}\n" if said else "")


def _mark(answer: str, notes: list[str]) -> str:
    if answer in ("works", ""):
        return "✓" if answer else ""
    if answer not in notes:
        notes.append(answer)
    return f"({notes.index(answer) + 1})"


def write(names: Sequence[str] = ()) -> None:
    """Run these networks, or all, and write the table."""
    torch.set_num_threads(1)
    kept = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {"networks": {}}
    kept["torchvision"] = import_torchvision().__version__.partition("+")[0]
    for name in names or NETWORKS:
        start = time.perf_counter()
        kept["networks"][name] = examine(name)
        kept["networks"] = {n: kept["networks"][n] for n in NETWORKS if n in kept["networks"]}
        FOUND.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(kept["networks"], kept["torchvision"]), encoding="utf-8")
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
