"""Running a technique: photographs in, results out, files written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convscope import registry
from convscope.cli.bar import make_console, watched
from convscope.cli.options import NETWORK_OPTIONS, load
from convscope.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from convscope.index import Index
    from convscope.network import Network
    from convscope.registry import Technique
    from convscope.results import Result


def _read(technique: Technique[..., Any], network: Network | None, path: Path, options: dict[str, Any]) -> Tensor:
    """One photograph as the technique gets it: as the network was trained, or at its own size."""
    from convscope.images import read_image

    image = read_image(path)
    if network is not None and not _keeps_size(technique, options):
        return network.prepare(image)
    return _sized(technique, image, options)


def _keeps_size(technique: Technique[..., Any], options: dict[str, Any]) -> bool:
    """Whether photographs are worked on at their own size: always, or as the user says."""
    return technique.keeps_size or bool(options.get("own_size"))


def _sized(technique: Technique[..., Any], image: Tensor, options: dict[str, Any]) -> Tensor:
    """The picture with its longer side at most the option ``size``, where there is one."""
    from convscope.images import resize

    most = options.get("size", next((o.default for o in technique.options if o.name == "size"), None))
    share = most / max(image.shape[1:]) if isinstance(most, int) else 1.0
    if share >= 1:
        return image
    return resize(image, (max(1, round(image.shape[1] * share)), max(1, round(image.shape[2] * share))))


def chosen_options(technique: Technique[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the user said, without what was left out, for the technique's own defaults."""
    chosen: dict[str, Any] = {}
    for option in technique.options:
        value = given.get("random_seed") if option.name == "seed" else given.pop(option.name)
        if isinstance(value, tuple):
            value = None if not value else value[0] if len(value) == 1 else list(value)
        if value is not None:
            chosen[option.name] = value
    return chosen


@dataclass
class Work:
    """What one command has to do: a technique with its options, on photographs, with a network as ``spec`` says.

    ``index`` is the folder of the index that it asks, where it asks one.
    """

    technique: Technique[..., Any]
    options: dict[str, Any]
    photographs: list[Path]
    spec: dict[str, Any]
    seed: int | None
    console: Console
    check: Callable[[Network | None], None] = lambda network: None
    index: Path | None = None

    def results(self) -> Iterator[Result]:
        """The result; or one after another for each photograph, where they keep their own sizes."""
        from convscope import progress

        index, network = self._opened()
        self.check(network)
        own = _keeps_size(self.technique, self.options) or network is None
        apart = self.technique.takes_images and own and bool(self.photographs)
        groups = [[path] for path in self.photographs] if apart else [self.photographs]
        for group in progress.over(groups, "photographs"):
            yield self._result(index, network, group)

    def _opened(self) -> tuple[Index | None, Network | None]:
        """What the technique looks into: an index, with its network where photographs are to be prepared, or that."""
        if self.index is None:
            return None, load(dict(self.spec), self.seed) if self.technique.takes_network else None
        from convscope.index import open_index

        index = open_index(self.index)
        given = {name: value for name, value in self.spec.items() if value is not None}
        if given:
            index = open_index(self.index, network=load({**index.provenance["loaded"], **given}, self.seed))
        return index, index.network if self.technique.takes_images else None

    def _result(self, index: Index | None, network: Network | None, photographs: list[Path]) -> Result:
        import torch

        images = [_read(self.technique, network, path, self.options) for path in photographs]
        result = self.technique.on(network, torch.stack(images) if images else None, index=index, **self.options)
        made = result.provenance
        provenance = dataclasses.replace(
            made,
            photographs=tuple(map(str, photographs)),
            digests={**made.digests, **{str(path): registry.digest(path) for path in photographs}},
            seed=self.seed if made.seed is None else made.seed,
            loaded=loaded_with(self.spec) if self.technique.takes_network else made.loaded,
        )
        return dataclasses.replace(result, provenance=provenance)


def loaded_with(spec: dict[str, Any]) -> dict[str, Any]:
    """The options of the network that are not at their defaults, and its name."""
    defaults = {names[0].lstrip("-").replace("-", "_"): o.get("default") for names, o in NETWORK_OPTIONS.items()}
    return {n: v for n, v in spec.items() if n == "network" or (v is not None and v != defaults.get(n))}


@dataclass
class Sinks:
    """Where a command's results go."""

    output: Path | None
    raw: Path | None
    as_json: bool
    adversarial: Path | None = None
    wrote: list[Path] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def taken(cls, given: dict[str, Any]) -> Sinks:
        output, raw, as_json = (given.pop(name) for name in ("output", "raw", "as_json"))
        return cls(output, raw, as_json, given.pop("adversarial", None))

    def save(self, result: Result, technique: str, number: int | None) -> None:
        """Write the files of one result; ``number`` it where there are several."""
        from convscope import views
        from convscope.results import Adversarial

        output, raw = self.output, self.raw
        if output is None and not self.as_json and raw is None and views.needs_picture(result):
            output = Path(f"{technique}.png")
        if raw is not None:
            self._write(result, raw if raw.suffix == ".npz" else raw.with_name(raw.name + ".npz"), number)
        if self.adversarial is not None and isinstance(result, Adversarial):
            self.wrote += result.write_pictures(_numbered(self.adversarial, number))
        if output is not None:
            path = self._write(result, output, number)
            entry = registry.discover().get(technique)
            if entry is not None and entry.family == "synthesize" and path.suffix != ".json":
                result.save(path.with_suffix(".json"))  # its recipe
            self._beside(result, path)

    def _write(self, result: Result, path: Path, number: int | None) -> Path:
        path = _numbered(path, number)
        self.wrote.append(result.save(path))
        return path

    def _beside(self, result: Result, path: Path) -> None:
        """Of a stopped run what it goes on from; and what is missing for a film."""
        from convscope.animation import FORMATS
        from convscope.optimize import save_state
        from convscope.results import Synthesis

        if path.suffix in FORMATS and path.suffix != ".webp" and isinstance(result, Synthesis) and not result.frames:
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


def _numbered(path: Path, number: int | None) -> Path:
    return path if number is None else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _json(results: Sequence[Result]) -> str:
    """One object, or a list of them; the same whether photographs were worked on together or apart."""
    if len(results) == 1:
        return results[0].to_json()
    found = [json.loads(result.to_json()) for result in results]
    return json.dumps([one for each in found for one in (each if isinstance(each, list) else [each])], indent=2)


def do(work: Work, sinks: Sinks) -> list[Result]:
    """Do it with its progress shown; what is finished is saved at once, and said at the end."""
    technique = work.technique.name
    several = _keeps_size(work.technique, work.options) and len(work.photographs) > 1
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


def run_technique(technique: Technique[..., Any], given: dict[str, Any]) -> None:
    """What the command of a technique does."""
    import convscope
    from convscope import films
    from convscope.images import pictures_in

    technique = getattr(convscope, technique.name.replace("-", "_"))  # results that can draw themselves
    sinks, console = Sinks.taken(given), make_console(given.pop("quiet"))
    paths, index = pictures_in(given.pop("photographs", ())), given.pop("index", None)
    options = chosen_options(technique, given)
    seed = given.pop("random_seed", None)
    checked = technique.check(options)
    for option in technique.options:
        if registry.is_picture(option.annotation):
            registry.pictures_of(checked[option.name])  # before the network is loaded
    if technique.films and any(map(films.is_film, paths)):
        return _films(technique, options, paths, sinks, console)
    do(Work(technique, options, paths, given, seed, console, index=index), sinks)
