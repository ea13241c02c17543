"""The command line: a command for every technique of the registry, and the demo.

Data goes to standard output, progress and errors to standard error. Exit status 0, 1 when something failed, 2 when
the command was used wrongly.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope import __version__, registry
from convscope.errors import ConvscopeError, ImageError, OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from torch import Tensor

    from convscope import progress
    from convscope.network import Network
    from convscope.registry import Option, Technique
    from convscope.results import Result, Synthesis

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
                       "help": "auto is float32; for making pictures, bfloat16 where the device is fast at it."},
}  # fmt: skip
OUTPUT_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--output", "-o"): {"type": FILE, "help": "Picture to write: .png, .jpg, .webp, .pdf or .svg."},
    ("--raw",): {"type": FILE, "metavar": "FILE.npz", "help": "Write the untouched numbers, under `values`."},
    ("--json", "as_json"): {"is_flag": True, "help": "Print summary and provenance as JSON."},
    ("--seed", "random_seed"): {"type": click.IntRange(0), "help": "Seed of everything random."},
}
FILM_HELP = "Picture to write: .png, .jpg, .webp; .gif, .webp or .mp4 for a film of what --every keeps."
QUIET_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--quiet", "-q"): {"is_flag": True, "help": "Say nothing on standard error but errors."},
    ("--debug",): {"is_flag": True, "expose_value": False, "help": "Show the traceback of an error."},
}


def _parameters(table: dict[tuple[str, ...], dict[str, Any]]) -> list[click.Parameter]:
    return [click.Option(list(names), **settings) for names, settings in table.items()]


def load(spec: dict[str, Any], seed: int | None) -> Network:
    """The network that the common options name."""
    from convscope.zoo import load_network

    size = spec.pop("input_size", None)
    sides = [int(n) for n in _numbers(size, "--input-size")] if size else None
    if sides is not None and len(sides) > 2:
        raise OptionError(f"--input-size takes H,W or one number, not {size!r}")
    for name in ("mean", "std"):
        if spec.get(name):
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
    kind, several = (FILE, True) if registry.is_picture(option.annotation) else _click_type(option.annotation)
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


def _read(technique: Technique[..., Any], network: Network | None, path: Path, options: dict[str, Any]) -> Tensor:
    """One photograph as the technique gets it: as the network was trained, or at its own size."""
    from convscope.images import read_image

    image = read_image(path)
    if network is not None and not technique.keeps_size:
        return network.prepare(image)
    return _sized(technique, image, options)


def _sized(technique: Technique[..., Any], image: Tensor, options: dict[str, Any]) -> Tensor:
    """The picture with its longer side at most the option ``size``, where there is one."""
    from convscope.images import resize

    most = options.get("size", next((o.default for o in technique.options if o.name == "size"), None))
    share = most / max(image.shape[1:]) if isinstance(most, int) else 1.0
    if share >= 1:
        return image
    return resize(image, (max(1, round(image.shape[1] * share)), max(1, round(image.shape[2] * share))))


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


@dataclass
class Work:
    """What one command has to do: a technique with its options, on photographs, with a network as ``spec`` says."""

    technique: Technique[..., Any]
    options: dict[str, Any]
    photographs: list[Path]
    spec: dict[str, Any]
    seed: int | None
    console: Console
    check: Callable[[Network | None], None] = lambda network: None

    def results(self) -> Iterator[Result]:
        """The result; or one after another for each photograph, where they keep their own sizes."""
        from convscope import progress

        network = load(dict(self.spec), self.seed) if self.technique.takes_network else None
        self.check(network)
        apart = self.technique.takes_images and (self.technique.keeps_size or network is None)
        groups = [[path] for path in self.photographs] if apart else [self.photographs]
        for group in progress.over(groups, "photographs"):
            yield self._result(network, group)

    def _result(self, network: Network | None, photographs: list[Path]) -> Result:
        import torch

        images = [_read(self.technique, network, path, self.options) for path in photographs]
        result = self.technique.on(network, torch.stack(images) if images else None, **self.options)
        made = result.provenance
        provenance = dataclasses.replace(
            made,
            photographs=tuple(map(str, photographs)),
            digests={**made.digests, **{str(path): registry.digest(path) for path in photographs}},
            seed=self.seed if made.seed is None else made.seed,
            loaded=_loaded(self.spec) if network is not None else {},
        )
        return dataclasses.replace(result, provenance=provenance)


def _loaded(spec: dict[str, Any]) -> dict[str, Any]:
    """The options of the network that are not at their defaults, and its name."""
    defaults = {names[0].lstrip("-").replace("-", "_"): o.get("default") for names, o in NETWORK_OPTIONS.items()}
    return {n: v for n, v in spec.items() if n == "network" or (v is not None and v != defaults.get(n))}


@dataclass
class Sinks:
    """Where a command's results go."""

    output: Path | None
    raw: Path | None
    as_json: bool
    wrote: list[Path] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def taken(cls, given: dict[str, Any]) -> Sinks:
        return cls(*(given.pop(name) for name in ("output", "raw", "as_json")))

    def save(self, result: Result, technique: str, number: int | None) -> None:
        """Write the files of one result; ``number`` it where there are several."""
        from convscope import views
        from convscope.results import Synthesis

        output, raw = self.output, self.raw
        if output is None and not self.as_json and raw is None and views.needs_picture(result):
            output = Path(f"{technique}.png")
        if raw is not None:
            self._write(result, raw if raw.suffix == ".npz" else raw.with_name(raw.name + ".npz"), number)
        if output is not None:
            path = self._write(result, output, number)
            entry = registry.discover().get(technique)
            if entry is not None and entry.family == "synthesize" and path.suffix != ".json":
                result.save(path.with_suffix(".json"))  # its recipe
            if isinstance(result, Synthesis):
                self._beside(result, path)

    def _write(self, result: Result, path: Path, number: int | None) -> Path:
        path = path if number is None else path.with_name(f"{path.stem}-{number}{path.suffix}")
        self.wrote.append(result.save(path))
        return path

    def _beside(self, result: Synthesis, path: Path) -> None:
        """Of a stopped run what it goes on from; and what is missing for a film."""
        from convscope.animation import FORMATS
        from convscope.optimize import save_state

        if path.suffix in FORMATS and path.suffix != ".webp" and not result.frames:
            self.notes.append(f"{path} holds one picture; --every 10 keeps one of ten steps for a film")
        if result.state is not None:
            save_state(path.with_suffix(".state"), result.state)
            self.wrote.append(path.with_suffix(".state"))

    def say(self, results: Sequence[Result], console: Console) -> None:
        """In words or JSON; notes and files on standard error."""
        from convscope import views

        if self.as_json:
            click.echo(_json(results))
        else:
            for result in results:
                views.terminal(result)
        for note in dict.fromkeys([*(note for result in results for note in result.notes), *self.notes]):
            console.print(f"note: {note}", markup=False, soft_wrap=True)
        for path in self.wrote:
            console.print(f"wrote {path}", markup=False, soft_wrap=True)


