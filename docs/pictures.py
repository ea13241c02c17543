"""Write the pictures of made-pictures.md into docs/gallery/.

    python docs/pictures.py            # all of them (minutes)
    python docs/pictures.py dream      # some

The photographs are those that come with scikit-image, and the painting is made by a program, so that nothing here
belongs to somebody else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor
from torch.nn import functional as F

import convscope
from convscope.images import resize, to_uint8
from convscope.results import contact_sheet
from convscope.techniques.synthesize._art import swirls

GALLERY = Path(__file__).parent / "gallery"


def photograph(name: str, side: int) -> Tensor:
    """(3, h, w) with a longer side of ``side``."""
    image = torch.from_numpy(np.ascontiguousarray(getattr(data, name)()[..., :3])).permute(2, 0, 1).float() / 255
    share = side / max(image.shape[1:])
    return resize(image, (round(image.shape[1] * share), round(image.shape[2] * share)))


def write(name: str, pictures: Sequence[Tensor], columns: int) -> None:
    """A sheet of pictures (3, h, w) of one size."""
    sheet = contact_sheet(to_uint8(torch.stack(list(pictures))), columns)
    Image.fromarray(sheet).save(GALLERY / f"made-{name}.webp", quality=86, method=6)
    print(name)


def stylize() -> None:
    photographs = [photograph(name, 320)[:, :208, :320] for name in ("coffee", "chelsea", "rocket")]
    photographs.append(F.pad(photograph("astronaut", 320), (0, 0, -30, -82)))
    rows = [photographs, *([convscope.stylize(p, style=s).values[0] for p in photographs]
                           for s in ("starry-night", "the-scream"))]  # fmt: skip
    write("stylize", [picture for row in rows for picture in row], 4)


def style() -> None:
    content, painting = photograph("coffee", 256), swirls(256)
    height, width = content.shape[1:]
    made = [convscope.style("builtin", content, style=painting, beta=beta, steps=40).values[0] for beta in (2, 20, 200)]
    write("style", [content, resize(painting, (width, width))[:, :height], *made], 5)


def texture() -> None:
    sample = swirls(128)
    strip = convscope.texture("builtin", sample, strip=True, size="128,192", steps=60, colours=20).values
    write("texture", [F.pad(sample, (32, 32, 0, 0), value=1), *strip[1:]], 4)


def neighbour() -> None:
    found = []
    for name in ("brick", "grass", "gravel"):
        grey = torch.from_numpy(getattr(data, name)()[:256, :256]).float().expand(3, -1, -1) / 255
        sample = resize(grey, (64, 64))
        found.append(F.pad(sample, (32, 32, 32, 32), value=1))
        found.append(convscope.texture("builtin", sample, method="neighbour", size=128).values[0])
    write("neighbour", found, 6)


def dream() -> None:
    image = photograph("astronaut", 256)
    made = [convscope.dream("builtin", image, layer=layer).values[0] for layer in ("relu2_2", "relu3_2", "relu4_3")]
    write("dream", [image, *made], 4)


MADE = {"stylize": stylize, "style": style, "texture": texture, "neighbour": neighbour, "dream": dream}

if __name__ == "__main__":
    for name in sys.argv[1:] or MADE:
        MADE[name]()
