"""How to make a result again: the line for the shell, the lines of Python, and the recipe that a file carries."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import ConvscopeError, ImageError, NetworkError, OptionError, nearest
from convscope.images import read_recipe
from convscope.network import Network
from convscope.registry import TENSOR, Technique, digest, discover, is_picture, load
from convscope.results import versions
from convscope.zoo.builtin import FILES as BUILTIN

OUTPUT = "{name}.png"
FILE = "PICTURE.jpg"  # stands for a picture of one's own


# ---- what to type


def command(technique: Technique[..., Any], network: Network, options: Mapping[str, Any] | None = None) -> str:
    """The line for a shell, with a photograph of one's own where the technique takes one."""
    words = ["convscope", technique.name]
    words += ["PHOTOS.index"] if technique.takes_index else []
    words += ["PHOTO.jpg"] if technique.takes_images else []
    words += [word for name, value in _chosen(technique, options).items() for word in flags(name, value)]
    words += _named(network) if technique.takes_network else []
    return " ".join(shlex.quote(word) for word in [*words, "--output", OUTPUT.format(name=technique.name)])


def _named(network: Network) -> list[str]:
    spec, weights = _origin(network)
    words = [] if spec == "builtin" else ["--network", spec or "FILE.py:FACTORY"]
    words += ["--weights", weights] if weights else []
    return words + (["--defence", str(network.defence)] if network.defence else [])


def python(technique: Technique[..., Any], network: Network, options: Mapping[str, Any] | None = None) -> str:
    """The lines of Python that give the very pictures of the page."""
    spec, weights = _origin(network)
    chosen = "".join(f", {name}={_written(value)}" for name, value in _chosen(technique, options).items())
    given = (repr(spec) if spec else "my_module") + (f", weights={weights!r}" if weights and spec else "")
    given += f", defence={str(network.defence)!r}" if network.defence else ""
    loaded = f"network = convscope.load_network({given})"
    function = technique.name.replace("-", "_")
    taken = "network, images" if technique.takes_network else "images"
    if technique.takes_index:
        return _asked(technique, chosen)
    if not technique.takes_images:
        call = f"convscope.{function}(network{chosen})"
        return "\n".join(["import convscope", "", loaded, f'{call}.save("{technique.name}.png")'])
    return "\n".join(
        [
            "import torch", "import convscope", "from convscope.reporting import photographs", "", loaded,
            "images = torch.stack([network.prepare(convscope.read_image(path)) for _, path in photographs()])",
            f'convscope.{function}({taken}{chosen}).save("{technique.name}.png")',
        ]
    )  # fmt: skip


def _asked(technique: Technique[..., Any], chosen: str) -> str:
    """The lines of Python for a question on an index."""
    lines = ["import convscope", "", 'index = convscope.open_index("PHOTOS.index")']
    if technique.takes_images:
        lines += ['image = index.network.prepare(convscope.read_image("PHOTO.jpg"))']
    taken = "index, image" if technique.takes_images else "index"
    return "\n".join([*lines, f'convscope.{technique.function.__name__}({taken}{chosen}).save("{technique.name}.png")'])


def _written(value: Any) -> str:
    return repr(FILE if hasattr(value, "detach") else value)