def _json(results: Sequence[Result]) -> str:
    """One object, or a list of them; the same whether photographs were worked on together or apart."""
    if len(results) == 1:
        return results[0].to_json()
    found = [json.loads(result.to_json()) for result in results]
    return json.dumps([one for each in found for one in (each if isinstance(each, list) else [each])], indent=2)


def _do(work: Work, sinks: Sinks) -> list[Result]:
    """Do it with its progress shown; what is finished is saved at once, and said at the end."""
    technique = work.technique.name
    several = work.technique.keeps_size and len(work.photographs) > 1
    done: list[Result] = []
    with watched(work.console, technique):
        for number, result in enumerate(work.results(), 1):
            sinks.save(result, technique, number if several else None)
            done.append(result)
    sinks.say(done, work.console)
    return done


def _films(
    technique: Technique[..., Any], options: dict[str, Any], paths: Sequence[Path], sinks: Sinks, console: Console
) -> None:
    """A film through a technique, frame by frame."""
    from convscope import films

    if len(paths) > 1 or sinks.raw or sinks.as_json:
        raise OptionError("one film at a time, and -o FILE.mp4 only: leave out the other files, --raw and --json")
    target = sinks.output or Path(f"{technique.name}.mp4")
    with watched(console, technique.name):
        made = films.changed(
            paths[0], target, lambda frame: technique.on(None, _sized(technique, frame, options), **options).values[0]
        )
    height, width = made.size
    console.print(f"wrote {target}: {made.frames} frames of {width}x{height}, {made.rate:.1f} a second", markup=False)


