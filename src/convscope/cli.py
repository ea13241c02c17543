"""The command line: a command for every technique of the registry, and the demo.

Data goes to standard output, progress and errors to standard error. Exit status 0, 1 when something failed, 2 when
the command was used wrongly.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope import __version__, registry
from convscope.errors import ConvscopeError, ImageError, OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from convscope.network import Network
    from convscope.registry import Option, Technique
    from convscope.results import Result

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EXTRA_FAMILY = "Everything at once"


# ---- options


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"{option} takes numbers separated by commas, not {text!r}") from None


FILE = click.Path(path_type=Path, dir_okay=False)
NETWORK_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--network", "-n"): {"metavar": "SPEC", "default": "builtin", "show_default": True,
                          "help": "builtin, torchvision:NAME, timm:NAME, or FILE.py:FACTORY."},
    ("--weights",): {"metavar": "FILE|random|default", "default": "default", "show_default": True,
                     "help": "Weights: safetensors or a PyTorch file; never code."},
    ("--labels",): {"metavar": "FILE", "help": "Class names: a JSON list, or text with one a line."},
    ("--input-size",): {"metavar": "H,W", "help": "Size that photographs are scaled and cropped to, in pixels."},
    ("--crop",): {"type": click.FloatRange(0, 1, min_open=True), "metavar": "SHARE",
                  "help": "Share of the scaled photograph's side that the centre crop keeps."},
    ("--mean",): {"metavar": "R,G,B", "help": "Mean that the network subtracts, of pictures in [0, 1]."},
    ("--std",): {"metavar": "R,G,B", "help": "Spread that the network divides by."},
    ("--device",): {"metavar": "NAME", "help": "cpu, cuda, cuda:1, mps; the best there is if left out."},
    ("--precision",): {"type": click.Choice(["auto", "float32", "bfloat16"]), "default": "auto", "show_default": True,
                       "help": "auto is float32: maps in bfloat16 are noisier."},
}  # fmt: skip
OUTPUT_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--output", "-o"): {"type": FILE, "help": "Picture to write: .png, .jpg, .webp, .pdf or .svg."},
    ("--raw",): {"type": FILE, "metavar": "FILE.npz", "help": "Write the untouched numbers, under `values`."},
    ("--json", "as_json"): {"is_flag": True, "help": "Print summary and provenance as JSON."},
    ("--seed", "random_seed"): {"type": click.IntRange(0), "help": "Seed of everything random."},
}
QUIET_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--quiet", "-q"): {"is_flag": True, "help": "Say nothing on standard error but errors."},
    ("--debug",): {"is_flag": True, "expose_value": False, "help": "Show the traceback of an error."},
}


def _parameters(table: dict[tuple[str, ...], dict[str, Any]]) -> list[click.Parameter]:
    return [click.Option(list(names), **settings) for names, settings in table.items()]


def load(spec: dict[str, Any], seed: int | None) -> Network:
    """The network that the common options name."""
    from convscope.zoo import load_network

    size = spec.pop("input_size")
    sides = [int(n) for n in _numbers(size, "--input-size")] if size else None
    if sides is not None and len(sides) > 2:
        raise OptionError(f"--input-size takes H,W or one number, not {size!r}")
    for name in ("mean", "std"):
        if spec[name]:
            spec[name] = _numbers(spec[name], f"--{name}")
    if sides:
        spec["input_size"] = (sides[0], sides[-1])
    return load_network(spec.pop("network"), **spec, seed=seed or 0)


def _click_type(annotation: Any) -> tuple[Any, bool]:
    """(click type, whether it may be given several times) of an annotation."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _click_type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice([str(a) for a in typing.get_args(annotation)]), False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [_click_type(a) for a in typing.get_args(annotation) if a is not type(None)]
        several = any(many for _, many in kinds)
        text = any(kind is str for kind, _ in kinds)
        return (str if text else kinds[0][0]), several
    if typing.get_origin(annotation) in (list, tuple, Sequence, typing.get_origin(Sequence[int])):
        return _click_type(typing.get_args(annotation)[0])[0], True
    return annotation if annotation in (int, float, bool, str) else str, False


def _parameter(option: Option) -> click.Option:
    kind, several = _click_type(option.annotation)
    flag = f"--{option.name.replace('_', '-')}"
    help_text = option.description[:1].upper() + option.description[1:] + "."
    shown = None if option.default is None else option.default
    if kind is bool:
        names = f"{flag}/--no-{flag[2:]}" if option.default else flag
        return click.Option([names], is_flag=True, default=option.default, help=help_text)
    return click.Option(
        [flag],
        type=kind,
        multiple=several,
        default=None,
        show_default=str(shown) if shown is not None else False,
        help=help_text,
    )


# ---- running a technique


