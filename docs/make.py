"""Write the generated pages: a page a technique, the gallery pictures, and the table of networks.

    python docs/make.py            # gallery pictures and technique pages; with names, of these techniques only
    python docs/make.py maps       # all heat maps of one photograph beside each other (minutes)
    python docs/make.py networks   # the table of networks, by running them (minutes)

Everything comes from the registry and from running the code.
"""

from __future__ import annotations

import functools
import inspect
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

import convscope
from convscope import registry
from convscope.errors import ConvscopeError
from convscope.evaluate.sheet import beside, examples
from convscope.example import SHOWN, example
from convscope.images import read_image
from convscope.index import Index
from convscope.network import Network
from convscope.registry import Technique
from convscope.reporting import photographs
from convscope.results import Result

DOCS = Path(__file__).parent


def pictures(network: Network) -> torch.Tensor:
    """Two of the free photographs."""
    chosen = dict(photographs())
    return torch.stack([network.prepare(read_image(chosen[name])) for name in ("cat", "coffee")])


@functools.cache
def asked() -> Index:
    """The index of made-up pictures that questions on a data set are shown on."""
    return example(tempfile.mkdtemp())


def run(technique: Technique, network: Network) -> Result:
    """A technique with the options of its example."""
    if technique.takes_index:
        images = torch.stack([asked().prepared(id) for id in SHOWN]) if technique.takes_images else None
        return technique.on(None, images, index=asked(), **technique.example)
    return technique.on(network, pictures(network) if technique.takes_images else None, **technique.example)


def draw(result: Result, path: Path) -> None:
    """The result's figure as a small picture."""
    result.picture().save(path, quality=88, method=6)


def table(technique: Technique) -> str:
    """Its options, as Markdown."""
    if not technique.options:
        return "None of its own."
    rows = [f"| `--{o.name.replace('_', '-')}` | {o.default!r} | {o.description} |" for o in technique.options]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def text(technique: Technique, shown: str) -> str:
    """The page of one technique, with its picture or with why it has none."""
    photo = (" PHOTOS.index" if technique.takes_index else "") + (" PHOTO" if technique.takes_images else "")
    taken = [*(["index"] if technique.takes_index else []), *(["network"] if technique.takes_network else [])]
    taken += ["images"] if technique.takes_images else []
    return f"""# {technique.name}

{technique.summary}

{shown}

**What to see.** {technique.see}

**What it does not prove.** {technique.caution}

**Paper.** {technique.paper or "None: it shows what is there."}

```sh
convscope {technique.name}{photo} -o {technique.name}.png
```

```python
convscope.{technique.function.__name__}({", ".join(taken)}).save("{technique.name}.png")
```

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


def maps() -> None:
    """All heat maps of one photograph, with the verdicts of the randomisation check on all of them."""
    network = convscope.load_network("builtin")
    names, paths = zip(*photographs(), strict=True)
    images = torch.stack([network.prepare(read_image(path)) for path in paths])
    more = [("saliency", {"rule": "guided"}), ("saliency", {"rule": "deconvnet"})]
    chosen = [*((m.technique, m.options) for m in examples()), *more]
    draw(beside(network, images, methods=chosen, names=names), DOCS / "gallery" / "all-maps.webp")


def techniques(names: Sequence[str]) -> None:
    """Pages and pictures of these techniques, or of every one that is installed."""
    network = convscope.load_network("builtin")
    for folder in (DOCS / "gallery", DOCS / "techniques"):
        folder.mkdir(exist_ok=True)
    for name in names or registry.discover():
        technique = getattr(convscope, name.replace("-", "_"))
        try:
            draw(run(technique, network), DOCS / "gallery" / f"{name}.webp")
            shown = f"![Picture made by {name}](../gallery/{name}.webp)"
        except ConvscopeError as error:  # the built-in network is not one that this is for
            shown = f"No picture on the built-in network: {error}."
            if (DOCS / "gallery" / f"{name}.webp").exists():  # one that was made of other pictures
                shown = f"![Picture made by {name}](../gallery/{name}.webp)"
        (DOCS / "techniques" / f"{name}.md").write_text(text(technique, shown))
        print(name)
    (DOCS / "techniques" / "index.md").write_text(index())


if __name__ == "__main__":
    if sys.argv[1:] == ["networks"]:
        import runpy

        runpy.run_path(str(DOCS / "networks.py"), run_name="__main__")
    elif sys.argv[1:] == ["maps"]:
        maps()
    else:
        techniques(sys.argv[1:])
