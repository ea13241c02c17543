"""``convscope scan``: one pass over a data set, into an index that every question about it reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope.cli.bar import make_console, watched
from convscope.cli.options import (
    CONTEXT,
    FOLDER,
    NETWORK_OPTIONS,
    QUIET_OPTIONS,
    SEED,
    Command,
    Options,
    arguments,
    load,
    parameters,
)
from convscope.cli.work import loaded_with

if TYPE_CHECKING:
    from convscope.index import Index


def _scan(pictures: tuple[Path, ...], output: Path, quiet: bool, random_seed: int | None, **given: Any) -> None:
    import convscope

    asked = {name: given.pop(name) for name in SCAN_NAMES}
    asked["layers"], asked["code_layers"] = asked["layers"] or None, asked["code_layers"] or None
    console = make_console(quiet)
    spec = loaded_with(given)
    network = load(dict(given), random_seed)
    with watched(console, "scan"):
        index = convscope.scan(network, list(pictures), output, loaded=_absolute(spec, random_seed), **asked)
    console.print(f"wrote {output}: {_told(index)}", markup=False, soft_wrap=True)


def _absolute(spec: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """Options with which Python loads the network from anywhere."""
    found = arguments(spec, seed)
    for name in ("weights", "labels"):
        if isinstance(found.get(name), str) and Path(found[name]).is_file():
            found[name] = str(Path(found[name]).absolute())
    file, colon, factory = str(found["network"]).partition(":")
    if Path(file).is_file():
        found["network"] = f"{Path(file).absolute()}{colon}{factory}"
    return found


def _told(index: Index) -> str:
    rows = index.pictures(["error"])
    unreadable = len(rows) - len(index)
    damaged = f", and {unreadable:,} that could not be read (with their reasons in the index)" if unreadable else ""
    return f"{len(index):,} pictures{damaged}"


COUNT = click.IntRange(1)
SCAN_OPTIONS: Options = {
    ("--output", "-o"): {"type": FOLDER, "required": True, "metavar": "INDEX",
                         "help": "Folder of the index; one that is there goes on, and takes in what is new."},
    ("--layer", "layers"): {"multiple": True, "metavar": "LAYER",
                            "help": "Layers of whose channels patches and statistics are kept; repeatable. "
                            "Of every convolution, behind its norm and rectifier, if left out."},
    ("--code-layer", "code_layers"): {"multiple": True, "metavar": "LAYER",
                                      "help": "Layers whose output is every picture's code; repeatable. The one in "
                                      "front of the classifier if left out."},
    ("--patches",): {"type": COUNT, "default": 9, "show_default": True, "help": "Pictures kept of each channel."},
    ("--gradients",): {"type": click.IntRange(0), "default": 16, "show_default": True,
                       "help": "Pictures of each chunk whose gradients are taken."},
    ("--chunk",): {"type": COUNT, "default": 512, "show_default": True,
                   "help": "Pictures between which the scan can be stopped."},
    ("--batch",): {"type": COUNT, "help": "Pictures in one pass; chosen if left out."},
    ("--thumbnail",): {"type": click.IntRange(8), "default": 96, "show_default": True,
                       "help": "Longer side of thumbnails, in pixels."},
    ("--workers",): {"type": click.IntRange(0), "help": "Threads that read pictures; one a processor if left out."},
    ("--engine",): {"type": click.Choice(["local", "ray"]), "default": "local", "show_default": True,
                    "help": "ray spreads the scan over a cluster, by RAY_ADDRESS."},
}  # fmt: skip
SCAN_NAMES = ("layers", "code_layers", "patches", "gradients", "chunk", "batch", "thumbnail", "workers", "engine")
COMMAND = Command(
    "scan",
    callback=_scan,
    params=[
        click.Argument(["pictures"], nargs=-1, required=True, metavar="PICTURES...", type=click.Path(path_type=Path)),
        *parameters(SCAN_OPTIONS | SEED | NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="Show a data set to the network once, and keep what every question about it needs.",
    help="Show every picture of a data set to the network once, and keep in an index what every question about it "
    "needs: codes, the strongest patches and the statistics of every channel, predictions, gradients by class, and "
    "what the pictures are like.\n\nPICTURES is a folder, in which folders are classes; a list (.csv: path,label; "
    ".txt); .tar shards; or .parquet files of Hugging Face.\n\nA scan that was stopped, also by a kill, goes on when "
    "it is called again; pictures that are new are added; a picture that cannot be read is recorded with the reason.",
    context_settings=CONTEXT,
)