def _photographs(paths: Sequence[Path]) -> list[Path]:
    from convscope.images import find_images

    found: list[Path] = []
    for path in paths:
        inside = find_images(path) if path.is_dir() else [path]
        if not inside:
            raise ImageError(f"{path} holds no pictures; give photographs or a folder with some")
        found += inside
    return found


def _read(network: Network, paths: Sequence[Path]) -> Tensor:
    import torch

    from convscope.images import read_image

    return torch.stack([network.prepare(read_image(path)) for path in paths])


def _options(technique: Technique[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the user said, without what was left out, for the technique's own defaults."""
    chosen: dict[str, Any] = {}
    for option in technique.options:
        value = given.get("random_seed") if option.name == "seed" else given.pop(option.name)
        if isinstance(value, tuple):
            value = None if not value else value[0] if len(value) == 1 else list(value)
        if value is not None:
            chosen[option.name] = value
    return chosen


def _console(quiet: bool) -> Console:
    from rich.console import Console

    return Console(stderr=True, quiet=quiet, highlight=False)


def _report(
    result: Result, technique: str, output: Path | None, raw: Path | None, as_json: bool, console: Console
) -> None:
    from convscope import views

    if raw is not None:
        result.save(raw if raw.suffix == ".npz" else raw.with_name(raw.name + ".npz"))
    if output is None and not as_json and raw is None and views.needs_picture(result):
        output = Path(f"{technique}.png")
    if output is not None:
        result.save(output)
    if as_json:
        click.echo(result.to_json())
    else:
        views.terminal(result)
    for note in result.notes:
        console.print(f"note: {note}", markup=False)
    for path in (output, raw):
        if path is not None:
            console.print(f"wrote {path}", markup=False)


def _run(technique: Technique[..., Any], given: dict[str, Any]) -> None:
    import dataclasses

    import convscope

    technique = getattr(convscope, technique.name.replace("-", "_"))  # results that can draw themselves
    output, raw, as_json, quiet = (given.pop(name) for name in ("output", "raw", "as_json", "quiet"))
    paths = _photographs(given.pop("photographs", ()))
    options = _options(technique, given)
    seed = given.pop("random_seed", None)
    technique.check(options)
    console = _console(quiet)
    with console.status(f"{technique.name} …"):
        network = load(given, seed)
        arguments = [_read(network, paths)] if technique.takes_images else []
        result = technique(network, *arguments, **options)
        provenance = dataclasses.replace(result.provenance, photographs=tuple(str(p) for p in paths), seed=seed)
        result = dataclasses.replace(result, provenance=provenance)
    _report(result, technique.name, output, raw, as_json, console)


def command(name: str) -> click.Command:
    """The command of one technique, made from its signature."""
    technique = registry.load(name)
    photographs = click.Argument(
        ["photographs"], nargs=-1, required=True, metavar="PHOTO...", type=click.Path(path_type=Path)
    )
    parameters = [
        *([photographs] if technique.takes_images else []),
        *(_parameter(option) for option in technique.options if option.name != "seed"),
        *_parameters(NETWORK_OPTIONS | OUTPUT_OPTIONS | QUIET_OPTIONS),
    ]
    paragraphs = [
        technique.summary,
        _paragraph("What to see", technique.see),
        _paragraph("What it does not prove", technique.caution),
        _paragraph("Paper", technique.paper),
    ]
    return click.Command(
        name,
        callback=lambda **given: _run(technique, given),
        params=parameters,
        help="\n\n".join(filter(None, paragraphs)),
        context_settings=CONTEXT,
    )


def _paragraph(head: str, text: str) -> str:
    return f"{head}: {text}" if text else ""


# ---- the group


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


def _demo(output: Path, quiet: bool, **given: Any) -> None:
    import convscope
    from convscope.report.demo import demo as make

    assert convscope.classify  # lets results draw themselves
    console = _console(quiet)
    with console.status("loading the network …") as status:
        network = load(given, 0)
        make(network, output, progress=lambda text: status.update(f"{text} …"))
    console.print(f"wrote {output}", markup=False)


DEMO_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--output", "-o"): {"type": FILE, "default": Path("demo.html"), "show_default": True, "help": "Page to write."},
}
main_group.add_command(
    click.Command(
        "demo",
        callback=_demo,
        params=_parameters(DEMO_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
        help="Every technique on a few free photographs, as one self-contained page.",
        context_settings=CONTEXT,
    )
)


def main() -> None:
    """Run the command line; every error is one line, with a remedy."""
    try:
        main_group.main(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted; nothing was half-written")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was half-written")
    except ConvscopeError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where, and we would like to know of it")


def _fail(message: str) -> typing.NoReturn:
    if "--debug" in sys.argv:
        raise  # the error being handled
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