def _run(technique: Technique[..., Any], given: dict[str, Any]) -> None:
    import convscope
    from convscope import films

    technique = getattr(convscope, technique.name.replace("-", "_"))  # results that can draw themselves
    sinks, console = Sinks.taken(given), _console(given.pop("quiet"))
    paths = _photographs(given.pop("photographs", ()))
    options = _options(technique, given)
    seed = given.pop("random_seed", None)
    checked = technique.check(options)
    for option in technique.options:
        if registry.is_picture(option.annotation):
            registry.pictures_of(checked[option.name])  # before the network is loaded
    if technique.films and any(map(films.is_film, paths)):
        return _films(technique, options, paths, sinks, console)
    _do(Work(technique, options, paths, given, seed, console), sinks)


# ---- progress


@contextmanager
def watched(console: Console, name: str) -> Iterator[None]:
    """Show how far what runs in this block is: a bar after a second, and what it will cost where that is long."""
    from convscope import progress

    bar = _Bar(console, name)
    with bar, progress.listening(bar.told):
        yield


class _Bar:
    """A spinner, and a bar with the time that is left once it takes longer than a second."""

    def __init__(self, console: Console, name: str) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console, self._name = console, name
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._spinner = console.status(f"{name} …")
        self._task: TaskID | None = None
        self._cost_said = False

    def __enter__(self) -> None:
        self._spinner.start()

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()
        if self._task is not None:
            self._bar.stop()

    def told(self, now: progress.Progress) -> None:
        """What :func:`convscope.progress.listening` calls."""
        if now.remaining is None or now.spent < AFTER:
            return
        if not self._cost_said and now.spent + now.remaining > LONG:
            self._cost_said = True
            self._console.print(f"about {duration(now.spent + now.remaining)}: {now.work}", markup=False)
        if now.elapsed > SHOWN and self._task is None and self._console.is_interactive:
            self._spinner.stop()
            self._task = self._bar.add_task(self._name, total=1.0, left="")
            self._bar.start()
        if self._task is not None:
            said = f"{self._name}: {now.label}" if now.label else self._name
            left = f"{now.fraction:4.0%}, {duration(now.remaining)} left"
            self._bar.update(self._task, completed=now.fraction, description=said, left=left)


AFTER = 0.5  # seconds before the time that is left is believed: the first pass of all takes longer
SHOWN = 1.0  # seconds after which a bar appears
LONG = 10.0  # seconds whose cost is said beforehand


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


# ---- commands of techniques