def _chosen(technique: Technique[..., Any], options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that are not at their defaults."""
    defaults = {option.name: option.default for option in technique.options}
    return {name: value for name, value in (options or {}).items() if value != defaults.get(name)}


def flags(name: str, value: Any) -> list[str]:
    """An option with its value, as the command line takes it; a tensor as the file that it would be."""
    flag = f"--{name.replace('_', '-')}"
    if hasattr(value, "detach"):
        return [flag, FILE]
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if isinstance(value, (list, tuple)):
        return [word for each in value for word in (flag, str(each))]
    return [flag, str(value)]


def _origin(network: Network) -> tuple[str | None, str | None]:
    """What ``load_network`` takes to load it again: the name, None for a module of one's own, and the weights."""
    found = _as_named(network.name, network.weights)
    known = network.name in BUILTIN or ":" in network.name
    return network.name if known else None, found.get("weights")


# ---- what a file says


@dataclass(frozen=True)
class Recipe:
    """What a file says of how it was made: ``made`` is the provenance, as JSON keeps it."""

    source: Path
    made: Mapping[str, Any]

    @cached_property
    def technique(self) -> Technique[..., Any]:
        """The technique; :class:`OptionError` when it is not installed."""
        name = str(self.made["technique"])
        if name not in discover():
            raise OptionError(f"{self.source} was made by {name!r}, which is not installed{nearest(name, discover())}")
        return load(name)

    def options(self) -> dict[str, Any]:
        """The technique's options, pictures found again.

        Raises :class:`OptionError` for one that was a tensor, :class:`ImageError` for a picture that is gone.
        """
        given: dict[str, Any] = dict(self.made["options"])
        lost = [name for name, value in given.items() if str(value).startswith((TENSOR, f"['{TENSOR}"))]
        if lost:
            raise OptionError(
                f"{self.source} was made with a tensor as {lost[0]!r}, which no file holds; repeat it in Python"
            )
        pictures = [o.name for o in self.technique.options if is_picture(o.annotation) and given.get(o.name)]
        for name in pictures:
            paths = given[name] if isinstance(given[name], list) else [given[name]]
            found = [self._found(path, f"put it back to repeat {self.source.name}") for path in paths]
            given[name] = found if isinstance(given[name], list) else found[0]
        return given

    def photographs(self, instead: Sequence[Path] = ()) -> list[Path]:
        """The photographs that it was made from, or where the user says that they are now."""
        remedy = f"say where it is: convscope rerun {self.source.name} PHOTO"
        named: Sequence[str] = self.made["photographs"]
        if not self.technique.takes_images:
            return []
        if not named and not instead and not self.technique.needs_images:
            return []
        if not named and not instead:
            raise ImageError(f"{self.source} does not say from which photograph it was made; {remedy}")
        if not instead:
            return [self._found(path, remedy) for path in named]
        if named and len(instead) != len(named):
            raise OptionError(
                f"{self.source} was made from {len(named)} photographs, not {len(instead)}; name them all"
            )
        for path, now in zip(named, instead, strict=False):
            self._check(str(path), now, remedy)
        return list(instead)

    def _found(self, path: str, remedy: str) -> Path:
        """A file where it was, or beside the picture."""
        for place in (Path(path), self.source.parent / path, self.source.parent / Path(path).name):
            if place.is_file():
                self._check(path, place, remedy)
                return place
        raise ImageError(f"{self.source} was made from {path}, which is not there any more; {remedy}")

    def _check(self, path: str, now: Path, remedy: str) -> None:
        expected = self.made.get("digests", {}).get(path)
        if expected and digest(now) != expected:
            raise ImageError(f"{now} is not what {self.source} was made from, since its contents differ; {remedy}")

    def index(self) -> Path | None:
        """The index that was asked, where it was or beside the picture; :class:`OptionError` when it is gone."""
        if not self.technique.takes_index:
            return None
        named = str(self.made.get("index", ""))
        for place in (Path(named), self.source.parent / named, self.source.parent / Path(named).name):
            if named and place.is_dir():
                return place
        raise OptionError(f"{self.source} was made from the index {named}, which is not there any more; put it back")

    def network(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What to load the network with: as then, except for what is given now."""
        if self.technique.takes_index:
            return {name: value for name, value in given.items() if value is not None}
        if not self.technique.takes_network:
            return {}
        kept = dict(self.made.get("loaded", {}))
        if not kept.get("network"):
            name, weights = str(self.made["network"]), str(self.made["weights"])
            known = name in BUILTIN or ":" in name
            if not known and not given.get("network"):
                raise NetworkError(
                    f"{self.source} was made in Python with a network called {name!r}; name it: "
                    "--network FILE.py:FACTORY"
                )
            defence = {"defence": self.made["defence"]} if self.made.get("defence") else {}
            kept = {**(_as_named(name, weights) if known else {}), **defence, **kept}
        return {**kept, **{name: value for name, value in given.items() if value is not None}}

    @property
    def seed(self) -> int | None:
        """What random weights were drawn by."""
        drawn = re.fullmatch(r"random, seed (\d+)", str(self.made["weights"]))
        return int(drawn[1]) if drawn else None

    def check_network(self, network: Network | None) -> None:
        """:class:`NetworkError` when these are other weights."""
        if network is not None and network.weights != self.made["weights"]:
            raise NetworkError(
                f"{self.source} was made with the weights {self.made['weights']!r}, and these are {network.weights!r}; "
                "name the right ones with --weights FILE"
            )

    def notes(self, network: Network | None) -> list[str]:
        """What else is not as it was, so that the last digits may differ."""
        now, then = versions(), dict(self.made.get("versions", {}))
        changed = [
            f"{name} {then[name]} is now {now.get(name, 'absent')}" for name in then if now.get(name) != then[name]
        ]
        if network is not None and str(network.device) != self.made["device"]:
            changed.append(f"{self.made['device']} is now {network.device}")
        if network is not None and self.made["precision"] not in (network.arithmetic, network.drawing.arithmetic):
            changed.append(f"{self.made['precision']} is now {network.arithmetic}")
        return [f"not all is as it was, so that pixels may differ: {', '.join(changed)}"] if changed else []


def read(source: Path) -> Recipe:
    """The recipe in a PNG, or in a JSON file that was written beside a picture.

    Raises :class:`ConvscopeError` when the file holds none.
    """
    try:
        made = _stored(source)
    except ValueError:
        made = None
    if not isinstance(made, dict) or not {"technique", "options", "photographs"} <= set(made):
        raise ConvscopeError(
            f"{source} carries no recipe; convscope puts one into every PNG and JSON file that it writes, and programs "
            "that edit pictures drop it"
        )
    return Recipe(source, made)


def _stored(source: Path) -> Any:
    if source.suffix.lower() != ".json":
        return json.loads(read_recipe(source) or "null")
    try:
        found = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ImageError(f"{source} cannot be read: {error.strerror}") from error
    first = found[0] if isinstance(found, list) and found else found
    return first.get("provenance") if isinstance(first, dict) else None


def _as_named(name: str, weights: str) -> dict[str, Any]:
    """The options of ``load_network`` for a network that was loaded by its name."""
    if weights.startswith("random"):
        return {"network": name, "weights": "random"}
    file, _, found = weights.partition(" sha256:")
    shipped = not found or (name in BUILTIN and file == BUILTIN[name].name)
    return {"network": name} if shipped else {"network": name, "weights": file}


def compared(first: Path, second: Path) -> list[str]:
    """What two files of pictures have in common, in a sentence; nothing where one is no picture without loss."""
    from PIL import Image

    if {first.suffix.lower(), second.suffix.lower()} != {".png"} or not second.is_file():
        return []
    with Image.open(first) as one, Image.open(second) as other:
        pixels, again = (np.asarray(picture.convert("RGB")).astype(int) for picture in (one, other))
    if pixels.shape != again.shape:
        return [f"{second} has another size than {first}"]
    off = np.abs(pixels - again).max(2)
    if not off.any():
        return [f"{second} equals {first} in every pixel"]
    return [f"{second} differs from {first} in {np.mean(off > 0):.1%} of the pixels, by at most {off.max()} of 255"]
