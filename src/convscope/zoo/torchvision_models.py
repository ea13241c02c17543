"""torchvision's classification networks, also where its compiled operators do not match the installed torch."""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convscope.errors import NetworkError, nearest
from convscope.extras import require
from convscope.zoo.blueprint import Blueprint, Description, State, first_line

#: what torchvision registers at import and no classification network calls
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a schema lives as long as its library
#: heads that only training uses; files may hold them or not
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def import_torchvision() -> ModuleType:
    """torchvision, its missing operators declared where its compiled part does not match the installed torch.

    Raises :class:`convscope.errors.MissingExtra` when it is not installed.
    """
    try:
        return require("torchvision", "zoo")
    except RuntimeError as error:
        if not re.search(r"operator torchvision::\w+ does not exist", str(error)):
            raise
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    _declare_operators()
    return require("torchvision", "zoo")


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    logging.getLogger("convscope").warning(
        "torchvision's compiled operators do not match torch %s; networks work, detection operators such as nms do not",
        torch.__version__,
    )


def names() -> list[str]:
    """The classification networks of the installed torchvision."""
    models = import_torchvision().models
    return list(models.list_models(module=models))


def blueprint(name: str, input_size: tuple[int, int] | None = None) -> Blueprint:
    """torchvision's network of that name; ``input_size`` counts where the architecture depends on it.

    Raises :class:`NetworkError`, which names the nearest ones.
    """
    models = import_torchvision().models
    if name not in names():
        if name in models.list_models():
            raise NetworkError(f"torchvision:{name} is no classifier; build it in Python and hand the module over")
        raise NetworkError(f"torchvision has no network {name!r}{nearest(name, names())}")
    weights = models.get_model_weights(name).DEFAULT
    own = _architecture_size(models, name, weights)
    sizes = {} if own is None else {own: input_size or _side(weights.meta["min_size"])}
    blueprint = Blueprint(
        name=f"torchvision:{name}",
        build=partial(_build, name, sizes),
        pretrained=partial(_pretrained, name, weights),
        classes=len(weights.meta["categories"]),
        description=_described(weights),
        translate=_translated,
    )
    return blueprint if own != "image_size" else replace(blueprint, adapt=partial(_for_its_positions, name, blueprint))


def _side(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(height), int(width)


def _architecture_size(models: ModuleType, name: str, weights: Any) -> str | None:
    """The argument by which an architecture is made for one size of picture, if it is."""
    makers: Mapping[str, Callable[..., Any]] = {"vit": models.VisionTransformer, "maxvit": models.MaxVit}
    maker = makers.get(name.partition("_")[0])
    if maker is None:
        return None
    return next((p for p in ("image_size", "input_size") if p in inspect.signature(maker).parameters), None)


def _build(name: str, sizes: Mapping[str, tuple[int, int]], classes: int | None) -> nn.Module:
    options: dict[str, Any] = dict(sizes)
    if "image_size" in options:
        height, width = options["image_size"]
        if height != width:
            raise NetworkError(f"torchvision:{name} takes square pictures, not {height}x{width}")
        options["image_size"] = height
    if name in ("googlenet", "inception_v3"):
        # As the published weights want it: pictures come with ImageNet's statistics and are scaled again inside.
        options |= {"transform_input": True, "aux_logits": False, "init_weights": True}
    if classes is not None:
        options["num_classes"] = classes
    try:
        return import_torchvision().models.get_model(name, weights=None, **options)
    except (ValueError, AssertionError) as error:
        raise NetworkError(f"torchvision:{name} cannot be built: {first_line(error)}") from error


def _for_its_positions(name: str, blueprint: Blueprint, state: State) -> Blueprint:
    """A ViT for the size of picture that its position embedding was trained for."""
    positions, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return blueprint
    side = round((positions.shape[1] - 1) ** 0.5) * patches.shape[-1]
    description = replace(blueprint.description, input_size=(side, side))
    return replace(blueprint, build=partial(_build, name, {"image_size": (side, side)}), description=description)


def _described(weights: Any) -> Description:
    preset = weights.transforms()
    crop, resized = preset.crop_size[-1], preset.resize_size[-1]
    return Description(
        mean=tuple(map(float, preset.mean)),
        std=tuple(map(float, preset.std)),
        input_size=(crop, crop),
        crop=min(1.0, crop / resized),
        labels=tuple(weights.meta["categories"]),
    )


def _pretrained(name: str, weights: Any) -> tuple[nn.Module, str]:
    source = f"torchvision {weights}"
    try:
        with redirect_stdout(sys.stderr):  # standard output is for data
            state = torch.hub.load_state_dict_from_url(
                weights.url, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise NetworkError(
            f"the weights of torchvision:{name} cannot be fetched ({first_line(error)}); "
            "pass --weights FILE with them, or --weights random"
        ) from error
    size = _architecture_size(import_torchvision().models, name, weights)
    module = _build(name, {size: _side(weights.meta["min_size"])} if size else {}, None)
    module.load_state_dict(_translated(state))
    return module, source


#: DenseNet's published weights name their layers as PyTorch 0.3 did
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")


def _translated(state: State) -> State:
    return {
        _OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items() if not name.startswith(_AUXILIARY)
    }
