"""Write the generated pages: a page a technique, the pictures of the gallery and of the guide, the table of networks.

    python docs/make.py               # gallery pictures and technique pages; with names, of these techniques only
    python docs/make.py pages         # the technique pages again, from the pictures and costs that are there
    python docs/make.py guide         # run the guide and keep its pictures; with names, of these pages only
    python docs/make.py explorer      # pictures of the explorer, in Chromium
    python docs/make.py maps          # all heat maps of one photograph beside each other (minutes)
    python docs/make.py networks      # the table of networks, by running them (minutes)
    python docs/make.py matrix        # the table of networks and techniques, by running them (minutes)
    python docs/make.py benchmarks    # print the tables that the page of benchmarks gets when it is built

Everything comes from the registry and from running the code, and a warning ends it. Tests compare the pages with the
registry, and the code of the guide with the code that made its pictures.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import walk

import convscope
from convscope import registry
from convscope.evaluate.cost import passes
from convscope.evaluate.sheet import beside, examples
from convscope.example import LABELS, SHOWN, example, shapes
from convscope.images import read_image
from convscope.index import Index
from convscope.network import Network
from convscope.registry import Technique
from convscope.reporting import photographs
from convscope.reporting.recipe import call, command
from convscope.reporting.samples import parts_of
from convscope.results import Result

DOCS = Path(__file__).parent
GALLERY, PAGES, GUIDE = DOCS / "gallery", DOCS / "techniques", DOCS / "guide" / "pictures"
MADE = "made.json"  # of the pictures in a folder: what made them, and what it cost
SHOTS = ("cat", "coffee")  # the photographs on the pages of techniques
WIDEST = 1400  # pixels of a picture
# What needs files of one's own has another command on its page than the one that made its picture.
OWN = {
    "shape-bias": "convscope shape-bias --shapes PHOTOGRAPHS/ -o shape-bias.png",
    "humans": "convscope humans --responses ANSWERS.csv --pictures PHOTOGRAPHS/ -o humans.png",
}


# ---- running


def pictures(network: Network) -> torch.Tensor:
    """Two of the free photographs."""
    chosen = dict(photographs())
    return torch.stack([network.prepare(read_image(chosen[name])) for name in SHOTS])


@functools.cache
def asked() -> Index:
    """The index of made-up pictures that questions on a data set are shown on."""
    return example(tempfile.mkdtemp())


@functools.cache
def builtin() -> Network:
    return convscope.load_network("builtin")


def answers() -> dict[str, Any]:
    """What two invented people said of made-up pictures, as ``humans`` takes it: one errs often, one seldom."""
    given = shapes(30, seed=2)
    rows = []
    for person, every in (("ann", 3), ("bob", 10)):
        for number, truth in enumerate(given.labels.tolist()):
            said = LABELS[(truth + (number % every == 0)) % len(LABELS)]
            rows.append({
                "subj": person, "session": 1, "trial": number, "rt": 1.0, "object_response": said,
                "category": LABELS[truth], "condition": "0", "imagename": f"{number:02d}.png",
            })  # fmt: skip
    return {"responses": rows, "pictures": {f"{number:02d}.png": image for number, image in enumerate(given.images)}}


def conflicts() -> dict[str, Any]:
    """What ``shape-bias`` takes to make two pictures of two photographs and decide on them: only to see what it costs,
    since what is in the photographs is none of the network's classes."""
    folder = Path(tempfile.mkdtemp())
    for label, (name, path) in zip(("cougar_face", "cup"), [p for p in photographs() if p[0] in SHOTS], strict=True):
        (folder / label).mkdir()
        shutil.copy(path, folder / label / f"{name}{path.suffix}")
    return {"shapes": folder, "limit": 2}


def options(technique: Technique) -> Mapping[str, Any]:
    """Those of its picture."""
    return answers() if technique.name == "humans" else technique.example


@functools.cache
def many() -> torch.Tensor:
    """Parts of all free photographs, for what takes dozens of pictures."""
    return torch.cat([parts_of(builtin(), read_image(path)) for _, path in photographs()])


