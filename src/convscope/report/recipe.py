"""How to make a result again: the line for the shell and the lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from convscope.network import Network
from convscope.registry import Technique

OUTPUT = "{name}.png"


def command(technique: Technique[..., Any], network: Network, options: Mapping[str, Any] | None = None) -> str:
    """The line for a shell, with a photograph of one's own where the technique takes one."""
    words = ["convscope", technique.name]
    words += ["PHOTO.jpg"] if technique.takes_images else []
    words += [word for name, value in _chosen(technique, options).items() for word in _flag(name, value)]
    spec, weights = _origin(network)
    words += [] if spec in (None, "builtin") else ["--network", str(spec)]
    words += ["--network", "FILE.py:FACTORY"] if spec is None else []
    words += ["--weights", weights] if weights else []
    return " ".join(shlex.quote(word) for word in [*words, "--output", OUTPUT.format(name=technique.name)])


def python(technique: Technique[..., Any], network: Network, options: Mapping[str, Any] | None = None) -> str:
    """The lines of Python that give the very pictures of the page."""
    spec, weights = _origin(network)
    chosen = "".join(f", {name}={value!r}" for name, value in _chosen(technique, options).items())
    given = f"{spec!r}" + (f", weights={weights!r}" if weights else "")
    loaded = f"network = convscope.load_network({given})" if spec else "network = convscope.load_network(my_module)"
    function = technique.name.replace("-", "_")
    if not technique.takes_images:
        call = f"convscope.{function}(network{chosen})"
        return "\n".join(["import convscope", "", loaded, f'{call}.save("{technique.name}.png")'])
    return "\n".join(
        [
            "import torch", "import convscope", "from convscope.report import photographs", "", loaded,
            "images = torch.stack([network.prepare(convscope.read_image(path)) for _, path in photographs()])",
            f'convscope.{function}(network, images{chosen}).save("{technique.name}.png")',
        ]
    )  # fmt: skip


def _chosen(technique: Technique[..., Any], options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that are not at their defaults."""
    defaults = {option.name: option.default for option in technique.options}
    return {name: value for name, value in (options or {}).items() if value != defaults.get(name)}


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if isinstance(value, (list, tuple)):
        return [word for each in value for word in (flag, str(each))]
    return [flag, str(value)]


def _origin(network: Network) -> tuple[str | None, str | None]:
    """What ``load_network`` takes to load it again: the name, None for a module of one's own, and the weights."""
    spec = network.name if network.name == "builtin" or ":" in network.name else None
    if network.weights.startswith("random"):
        return spec, "random"
    file, _, digest = network.weights.partition(" sha256:")
    shipped = spec == "builtin" and file == "builtin.safetensors"
    return spec, file if digest and not shipped else None
