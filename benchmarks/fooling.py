"""How often networks are fooled at which budget, judged on 8-bit files: one photograph of each folder of classes.

    python benchmarks/fooling.py FOLDER --network builtin
    python benchmarks/fooling.py FOLDER --network torchvision:squeezenet1_0 --weights FILE

Writes ``benchmarks/results/fooling.json`` and goes on from what is there. A photograph is fooled when the network
says another class about the file than about the photograph, whichever that was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import convscope
from convscope.images import find_images, read_image
from convscope.intervals import proportion

LEVELS = (1, 2, 4, 8)
ATTACKS = {"fgsm": {}, "pgd": {"steps": 10}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="builtin")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "fooling.json")
    options = parser.parse_args()
    network = convscope.load_network(options.network, weights=options.weights)
    folders = sorted(path for path in options.folder.iterdir() if path.is_dir())[: options.limit]
    images = torch.stack([network.prepare(read_image(find_images(folder)[0])) for folder in folders])
    found = json.loads(options.output.read_text()) if options.output.is_file() else {}
    if network.name == "builtin" and "clean" not in found:
        right = sum(
            network.label(int(best)) == folder.name
            for best, folder in zip(convscope.classify(network, images).values.argmax(1), folders, strict=True)
        )
        found["clean"] = {"builtin": {"right": right, "of": len(images)}}
    for level in LEVELS:
        for name, chosen in ATTACKS.items():
            case = f"{network.name}, {name}, {level}/255"
            if case in found:
                continue
            result = getattr(convscope, name)(network, images, epsilon=level / 255, **chosen)
            share = proportion(sum(result.success), len(images))
            found[case] = {
                "fooled": sum(result.success), "of": len(images), "low": round(share.low, 3),
                "high": round(share.high, 3), "largest change": max(s["linf"] for s in result.summaries),
                "attacked in": network.drawing.arithmetic,
            }  # fmt: skip
            options.output.write_text(json.dumps(found, indent=2) + "\n")
            print(case, found[case], flush=True)


if __name__ == "__main__":
    main()
