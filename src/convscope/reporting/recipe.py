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
from convscope.registry import TAKEN, TENSOR, Technique, digest, discover, is_picture, load
from convscope.results import versions
from convscope.zoo.builtin import FILES as BUILTIN

OUTPUT = "{name}.png"
FILE = "PICTURE.jpg"  # stands for a picture of one's own


# ---- what to type


@dataclass(frozen=True)
class Given:
    """What lines name: the photographs, none for the free ones; the index; and how ``load_network`` loads the network,
    which is told of the network itself where it is left out."""

    photographs: Sequence[str] = ()
    index: str = "PHOTOS.index"
    loaded: Mapping[str, Any] | None = None


ANY = Given()  # files of one's own


def command(
    technique: Technique[..., Any], network: Network, options: Mapping[str, Any] | None = None, given: Given = ANY
) -> str:  # fmt: skip
    """The line for a shell, with a photograph of one's own where the technique takes one and none is given."""
    words = ["convscope", technique.name]
    words += [given.index] if technique.takes_index else []
    own = "PHOTOGRAPHS/" if technique.together else "PHOTO.jpg"
    words += [*(given.photographs or [own])] if technique.takes_images else []
    words += [word for name, value in _chosen(technique, options).items() for word in flags(name, value)]
    words += network_flags(network, given.loaded) if technique.takes_network else []
    return shell([*words, "--output", OUTPUT.format(name=technique.name)])


def shell(words: Sequence[str]) -> str:
    """Words as a line that a shell reads as those words."""
    return " ".join(shlex.quote(word) for word in words)


def network_flags(network: Network, loaded: Mapping[str, Any] | None = None) -> list[str]:
    """The options of the command line that name it, without those at their defaults."""
    found = _loaded(network, loaded)
    spec = found.pop("network")
    words = [] if spec == "builtin" else ["--network", str(spec or "FILE.py:FACTORY")]
    joined = {name: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for name, v in found.items()}
    return words + [word for name, value in joined.items() for word in flags(name, value)]


def network_call(network: Network, loaded: Mapping[str, Any] | None = None) -> str:
    """The call of Python that loads it."""
    found = _loaded(network, loaded)
    spec = found.pop("network")
    if not spec:
        found.pop("weights", None)
    more = "".join(f", {name}={value!r}" for name, value in found.items())
    return f"convscope.load_network({repr(spec) if spec else 'my_module'}{more})"


def _loaded(network: Network, loaded: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keywords of ``load_network``, ``network`` first, without those at their defaults."""
    if loaded:
        kept = {name: value for name, value in loaded.items() if value is not None and value != _DEFAULTS.get(name)}
        return {"network": loaded["network"], **kept}
    spec, weights = _origin(network)
    found = {"network": spec, "weights": weights, "defence": str(network.defence) if network.defence else None}
    return {name: value for name, value in found.items() if value or name == "network"}


_DEFAULTS = {"weights": "default", "precision": "auto", "seed": 0}


def python(
    technique: Technique[..., Any], network: Network, options: Mapping[str, Any] | None = None, given: Given = ANY
) -> str:  # fmt: skip
    """The lines of Python that give the very pictures of the page."""
    chosen = "".join(f", {name}={_written(value)}" for name, value in _chosen(technique, options).items())
    call, end = f"convscope.{technique.function.__name__}", f'.save("{technique.name}.png")'
    taken = [name for name, there in (("index", technique.takes_index), ("network", technique.takes_network)) if there]
    lines = [f"index = convscope.open_index({given.index!r})"] if technique.takes_index else []
    lines += [f"network = {network_call(network, given.loaded)}"] if technique.takes_network else []
    if not technique.takes_images:
        return _lines(["import convscope"], [*lines, f"{call}({', '.join(taken)}{chosen}){end}"])
    prepare = f"{'index.' if technique.takes_index else ''}network.prepare"
    if given.photographs or technique.takes_index:
        files = list(given.photographs) or ["PHOTO.jpg"]
        read = [f"{prepare}(convscope.read_image({file!r}))" for file in files]
        images = f"image = {read[0]}" if len(files) == 1 else f"images = torch.stack([{', '.join(read)}])"
        imports = ["import convscope"] if len(files) == 1 else ["import torch", "import convscope"]
    elif technique.together:
        images = "images = torch.cat([parts_of(network, convscope.read_image(path)) for _, path in photographs()])"
        imports = ["import torch", "import convscope", "from convscope.reporting.samples import parts_of, photographs"]
    else:
        images = f"images = torch.stack([{prepare}(convscope.read_image(path)) for _, path in photographs()])"
        imports = ["import torch", "import convscope", "from convscope.reporting import photographs"]
    taken.append(images.partition(" ")[0])
    return _lines(imports, [*lines, images, f"{call}({', '.join(taken)}{chosen}){end}"])


def opening(network: Network, given: Given = ANY) -> list[str]:
    """What comes before a call of one's own: the network as ``network``, the first photograph prepared as ``image``."""
    read = [f"image = network.prepare(convscope.read_image({file!r}))" for file in given.photographs[:1]]
    return ["import convscope", "", f"network = {network_call(network, given.loaded)}", *read]


def _lines(imports: Sequence[str], body: Sequence[str]) -> str:
    return "\n".join([*imports, "", *body])


def call(technique: Technique[..., Any], options: Mapping[str, Any] | None = None) -> str:
    """The call in Python, with what it takes named ``index``, ``network`` and ``images``."""
    taken = [name for name in TAKEN if name != "images" and getattr(technique, f"takes_{name}")]
    taken += ["images"] if technique.takes_images else []
    chosen = [f"{name}={_formatted(value)}" for name, value in _chosen(technique, options).items()]
    return f"convscope.{technique.function.__name__}({', '.join([*taken, *chosen])})"


def _formatted(value: Any) -> str:
    """As it is written, with the quotation marks of formatted code."""
    if isinstance(value, list):
        return f"[{', '.join(map(_formatted, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _written(value).replace("'", '"')


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