def command(name: str) -> click.Command:
    """The command of one technique, made from its signature."""
    technique = registry.load(name)
    output = dict(OUTPUT_OPTIONS)
    if any(option.name == "every" for option in technique.options):
        output["--output", "-o"] = {"type": FILE, "help": FILM_HELP}
    photographs = click.Argument(
        ["photographs"], nargs=-1, required=True, metavar="PHOTO...", type=click.Path(path_type=Path)
    )
    parameters = [
        *([photographs] if technique.takes_images else []),
        *(_parameter(option) for option in technique.options if option.name != "seed"),
        *_parameters((NETWORK_OPTIONS if technique.takes_network else {}) | output | QUIET_OPTIONS),
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
    with watched(console, "demo"):
        make(load(given, 0), output)
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


def _evaluate(photographs: tuple[Path, ...], planted: bool, **given: Any) -> None:
    import convscope

    assert convscope.classify  # lets results draw themselves
    sinks, console = Sinks.taken(given), _console(given.pop("quiet"))
    asked = {name: given.pop(name) for name in ("measures", "limit", "masks", "boxes")}
    methods = given.pop("methods") or None
    seed = given.pop("random_seed")
    if planted == bool(photographs):
        raise OptionError("evaluate takes photographs or a folder of them, or else --planted, which makes its own")
    with watched(console, "evaluate"):
        if planted:
            from convscope.evaluate.planted import planted as benchmark

            result: Result = benchmark(methods, seed=seed or 0)
        else:
            result = _evaluated(photographs, methods, seed, given, **asked)
        sinks.save(result, "evaluate", None)
    sinks.say([result], console)


def _evaluated(
    photographs: tuple[Path, ...], methods: Any, seed: int | None, spec: dict[str, Any], *, measures: str | None,
    limit: int, masks: Path | None, boxes: Path | None,
) -> Result:  # fmt: skip
    from convscope.evaluate import judge, read_sample

    network = load(dict(spec), seed)
    sample, count = read_sample(network, photographs, limit=limit, masks=masks, boxes=boxes, seed=seed or 0)
    result = judge(sample, methods=methods, measures=measures)
    digests = {path: registry.digest(path) for path in sample.files}
    assert result.provenance is not None
    provenance = dataclasses.replace(result.provenance, digests=digests, loaded=_loaded(spec))
    drawn = [f"{len(sample)} of {count:,} photographs, drawn by seed {seed or 0}"] if count > len(sample) else []
    return dataclasses.replace(result, provenance=provenance, notes=[*drawn, *result.notes])


EVALUATE_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--methods",): {"multiple": True, "metavar": "LIST",
                     "help": "Techniques that make heat maps, separated by commas, with options behind their names: "
                     "'saliency, saliency rule=guided, gradcam'. All that are cheap if left out."},
    ("--measures",): {"metavar": "LIST", "help": "Of grid, inside, insertion, road, sensitivity, randomisation and "
                      "cost, separated by commas; all that are possible if left out."},
    ("--limit",): {"type": click.IntRange(1), "default": 50, "show_default": True, "metavar": "N",
                   "help": "Photographs at most, drawn by the seed, as many of each folder."},
    ("--masks",): {"type": click.Path(path_type=Path, file_okay=False), "metavar": "FOLDER",
                   "help": "Mask pictures, bright on the object, of the photographs' names and sizes."},
    ("--boxes",): {"type": FILE, "help": "Boxes: CSV with photograph,left,top,right,bottom, or JSON."},
    ("--planted",): {"is_flag": True, "help": "Instead of photographs: small networks of which it is known what they "
                     "look at, trained on the spot."},
}  # fmt: skip
main_group.add_command(
    click.Command(
        "evaluate",
        callback=_evaluate,
        params=[
            click.Argument(["photographs"], nargs=-1, metavar="[PHOTO|FOLDER]...", type=click.Path(path_type=Path)),
            *_parameters(EVALUATE_OPTIONS | NETWORK_OPTIONS | OUTPUT_OPTIONS | QUIET_OPTIONS),
        ],
        short_help="How far heat maps can be trusted: methods beside each other, measured.",
        help="How far heat maps can be trusted: methods beside each other, by where their maps lie, what happens "
        "when the pixels that they name are taken away, how steady they are, whether they depend on what the network "
        "has learned, and what they cost. In folders that have the names of classes, those are taken for the truth.",
        context_settings=CONTEXT,
    )
)


def _rerun(picture: Path, photographs: tuple[Path, ...], **given: Any) -> None:
    import convscope
    from convscope.report import recipe as recipes

    assert convscope.classify  # lets results draw themselves
    recipe = recipes.read(picture)
    sinks, console = Sinks.taken(given), _console(given.pop("quiet"))
    sinks.output = sinks.output or picture.with_name(f"{picture.stem}-again{picture.suffix}")
    notes: list[str] = []

    def check(network: Network | None) -> None:
        recipe.check_network(network)
        notes.extend(recipe.notes(network))

    work = Work(
        recipe.technique, recipe.options(), recipe.photographs(photographs), recipe.network(given), recipe.seed,
        console, check,
    )  # fmt: skip
    _do(work, sinks)
    for note in [*notes, *recipes.compared(picture, sinks.output)]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


