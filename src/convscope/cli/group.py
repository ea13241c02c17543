"""All commands: one for each technique of the registry, and one for each file in ``commands``."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import click

from convscope import __version__, registry
from convscope.cli import commands
from convscope.cli.options import (
    ADVERSARIAL_OPTIONS,
    CONTEXT,
    FILE,
    FILM_HELP,
    FOLDER,
    INDEXED_NETWORK_OPTIONS,
    NETWORK_OPTIONS,
    OUTPUT_OPTIONS,
    QUIET_OPTIONS,
    Command,
    parameter,
    parameters,
)
from convscope.cli.work import run_technique

EXTRA_FAMILY = "Everything at once"


def command(name: str) -> click.Command:
    """The command of one technique, made from its signature."""
    technique = registry.load(name)
    output = dict(OUTPUT_OPTIONS)
    network = INDEXED_NETWORK_OPTIONS if technique.takes_index else NETWORK_OPTIONS if technique.takes_network else {}
    if any(option.name == "every" for option in technique.options):
        output["--output", "-o"] = {"type": FILE, "help": FILM_HELP}
    if technique.makes_adversarial:
        output |= ADVERSARIAL_OPTIONS
    index = click.Argument(["index"], metavar="INDEX", type=FOLDER)
    photographs = click.Argument(
        ["photographs"], nargs=-1, required=technique.needs_images, type=click.Path(path_type=Path),
        metavar="PHOTO..." if technique.needs_images else "[PHOTO]...",
    )  # fmt: skip
    taken = [
        *([index] if technique.takes_index else []),
        *([photographs] if technique.takes_images else []),
        *(parameter(option) for option in technique.options if option.name != "seed"),
        *parameters(network | output | QUIET_OPTIONS),
    ]
    paragraphs = [
        technique.summary,
        _paragraph("What to see", technique.see),
        _paragraph("What it does not prove", technique.caution),
        _paragraph("Paper", technique.paper),
    ]
    return Command(
        name,
        callback=lambda **given: run_technique(technique, given),
        params=taken,
        help="\n\n".join(filter(None, paragraphs)),
        context_settings=CONTEXT,
    )


def _paragraph(head: str, text: str) -> str:
    return f"{head}: {text}" if text else ""


class Commands(click.Group):
    """Commands are read from the registry, and imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*registry.discover(), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in registry.discover():
            return command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from convscope.errors import nearest

        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        entries = registry.discover().values()
        width = max(len(name) for name in self.list_commands(ctx))
        for family, question in registry.FAMILIES.items():
            rows = [(e.name.ljust(width), e.summary) for e in entries if e.family == family]
            if rows:
                with formatter.section(f"{family}: {question}"):
                    formatter.write_dl(rows)
        with formatter.section(EXTRA_FAMILY):
            formatter.write_dl([(n.ljust(width), c.get_short_help_str(100)) for n, c in self.commands.items()])


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="convscope")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def main_group() -> None:
    """What a convolutional network has learned, and why it decided as it did.

    Try `convscope demo`, or `convscope classify PHOTO`. Every command explains itself with --help.
    """


for _file in pkgutil.iter_modules(commands.__path__):
    main_group.add_command(importlib.import_module(f"{commands.__name__}.{_file.name}").COMMAND)