def subject(technique: Technique) -> tuple[Network | None, torch.Tensor | None, Index | None, str]:
    """What it runs on, and how the page calls that: the built-in network and photographs, where these will do."""
    if technique.together:
        return builtin(), many(), None, f" of {len(many())} parts of six photographs, on the built-in network"
    made = asked if technique.takes_index or technique.name in ("cam", "humans") else None
    if made is None:
        images = pictures(builtin()) if technique.takes_images else None
        of = f" of {len(SHOTS)} photographs" if technique.takes_images else ""
        return builtin(), images, None, f"{of}, on the built-in network" if technique.takes_network else of
    index = made()
    images = torch.stack([index.prepared(id) for id in SHOWN]) if technique.takes_images else None
    network = None if technique.takes_index else index.network
    where = (
        f", of an index of {len(index)} made-up pictures"
        if technique.takes_index
        else ", on the small network of `convscope.example`"
    )
    return network, images, index if technique.takes_index else None, where


def run(technique: Technique) -> tuple[Result, dict[str, Any]]:
    """A technique with the options of its example, and what that cost."""
    network, images, index, where = subject(technique)
    work: Callable[[], Result] = functools.partial(technique.on, network, images, index=index, **options(technique))
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    found = {"seconds": _rounded(seconds), "where": where}
    if network is not None and images is not None:
        arithmetic = passes(network, images[:1], work)
        found |= {"passes": _rounded(arithmetic)} if math.isfinite(arithmetic) else {}
    return result, found


def cost_of_conflicts() -> dict[str, Any]:
    """Of ``shape-bias``, a picture."""
    asked, start = conflicts(), time.process_time()
    made = convscope.shape_bias(builtin(), **asked).values[-1].sum()
    seconds = (time.process_time() - start) / float(made)
    what = {"what": "each picture that is made and decided on", "where": ", on the built-in network"}
    return {"seconds": _rounded(seconds), **what}


def _rounded(number: float) -> float:
    """Two digits: more would pretend."""
    return float(f"{number:.2g}")


def save(picture: Image.Image, path: Path, widest: int | None = None) -> None:
    """A small file of it."""
    path.parent.mkdir(exist_ok=True)
    if widest and picture.width > widest:
        picture = picture.resize((widest, round(picture.height * widest / picture.width)), Image.Resampling.LANCZOS)
    picture.save(path, quality=88, method=6)


def kept(folder: Path) -> dict[str, Any]:
    """What made the pictures of a folder."""
    path = folder / MADE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep(folder: Path, made: Mapping[str, Any]) -> None:
    (folder / MADE).write_text(json.dumps(dict(sorted(made.items())), indent=1) + "\n", encoding="utf-8")


# ---- the page of a technique


def shell(technique: Technique) -> str:
    """The command of its page."""
    return OWN.get(technique.name) or command(technique, builtin(), options(technique))


def table(technique: Technique) -> str:
    """Its options, as Markdown."""
    if not technique.options:
        return "None of its own."
    rows = [f"| `--{o.name.replace('_', '-')}` | {o.default!r} | {o.description} |" for o in technique.options]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def linked(paper: str) -> str:
    """A paper with its address, where arXiv has it."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def cost(made: Mapping[str, Any]) -> str:
    """What the picture took, in words."""
    if "seconds" not in made:
        return "Not measured."
    what = made.get("what", "the picture above")
    took = f"{made['seconds']:g} seconds of one core for {what}{made['where']}"
    if "passes" in made:
        took += f"; as much arithmetic as {made['passes']:g} forward passes of one picture"
    return f"{took}. Drawing is left out, and other machines differ."


def text(technique: Technique, made: Mapping[str, Any]) -> str:
    """The page of one technique."""
    python = (
        ""
        if technique.name in OWN
        else f'\n```python\n{call(technique, options(technique))}.save("{technique.name}.png")\n```\n'
    )
    return f"""# {technique.name}

{technique.summary}

![Picture made by {technique.name}](../gallery/{technique.name}.webp)

**What to see.** {technique.see}

