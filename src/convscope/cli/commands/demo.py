"""``convscope demo``: every technique on a few free photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convscope.cli.bar import make_console, watched
from convscope.cli.options import CONTEXT, FILE, NETWORK_OPTIONS, QUIET_OPTIONS, Command, Options, load, parameters


def _demo(output: Path, quiet: bool, **given: Any) -> None:
    from convscope.reporting.demo import demo as make

    console = make_console(quiet)
    with watched(console, "demo"):
        make(load(given, 0), output)
    console.print(f"wrote {output}", markup=False)


DEMO_OPTIONS: Options = {
    ("--output", "-o"): {"type": FILE, "default": Path("demo.html"), "show_default": True, "help": "Page to write."},
}
COMMAND = Command(
    "demo",
    callback=_demo,
    params=parameters(DEMO_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
    help="Every technique on a few free photographs, as one self-contained page.",
    context_settings=CONTEXT,
)