RERUN_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    **OUTPUT_OPTIONS,
    ("--output", "-o"): {"type": FILE, "help": "Picture to write; PICTURE-again.png if left out."},
    **{names: {**settings, "default": None, "show_default": False} for names, settings in NETWORK_OPTIONS.items()},
    **QUIET_OPTIONS,
}
del RERUN_OPTIONS["--seed", "random_seed"]
main_group.add_command(
    click.Command(
        "rerun",
        callback=_rerun,
        params=[
            click.Argument(["picture"], metavar="PICTURE", type=FILE),
            click.Argument(["photographs"], nargs=-1, metavar="[PHOTO...]", type=FILE),
            *_parameters(RERUN_OPTIONS),
        ],
        short_help="Make a picture of convscope again, from the recipe that it carries.",
        help="Make a picture of convscope again, from the recipe that its PNG carries or that the JSON beside it is: "
        "the same technique, options, network, weights, photographs and seed, and so the same pixels. Photographs "
        "that have moved are named behind it, and other options say where the network is now.",
        context_settings=CONTEXT,
    )
)


def _train_style(
    paintings: tuple[Path, ...], photos: Path, output: Path, resume: Path | None, quiet: bool, **given: Any
) -> None:
    from convscope.feedforward import training
    from convscope.images import read_image
    from convscope.techniques.synthesize._layers import stages

    told = {option: given.pop(option) for option in [name for name in given if name in TRAINING]}
    photographs, state = training.Photographs(photos), training.resumed(resume)
    pictures = {path.stem: read_image(path) for path in paintings}
    if len(pictures) < len(paintings):
        raise OptionError("two of the pictures have the same name, which becomes the style's; rename one")
    network, console = load(given, told["seed"]), _console(quiet)
    layers = stages(network)
    told["style_layers"] = told["style_layers"] or tuple(layers)
    told["content_layers"] = told["content_layers"] or tuple(layers[1:-1] or layers[-1:])
    for layer in (*told["style_layers"], *told["content_layers"]):
        network.layer(layer)
    recipe = training.Recipe(**told)
    about = {
        **recipe.noted(), "network": network.name, "weights": network.weights, "precision": network.precision,
        "photographs": len(photographs.paths), "paintings": {p.name: registry.digest(p) for p in paintings},
    }  # fmt: skip
    with watched(console, "train-style"):
        steps = training.train(network, photographs, pictures, recipe, resume=state)
        done = training.train_into(output, steps, recipe.steps, about)
    notes = [f"{len(photographs.unreadable)} pictures could not be read"] if photographs.unreadable else []
    for note in [*done.notes, *notes, f"loss {done.loss:.3f} over the last steps, of {done.steps}"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for path in done.wrote:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


WEIGHT = {"type": click.FloatRange(0), "show_default": True}
COUNT = {"type": click.IntRange(1), "show_default": True}
TRAINING: dict[str, dict[str, Any]] = {
    "steps": {**COUNT, "default": 4000, "help": "Batches."},
    "size": {
        **COUNT,
        "type": click.IntRange(32),
        "default": 128,
        "help": "Side of the crops of photographs, in pixels.",
    },
    "batch": {**COUNT, "default": 2, "help": "Photographs a step."},
    "style_size": {**COUNT, "default": 256, "help": "Shorter side of the paintings, in pixels: how large strokes are."},
    "content": {**WEIGHT, "default": 20.0, "help": "Weight of the photograph's features."},
    "style": {**WEIGHT, "default": 50.0, "help": "Weight of the painting's Gram matrices."},
    "colours": {**WEIGHT, "default": 20.0, "help": "Weight of the mean and the spread of the painting's colours."},
    "shading": {**WEIGHT, "default": 10.0, "help": "Weight of light and dark where the photograph has them."},
    "variation": {**WEIGHT, "default": 30.0, "help": "Weight of the total variation; more is smoother."},
    "opening": {
        **WEIGHT,
        "type": click.FloatRange(0, 1),
        "default": 0.5,
        "help": "Share of the steps over which content and shading come in.",
    },
    "rate": {**WEIGHT, "default": 2e-3, "help": "Adam's rate at the start."},
    "content_layers": {"multiple": True, "metavar": "LAYER", "help": "Chosen if left out, as the next."},
    "style_layers": {"multiple": True, "metavar": "LAYER"},
    "seed": {"type": click.IntRange(0), "default": 0, "help": "Seed of first weights and crops."},
}
TRAIN_STYLE_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--photos",): {"type": click.Path(path_type=Path), "required": True, "metavar": "FOLDER",
                    "help": "Photographs to train on, a few thousand."},
    ("--output", "-o"): {"type": FILE, "default": Path("style.safetensors"), "show_default": True},
    **{(f"--{name.replace('_', '-').removesuffix('s') if 'multiple' in about else name.replace('_', '-')}", name): about
       for name, about in TRAINING.items()},
    ("--resume",): {"type": FILE, "metavar": "FILE.state", "help": "What a stopped training goes on from."},
}  # fmt: skip
main_group.add_command(
    click.Command(
        "train-style",
        callback=_train_style,
        params=[
            click.Argument(["paintings"], nargs=-1, required=True, metavar="STYLE...", type=FILE),
            *_parameters(TRAIN_STYLE_OPTIONS | NETWORK_OPTIONS | QUIET_OPTIONS),
        ],
        short_help="Train a network that paints in the style of one or several pictures in one pass, for `stylize`.",
        help="Train a network that paints in the style of one or several pictures in one pass, for `stylize`.\n\n"
        "It can be stopped at any time and keeps what it has; --resume ends with the weights of a training that never "
        "stopped.\n\nPapers: arXiv:1603.08155, 1607.08022, 1610.07629.",
        context_settings=CONTEXT,
    )
)