**What it does not prove.** {technique.caution}

**Paper.** {linked(technique.paper) or "None: it shows what is there."}

**Cost.** {cost(made)}

```sh
{shell(technique)}
```
{python}
## Options

{table(technique)}

## In full

```text
{inspect.getdoc(technique.function)}
```
"""


def index() -> str:
    """The list of all techniques, by family."""
    parts = ["# Techniques"]
    for family, question in registry.FAMILIES.items():
        rows = [f"- [{e.name}]({e.name}.md): {e.summary}" for e in registry.discover().values() if e.family == family]
        parts += [f"## {question}", "\n".join(rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def write_pages(names: Sequence[str] = ()) -> None:
    """The pages, from the pictures and costs that are there."""
    made = kept(PAGES)
    for name in names or registry.discover():
        (PAGES / f"{name}.md").write_text(text(registry.load(name), made.get(name, {})), encoding="utf-8")
    (PAGES / "index.md").write_text(index(), encoding="utf-8")


def techniques(names: Sequence[str]) -> None:
    """Pages and pictures of these techniques, or of every one that is installed."""
    torch.set_num_threads(1)
    builtin()(pictures(builtin()))  # the first pass of all takes longer, and no technique is to blame
    made = kept(PAGES)
    for name in names or registry.discover():
        technique = getattr(convscope, name.replace("-", "_"))  # which can draw its results
        if name == "shape-bias":  # it takes folders; its picture is made as docs/behaviour.md says
            found = cost_of_conflicts()
        else:
            result, found = run(technique)
            save(result.picture(), GALLERY / f"{name}.webp", WIDEST)
        made[name] = {"command": shell(technique), **found}
        keep(PAGES, made)
        write_pages([name])
        print(name, found)


# ---- the guide and the rest


def fingerprint(step: walk.Step) -> str:
    """Of the code that makes a picture."""
    return hashlib.sha256(step.text.encode()).hexdigest()[:16]


def guide(names: Sequence[str]) -> None:
    """Run the guide's pages, or these, and keep their pictures."""
    chosen = [page for page in walk.pages() if not names or page.stem in names]
    made = kept(GUIDE)
    for page in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for step in walk.walk(page, Path(folder)):
                with Image.open(Path(folder) / f"{step.picture}.png") as picture:
                    save(picture.convert("RGB"), GUIDE / f"{step.picture}.webp", WIDEST)
                made[step.picture] = fingerprint(step)
                keep(GUIDE, made)
                print(page.stem, step.picture)


def maps(_: Sequence[str]) -> None:
    """All heat maps of one photograph, with the verdicts of the randomisation check on all of them."""
    names, paths = zip(*photographs(), strict=True)
    images = torch.stack([builtin().prepare(read_image(path)) for path in paths])
    more = [("saliency", {"rule": "guided"}), ("saliency", {"rule": "deconvnet"})]
    chosen = [*((m.technique, m.options) for m in examples()), *more]
    save(beside(builtin(), images, methods=chosen, names=names).picture(), GALLERY / "all-maps.webp")


def networks(_: Sequence[str]) -> None:
    import runpy

    runpy.run_path(str(DOCS / "networks.py"), run_name="__main__")


def matrix(names: Sequence[str]) -> None:
    import matrix

    matrix.write(names)


def explorer(_: Sequence[str]) -> None:
    """Its pages, as Chromium shows them."""
    import shots

    for name, picture in shots.taken():
        save(picture, GALLERY / f"{name}.webp")


def benchmarks(_: Sequence[str]) -> None:
    import measured

    print(measured.sections())


WRITERS = {
    "pages": write_pages, "guide": guide, "maps": maps, "explorer": explorer,
    "networks": networks, "matrix": matrix, "benchmarks": benchmarks,
}  # fmt: skip

if __name__ == "__main__":
    warnings.simplefilter("error")
    what, names = (sys.argv[1], sys.argv[2:]) if sys.argv[1:] and sys.argv[1] in WRITERS else ("", sys.argv[1:])
    WRITERS.get(what, techniques)(names)
