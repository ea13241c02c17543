"""Write the pictures of made-pictures.md, and that of report.md, into docs/gallery/.

    python docs/pictures.py            # all of them (minutes)
    python docs/pictures.py dream      # some
    python docs/pictures.py report     # the beginning of a report on the free photographs, drawn by Chromium (minutes)

The photographs are those that come with scikit-image, and the painting is made by a program, so that nothing here
belongs to somebody else.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
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
from convscope.reporting import photographs
from convscope.results import contact_sheet
from convscope.techniques.synthesize._art import swirls

GALLERY = Path(__file__).parent / "gallery"
WIDE = 1240  # pixels of the window in which a report is shown


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
    given = [photograph(name, 320)[:, :208, :320] for name in ("coffee", "chelsea", "rocket")]
    given.append(F.pad(photograph("astronaut", 320), (0, 0, -30, -82)))
    rows = [given, *([convscope.stylize(p, style=s).values[0] for p in given]
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


def report() -> None:
    """What a browser shows of a report on all free photographs, down to the maps of two methods on the first."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(shutil.copy(path, Path(folder) / f"{name}{path.suffix}")) for name, path in photographs()]
        page_file = convscope.report(files, Path(folder) / "report.html")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDE, "height": 900}, color_scheme="light")
            page.goto(page_file.as_uri())
            page.add_style_tag(content="nav, .facts { display: none }")  # the contents fill a screen
            bottom = page.locator(".method").nth(1).evaluate("each => each.getBoundingClientRect().bottom + scrollY")
            clip = {"x": 0, "y": 0, "width": WIDE, "height": bottom + 20}
            picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
            browser.close()
    picture.convert("RGB").save(GALLERY / "report.webp", quality=84, method=6)
    print("report", picture.size)


MADE = {"stylize": stylize, "style": style, "texture": texture, "neighbour": neighbour, "dream": dream,
        "report": report}  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv[1:] or MADE:
        MADE[name]()
