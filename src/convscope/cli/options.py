"""The options that commands share, and those that come from a technique's signature."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope import registry
from convscope.errors import OptionError

if TYPE_CHECKING:
    from convscope.network import Network
    from convscope.registry import Option

Options: typing.TypeAlias = "dict[tuple[str, ...], dict[str, Any]]"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def numbers(text: str | float | Sequence[float], option: str) -> list[float]:
    """Numbers separated by commas, or numbers already; :class:`OptionError` names the option."""
    if not isinstance(text, str):
        return [float(number) for number in (text if isinstance(text, Sequence) else [text])]
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"{option} takes numbers separated by commas, not {text!r}") from None


def epsilon(text: str) -> float:
    """A budget in L-inf, a number or a fraction; :class:`OptionError` says what it may be."""
    from convscope.parameterizations import check_epsilon
    from convscope.registry import fraction

    try:
        value = fraction(text)
    except ValueError as error:
        raise OptionError(f"--epsilon {error}, not {text!r}") from None
    check_epsilon(value, "linf", 1)
    return float(value)


FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
NETWORK_OPTIONS: Options = {
    ("--network", "-n"): {"metavar": "SPEC", "default": "builtin", "show_default": True,
                          "help": "builtin, builtin-robust, torchvision:NAME, timm:NAME, or FILE.py:FACTORY."},
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
                       "help": "auto is float32; for making pictures, bfloat16 where the device is fast at it. With "
                       "bfloat16 heat maps are in it, too, and coarser: occlusion ranks as in float32 to .98."},
    ("--defence",): {"metavar": "SPEC", "help": "What stands in front of the network: jpeg:75, bits:4, blur:1, "
                     "median:3, noise:0.1, resize-pad:0.9, several joined by +."},
}  # fmt: skip
# An index knows its network; these say where it is now.
INDEXED_NETWORK_OPTIONS: Options = {
    names: {**settings, "default": None, "show_default": False} for names, settings in NETWORK_OPTIONS.items()
}
OUTPUT_OPTIONS: Options = {
    ("--output", "-o"): {"type": FILE, "help": "Picture to write: .png, .jpg, .webp, .pdf, .svg; or a page: .html."},
    ("--raw",): {"type": FILE, "metavar": "FILE.npz", "help": "Write the untouched numbers, under `values`."},
    ("--json", "as_json"): {"is_flag": True, "help": "Print summary and provenance as JSON."},
    ("--seed", "random_seed"): {"type": click.IntRange(0), "help": "Seed of everything random."},
}
ADVERSARIAL_OPTIONS: Options = {
    ("--adversarial",): {"type": FILE, "metavar": "FILE.png",
                         "help": "Write the changed picture itself; numbered where there are several."},
}  # fmt: skip
FILM_HELP = "Picture to write: .png, .jpg, .webp; a page: .html; or a film of what --every keeps: .gif, .webp, .mp4."
SEED: Options = {("--seed", "random_seed"): {"type": click.IntRange(0), "help": "Seed of --weights random."}}
QUIET_OPTIONS: Options = {
    ("--quiet", "-q"): {"is_flag": True, "help": "Say nothing on standard error but errors."},
    ("--debug",): {"is_flag": True, "expose_value": False, "help": "Show the traceback of an error."},
}


GROUPS: dict[str, list[str]] = {
    "Options": [],
    "Output": [names[0] for names in OUTPUT_OPTIONS | ADVERSARIAL_OPTIONS if names[0] != "--seed"],
    "Network": [names[0] for names in NETWORK_OPTIONS],
    "General": [*(names[0] for names in QUIET_OPTIONS), "--help"],
}
COLUMN = 30  # characters of the options' names in help, as click has them at most


class Command(click.Command):
    """A command whose help shows its own options first, and then those that many share, in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        group = {name: title for title, names in GROUPS.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in GROUPS}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                title = next((group[name] for name in option.opts if name in group), "Options")
                rows[title].append((record[0].ljust(COLUMN), record[1]))
        for title, members in rows.items():
            if members:
                with formatter.section(title):
                    formatter.write_dl(members, col_max=COLUMN)


class _Option(click.Option):
    """An option that says the default of a technique as others say theirs."""

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


def parameters(table: Options) -> list[click.Parameter]:
    """The options of a table as click takes them."""
    return [click.Option(list(names), **settings) for names, settings in table.items()]


def arguments(spec: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """What the common options say, as keywords of ``load_network``."""
    spec = dict(spec)
    size = spec.pop("input_size", None)
    sides = [int(n) for n in numbers(size, "--input-size")] if size else None
    if sides is not None and len(sides) > 2:
        raise OptionError(f"--input-size takes H,W or one number, not {size!r}")
    for name in ("mean", "std"):
        if spec.get(name):
            spec[name] = numbers(spec[name], f"--{name}")
    if sides:
        spec["input_size"] = (sides[0], sides[-1])
    return {**spec, "seed": seed or 0}


def load(spec: dict[str, Any], seed: int | None) -> Network:
    """The network that the common options name."""
    from convscope.zoo import load_network

    return load_network(**arguments(spec, seed))


def _click_type(annotation: Any) -> tuple[Any, bool]:
    """(click type, whether it may be given several times) of an annotation."""
    if registry.is_text(annotation):
        return str, False
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


def parameter(option: Option) -> click.Option:
    """The command-line option of one option of a technique."""
    kind, several = (FILE, True) if registry.is_picture(option.annotation) else _click_type(option.annotation)
    flag = f"--{option.name.replace('_', '-')}"
    help_text = option.description[:1].upper() + option.description[1:] + "."
    shown = option.default
    if isinstance(shown, (list, tuple)):
        shown = ", ".join(map(str, shown))
    if kind is bool:
        names = f"{flag}/--no-{flag[2:]}" if option.default else flag
        return click.Option([names], is_flag=True, default=option.default, help=help_text)
    return _Option(
        [flag],
        type=kind,
        multiple=several,
        default=None,
        show_default=str(shown) if shown is not None else False,
        help=help_text,
    )
