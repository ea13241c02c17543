"""``convscope explore``: a local page on which every unit of the network can be visited."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click

from convscope.cli.bar import make_console
from convscope.cli.options import (
    CONTEXT,
    FOLDER,
    NETWORK_OPTIONS,
    QUIET_OPTIONS,
    Command,
    Options,
    arguments,
    parameters,
)
from convscope.errors import OptionError


def _explore(
    index: Path | None, host: str, port: int, token: str | None, cache: Path | None, browser: bool, seconds: float,
    memory: float, cache_size: float, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    from convscope.explorer.serve import serve
    from convscope.explorer.settings import Settings, default_cache
    from convscope.extras import require

    require("fastapi", "explore")
    require("uvicorn", "explore")
    loaded = arguments(given, 0)
    if index is not None:
        from convscope.index import open_index

        made = open_index(index).provenance
        loaded = {**dict(made["loaded"]), **_said(loaded)}
        if "network" not in loaded:
            raise OptionError(
                f"{index} was scanned with {made['network']}, which was handed over in Python; say where it is: "
                "--network FILE.py:FUNCTION, --weights FILE"
            )
    settings = Settings(
        loaded=loaded, index=index, host=host, port=port, token=token or "", cache=cache or default_cache(),
        seconds=seconds, memory=round(memory * 2**30), kept=round(cache_size * 2**30),
    )  # fmt: skip
    if not settings.local and not settings.token:
        raise OptionError(
            f"{host} can be reached from other machines; say --token {secrets.token_urlsafe(12)} (or another secret), "
            "or leave --host out"
        )
    serve(settings, make_console(quiet), browser=browser)


def _said(loaded: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults."""
    defaults = {names[0].lstrip("-").replace("-", "_"): o.get("default") for names, o in NETWORK_OPTIONS.items()}
    return {name: value for name, value in loaded.items() if value is not None and value != defaults.get(name, 0)}


EXPLORE_OPTIONS: Options = {
    ("--host",): {"default": "127.0.0.1", "show_default": True, "metavar": "ADDRESS",
                  "help": "Where to listen; an address that other machines reach needs --token."},
    ("--port",): {"type": click.IntRange(0, 65535), "default": 8765, "show_default": True,
                  "help": "0 takes a free one; a taken one is an error."},
    ("--token",): {"metavar": "SECRET", "help": "What a browser must show, in the address, to be let in."},
    ("--cache",): {"type": FOLDER, "help": "Where results are kept; the user's cache folder if left out."},
    ("--cache-size",): {"type": click.FloatRange(0), "default": 2.0, "show_default": True, "metavar": "GIB",
                        "help": "Most that is kept there; what was not asked for the longest goes first."},
    ("--browser/--no-browser",): {"default": True, "show_default": True, "help": "Open the page in a browser."},
    ("--seconds",): {"type": click.FloatRange(1), "default": 900, "show_default": True, "help": "Longest run."},
    ("--memory",): {"type": click.FloatRange(0.5), "default": 8.0, "show_default": True, "metavar": "GIB",
                    "help": "Most memory of the process that runs techniques."},
}  # fmt: skip
COMMAND = Command(
    "explore",
    callback=_explore,
    params=[
        click.Argument(["index"], required=False, metavar="[INDEX]", type=FOLDER),
        *parameters(EXPLORE_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
    ],
    short_help="A local page on which every layer, unit, class and picture can be visited.",
    help="A local page on which every layer, unit, class and picture of the network can be visited: drop a picture, "
    "see what the network says and what it looked at, cover parts of it, watch a picture being made. With an INDEX of "
    "`convscope scan` also what excites each unit most in a whole data set.",
    context_settings=CONTEXT,
)