def _augment(folder: Path, output: Path, quiet: bool, styles: tuple[str, ...], **given: Any) -> None:
    from convscope.feedforward.augment import MANIFEST, augment

    console = _console(quiet)
    with watched(console, "augment"):
        found = augment(folder, output, styles, **given)
    for name, reason in list(found.unreadable.items())[:5]:
        console.print(f"note: skipped {name}: {reason}", markup=False)
    if len(found.unreadable) > 5:
        console.print(f"note: {len(found.unreadable)} pictures were skipped; {output / MANIFEST} has them all")
    console.print(f"wrote {found.painted} pictures into {output}; {found.before} were there already", markup=False)


AUGMENT_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--output", "-o"): {"type": click.Path(path_type=Path, file_okay=False), "required": True, "metavar": "FOLDER"},
    ("--style", "styles"): {"multiple": True, "required": True, "metavar": "NAME|FILE",
                            "help": "As `stylize` takes it; of several, each picture gets one by chance."},
    ("--strength",): {"type": click.FloatRange(0, 1), "default": 1.0, "show_default": True,
                      "help": "Share of the painting in the picture."},
    ("--size",): {"type": click.IntRange(1), "help": "Longer side at most, in pixels."},
    ("--seed",): {"type": click.IntRange(0), "default": 0, "help": "Seed of the choice among styles."},
}  # fmt: skip
main_group.add_command(
    click.Command(
        "augment",
        callback=_augment,
        params=[
            click.Argument(["folder"], metavar="FOLDER", type=click.Path(path_type=Path)),
            *_parameters(AUGMENT_OPTIONS | QUIET_OPTIONS),
        ],
        short_help="A painted copy of a folder of photographs, for training networks that go by shape.",
        help="A painted copy of a folder of photographs, for training networks that go by shape and not by texture "
        "(Geirhos et al. 2019, arXiv:1811.12231).\n\nFolders of classes stay as they are; what is there already "
        "stays, so that a stopped run goes on where it was; what cannot be read is skipped and listed in augment.json.",
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
