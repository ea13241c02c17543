"""How many classes of the built-in network it sees in the pictures that ``visualize`` makes of them.

    python benchmarks/classes.py            # all hundred under the default preset, a quarter of an hour
    python benchmarks/classes.py --go-on    # after a stop: those that the file does not hold yet
    python benchmarks/classes.py --quick    # four of them, small and in a few steps

Each picture is rounded to eight bits and written as a PNG file, the file is read again, scaled to the network's input
and classified by a fresh forward pass in float32. A class counts where it has the largest score.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

import convscope
from convscope.images import fit, read_image
from convscope.network import Network
from convscope.techniques.synthesize._run import eight_bit

RESULTS = Path(__file__).parent / "results" / "classes.json"


def seen(network: Network, target: int, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What the network makes of the file of one class's picture."""
    from PIL import Image

    made = convscope.visualize(network, target=target, **options)
    path = folder / f"{target}.png"
    Image.fromarray(eight_bit(made.values)[0].permute(1, 2, 0).numpy()).save(path)
    with torch.no_grad():
        scores = network.exact(fit(read_image(path), network.input_size)[None])[0]
    best = int(scores.argmax())
    return {
        "class": network.label(target), "seen": network.label(best), "right": best == target,
        "probability": round(float(scores.softmax(0)[target]), 4),
    }  # fmt: skip


def main() -> None:
    """Count and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four classes, few steps")
    parser.add_argument("--preset", default="crops", help="of visualize")
    parser.add_argument("--go-on", action="store_true", help="keep what the output file holds, with the same code")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = convscope.load_network("builtin")
    chosen = [0, 30, 60, 90] if options.quick else range(network.classes)
    asked: dict[str, Any] = {"preset": options.preset, **({"steps": 16, "size": 128} if options.quick else {})}
    found = json.loads(options.output.read_text())["classes"] if options.go_on and options.output.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen[len(found) :]:
            found.append(seen(network, target, Path(folder), asked))
            print(found[-1], flush=True)
            if not options.quick:
                options.output.write_text(json.dumps(report(options.preset, found), indent=2) + "\n")
    print(f"{sum(each['right'] for each in found)} of {len(found)}")


def report(preset: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What the file holds."""
    return {
        "preset": preset, "right": sum(each["right"] for each in found), "of": len(found),
        "smallest probability": min(each["probability"] for each in found),
        "machine": platform.machine(), "torch": torch.__version__, "classes": found,
    }  # fmt: skip


if __name__ == "__main__":
    main()
