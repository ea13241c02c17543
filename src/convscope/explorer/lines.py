"""The lines that repeat what the page shows at once, without a run; a run's are those of ``reporting.recipe``, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from convscope import registry
from convscope.network import Network
from convscope.perturb import Box
from convscope.reporting import recipe
from convscope.reporting.recipe import Given

CHANGED = "changed.png"  # what the page saves a changed picture as
CONTENT = {"mean": "colour", "grey": "0.5", "black": "0"}


def of_layer(network: Network, layer: str, given: Given, channel: int | None = None) -> dict[str, str]:
    """All maps of a layer, or one of them."""
    technique = _looks("layer", True)
    observed = f"convscope.observe(network, image[None], [{layer!r}])[{layer!r}]"
    shape = " x ".join(map(str, network.layer(layer).shape))
    line = f"maps = {observed}  # {shape}" if channel is None else f"fired = {observed}[0, {channel}]"
    return {
        "command": "" if technique is None else recipe.command(technique, network, {"layer": layer}, given),
        "python": "\n".join([*recipe.opening(network, given), line]),
    }


def of_changes(network: Network, given: Given, wanted: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What the network says of a picture that is covered, moved or painted, or of the picture as it is."""
    technique = _looks("layer", False)
    changes = _changes(wanted or {})
    named = replace(given, photographs=[CHANGED]) if changes else given
    command = "" if technique is None else recipe.command(technique, network, {}, named)
    return {
        "command": f"# save the changed picture, then\n{command}" if changes and command else command,
        "python": "\n".join([*recipe.opening(network, given), *changes, "network(image[None]).softmax(1).topk(5)"]),
    }


def _changes(wanted: Mapping[str, Any]) -> list[str]:
    """The picture as ``live.changed`` changes it."""
    boxes: list[Box] = [tuple(box) for box in wanted.get("boxes", ())]
    epsilon, style, fill = wanted.get("epsilon", 0.0), wanted.get("style"), wanted.get("fill", "mean")
    lines = []
    if epsilon:
        lines += ["", "clean = image[None].clone().requires_grad_()",
                  "slope = convscope.gradient(network(clean).log_softmax(1).amax(1), clean)[0]"]  # fmt: skip
    if style:
        kept = round(1 - wanted.get("strength", 1.0), 2)
        lines += ["from convscope.feedforward.painting import brush",
                  f"image = brush({style!r})(image).clamp(0, 1).lerp(image, {kept:g})"]  # fmt: skip
    if epsilon:
        lines.append(f"image = (image - {round(255 * epsilon, 2):g} / 255 * slope.sign()).clamp(0, 1)")
    if boxes:
        height, width = boxes[0][2:]
        lines += ["colour = image.mean((1, 2), keepdim=True)"] if fill == "mean" else []
        lines += [f"for top, left in {[list(box[:2]) for box in boxes]}:",
                  f"    image[:, top : top + {height}, left : left + {width}] = {CONTENT[fill]}"]  # fmt: skip
    return lines


def _looks(option: str, has: bool) -> registry.Technique[..., Any] | None:
    """The first technique that looks inside at a picture, and has that option or has it not."""
    found = (registry.load(name) for name in registry.discover())
    return next(
        (each for each in found if each.family == "look" and each.takes_images
         and any(o.name == option for o in each.options) == has), None,
    )  # fmt: skip
