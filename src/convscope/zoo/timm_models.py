"""timm's networks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from convscope.errors import NetworkError, nearest
from convscope.extras import require
from convscope.zoo.blueprint import Blueprint, Description, State, first_line
from convscope.zoo.torchvision_models import import_torchvision


def import_timm() -> ModuleType:
    """timm, torchvision imported before it in the way that works.

    Raises :class:`convscope.errors.MissingExtra` when either is not installed.
    """
    import_torchvision()
    return require("timm", "zoo")


def names() -> list[str]:
    """The networks of the installed timm, without the tags of their weights."""
    return list(import_timm().list_models())


def blueprint(name: str, input_size: tuple[int, int] | None = None) -> Blueprint:
    """timm's network of that name, such as ``resnet50`` or ``resnet50.a1_in1k``.

    ``input_size`` counts where the architecture depends on it. Raises :class:`NetworkError`, which names the nearest.
    """
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise NetworkError(f"timm has no network {architecture!r}{nearest(architecture, names())}")
    published = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in published:
        raise NetworkError(f"timm:{architecture} has no weights {tag!r}; it has {', '.join(published) or 'none'}")
    settings = timm.models.get_pretrained_cfg(name)
    options = {"img_size": input_size} if input_size and settings is not None and settings.fixed_input_size else {}
    return Blueprint(
        name=f"timm:{name}",
        build=partial(_build, name, options),
        pretrained=partial(_pretrained, name, options),
        classes=None if settings is None else settings.num_classes,
        description=_described(timm, settings),
        translate=dict,
        convert=partial(_converted, name, options),
    )


def _build(name: str, options: Mapping[str, Any], classes: int | None) -> nn.Module:
    chosen = {} if classes is None else {"num_classes": classes}
    try:
        return _create(name, pretrained=False, **options, **chosen)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        size = "x".join(map(str, options["img_size"]))
        raise NetworkError(f"timm:{name} is made for one size of picture and cannot be built for {size}") from error
    except (ValueError, AssertionError) as error:
        raise NetworkError(f"timm:{name} cannot be built: {first_line(error)}") from error


def _create(name: str, **options: Any) -> nn.Module:
    return import_timm().create_model(name, **options)


def _pretrained(name: str, options: Mapping[str, Any]) -> tuple[nn.Module, str]:
    settings = import_timm().models.get_pretrained_cfg(name)
    if settings is None or not settings.has_weights:
        raise NetworkError(f"timm publishes no weights for {name}; pass --weights FILE or --weights random")
    stored = _stored(settings)
    overlay = {"pretrained_cfg_overlay": {"file": stored}} if stored else {}
    try:
        if stored is None and settings.hf_hub_id:
            _check_hub()
        with redirect_stdout(sys.stderr):  # standard output is for data
            module = _create(name, pretrained=True, **overlay, **options)
    except Exception as error:  # what a download may raise depends on the hub's client
        raise NetworkError(
            f"the weights of timm:{name} cannot be fetched ({first_line(error)}); "
            "pass --weights FILE with them, or --weights random"
        ) from error
    return module, f"timm {settings.architecture or name.partition('.')[0]}.{settings.tag or 'default'}"


def _stored(settings: Any) -> str | None:
    """The file that an earlier download left, so that nothing is asked of the hub again."""
    if not settings.hf_hub_id or settings.custom_load:
        return None
    hub = require("huggingface_hub", "zoo")
    repository, _, revision = settings.hf_hub_id.partition("@")
    files = [settings.hf_hub_filename] if settings.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    found = (hub.try_to_load_from_cache(repository, file, revision=revision or None) for file in files)
    return next((path for path in found if isinstance(path, str)), None)


def _check_hub() -> None:
    """Raise what the hub's client raises when the hub is out of reach; a download of its own tries for a minute."""
    hub = require("huggingface_hub", "zoo")
    hub.utils.get_session().head(hub.constants.ENDPOINT, timeout=10)


def _converted(name: str, options: Mapping[str, Any], state: State, classes: int | None) -> nn.Module:
    """By timm's own translation of the layouts in which authors published."""
    chosen = {} if classes is None else {"num_classes": classes}
    overlay = {"state_dict": state, **chosen}
    return _create(name, pretrained=True, pretrained_cfg_overlay=overlay, **options, **chosen)


def _described(timm: ModuleType, settings: Any) -> Description:
    if settings is None:
        return Description()
    config = timm.data.resolve_data_config(pretrained_cfg=settings.to_dict())
    return Description(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        input_size=tuple(config["input_size"][-2:]),
        crop=min(1.0, float(config["crop_pct"])),
        labels=_labels(timm, settings.num_classes),
    )


def _labels(timm: ModuleType, classes: int) -> tuple[str, ...] | None:
    """WordNet's words for the classes of ImageNet-1k, -12k, -21k and -22k, told apart by their number."""
    subset = timm.data.infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    described = timm.data.ImageNetInfo(subset).label_descriptions()
    return tuple(described) if len(described) == classes else None
