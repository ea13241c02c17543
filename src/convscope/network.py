"""A network as convscope sees it: a module that takes RGB in [0, 1], its labels and its named layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convscope.backward import gradient
from convscope.batching import is_out_of_memory
from convscope.defences import Defence, defence
from convscope.errors import ConvscopeError, NetworkError, UnknownLayer, UnknownTarget, nearest
from convscope.hooks import OUTPUT, Run, evaluation_mode, first_tensor, observe, outline, sequence
from convscope.images import fit, unfit
from convscope.receptive_field import ReceptiveField, Tracer
from convscope.stem import stems
from convscope.weights import at_hand

Precision = Literal["auto", "float32", "bfloat16"]
Layout = Literal["NCHW", "NHWC", "tokens", "none"]
_CACHED = 8 * 224 * 224  # pixels a pass: with half as many each takes 3 to 10 % longer on two cores
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what Pillow's "L" uses


@dataclass(frozen=True)
class LayerInfo:
    """One layer as a pass met it.

    ``shape`` leaves out the batch dimension; ``parameters`` are its own and those of the layers inside it.
    ``grid`` is the (rows, columns) that its units stand in, or None where it has no spatial extent.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    calls: int
    layout: Layout
    grid: tuple[int, int] | None
    channels: int
    receptive_field: ReceptiveField | None = None

    @property
    def spatial(self) -> bool:
        return self.grid is not None and math.prod(self.grid) > 1


def _alike(grid: tuple[int, int] | None, picture: tuple[int, int]) -> bool:
    """Whether a grid has the picture's proportions, to one row or column."""
    ratio = picture[0] / picture[1]
    return grid is not None and abs(grid[0] - grid[1] * ratio) <= max(1.0, ratio)


def spatial_layout(shape: Sequence[int], picture: tuple[int, int]) -> tuple[Layout, tuple[int, int] | None]:
    """How the units of an output of this ``shape`` (without N) stand over a picture of (H, W) pixels.

    (C, H, W), (H, W, C) and token rows (T, C), with up to eight class or register tokens in front of the grid; told
    apart by which sides have the picture's proportions.
    """
    height, width = picture
    if len(shape) == 3:
        first, second, third = shape
        if not _alike((second, third), picture) and _alike((first, second), picture):
            return "NHWC", (first, second)
        return "NCHW", (second, third)
    if len(shape) == 2:
        for prefix in range(9):
            tokens = shape[0] - prefix
            rows = round(math.sqrt(max(tokens, 0) * height / width))
            if rows > 1 and tokens % rows == 0 and rows * width == tokens // rows * height:
                return "tokens", (rows, tokens // rows)
    return "none", None


def to_maps(activation: Tensor, layout: Layout, grid: tuple[int, int] | None) -> Tensor:
    """(N, C, H, W) view of a layer's output, whatever its layout; (N, C, 1, 1) where it has no spatial extent."""
    if layout == "NCHW":
        return activation
    if layout == "NHWC":
        return activation.movedim(-1, 1)
    if layout == "tokens" and grid is not None:
        prefix = activation.shape[1] - math.prod(grid)
        return activation[:, prefix:].transpose(1, 2).unflatten(2, grid)
    return activation.flatten(1)[:, :, None, None]


@dataclass(frozen=True, eq=False)
class Network:
    """A module with everything around it that a technique needs.

    Calling it takes (N, 3, H, W) RGB in [0, 1] and normalises inside, so that gradients and distances are in pixel
    units; it returns (N, classes) logits, before any softmax.

    Attributes:
        module: the network itself, never changed. It always runs in evaluation mode.
        mean, std: (3,) or (1,), of pictures in [0, 1]. With (1,) the pictures are turned to grey first.
        labels: one name a class, or empty.
        name: how messages and provenance call it.
        input_size: (height, width) that :meth:`prepare` makes.
        crop: share of the resized picture's side that :meth:`prepare` keeps, as in ``crop_pct``.
        precision: ``float32``, or ``bfloat16`` for autocast; ``auto`` is float32, but see :attr:`drawing`.
        output: key, attribute or place to pick where the module returns a dict, an object or a tuple.
        weights: where the weights came from, for provenance.
        max_batch: most pictures in one pass; halves itself when memory runs out.
        defence: what stands in front of it; see :meth:`defended`.
    """

    module: nn.Module
    mean: Tensor = field(default_factory=lambda: torch.zeros(3))
    std: Tensor = field(default_factory=lambda: torch.ones(3))
    labels: tuple[str, ...] = ()
    name: str = "network"
    input_size: tuple[int, int] = (224, 224)
    crop: float = 1.0
    precision: Precision = "float32"
    output: str | None = None
    weights: str = "as given"
    max_batch: int = 32
    defence: Defence | None = None

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def at_once(self, images: Tensor) -> int:
        """Most pictures of this size (..., H, W) in one pass: ``max_batch``, on a CPU as many as its caches like."""
        most = _CACHED // math.prod(images.shape[-2:]) if self.device.type == "cpu" else self.max_batch
        return max(1, min(self.max_batch, most // self.views))

    # ---- what stands in front

    def defended(self, given: str | Defence | None, *, seed: int = 0) -> Network:
        """The network with a defence in front of its module, or without any for None; :mod:`convscope.defences`.

        Every picture passes it on its way in, and gradients pass it on their way back. Layers are named as before. A
        defence of several draws gives the logarithm of its mean probabilities instead of logits.
        """
        made = None if given is None else defence(given, seed=seed)
        views = made.views if made else 1
        return self._behind(made, max(1, self.max_batch * self.views // views))

    @property
    def undefended(self) -> Network:
        """The network by itself."""
        return self if self.defence is None else self.defended(None)

    @property
    def views(self) -> int:
        """How many pictures the module gets for each that the network is given."""
        return self.defence.views if self.defence else 1

    def _behind(self, given: Defence | None, max_batch: int) -> Network:
        made = replace(self, defence=given, max_batch=max_batch)
        made.__dict__.update({n: self.__dict__[n] for n in ("_outline", "_layers") if n in self.__dict__})
        return made

    @property
    def arithmetic(self) -> Precision:
        """The precision in which it computes: ``float32`` or ``bfloat16``."""
        return "float32" if self.precision == "auto" else self.precision

    @cached_property
    def drawing(self) -> Network:
        """The network for making pictures: with ``auto``, in bfloat16 where the device is fast at it.

        An ascent over hundreds of steps forgives their rounding; a map, which is a difference, does not.
        """
        if self.precision != "auto" or not fast_in_bfloat16(self.device):
            return self
        return self._in("bfloat16")

    @cached_property
    def exact(self) -> Network:
        """The network for what must be computed in float32, whatever precision was asked for."""
        return self if self.arithmetic == "float32" else self._in("float32")

    def _in(self, precision: Precision) -> Network:
        """The same in another precision; what is known of its layers goes with it."""
        made = replace(self, precision=precision)
        made.__dict__.update({n: self.__dict__[n] for n in ("_outline", "_layers") if n in self.__dict__})
        return made

    def __call__(self, images: Tensor) -> Tensor:
        """(N, classes) logits of (N, 3, H, W) pictures in [0, 1]; never in training mode."""
        with evaluation_mode(self.module):
            logits = self.forward(images)
        return self.check_logits(logits)

    def check_logits(self, logits: Tensor) -> Tensor:
        if logits.ndim == 4 and logits.shape[2:] == (1, 1):
            logits = logits.flatten(1)
        if logits.ndim != 2:
            raise NetworkError(
                f"{self.name} returns {tuple(logits.shape)} and not (N, classes); this needs a classifier: "
                "wrap the network so that it returns one score a class, or name a layer and a unit"
            )
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """What the module returns for pictures in [0, 1], as one tensor."""
        inputs = self.normalise(images)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else inputs.dtype
        with self._autocast(inputs), at_hand(inputs, dtype), stems(inputs):
            try:
                returned = self.module(inputs)
            except ConvscopeError:
                raise
            except (RuntimeError, ValueError, AssertionError) as error:
                if is_out_of_memory(error):
                    raise
                raise NetworkError(self._explain(images, error)) from error
        found = self._pick(returned)
        return found if self.views == 1 else self._averaged(found)

    def _averaged(self, logits: Tensor) -> Tensor:
        """(N, classes) logarithms of the mean probabilities over the views of (views * N, classes)."""
        logits = self.check_logits(logits).to(torch.promote_types(logits.dtype, torch.float32))
        shares = logits.log_softmax(1).unflatten(0, (self.views, -1))
        return shares.logsumexp(0) - math.log(self.views)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) on the module's device and in its dtype, behind the defence, mean and spread taken out."""
        like = next((p for p in self.module.parameters() if p.is_floating_point()), images)
        images = images.to(device=like.device, dtype=like.dtype)
        images = images if self.defence is None else self.defence(images)
        mean, std = (t.to(images).view(1, -1, 1, 1) for t in (self.mean, self.std))
        if mean.shape[1] == 1 and images.shape[1] == 3:
            images = (images * torch.tensor(_LUMA).to(images).view(1, 3, 1, 1)).sum(1, keepdim=True)
        images = (images - mean) / std
        return images.contiguous(memory_format=torch.channels_last) if self.precision == "bfloat16" else images

    def _autocast(self, inputs: Tensor) -> AbstractContextManager[Any]:
        if self.precision != "bfloat16":
            return nullcontext()
        # Without the cache: weights cast under no_grad would be kept and reused where a graph is wanted.
        return torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False)

    def _explain(self, images: Tensor, error: Exception) -> str:
        given, wanted = "x".join(map(str, images.shape[-2:])), "x".join(map(str, self.input_size))
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = f"; it was made for {wanted}, which network.prepare(image) gives"
        if given == wanted:
            remedy = "; if it takes another size, say so: load_network(..., input_size=(HEIGHT, WIDTH))"
        return f"{self.name} fails on pictures of {given} pixels ({cause}){remedy}"

    def _pick(self, returned: Any) -> Tensor:
        """The class scores in what the module returned."""
        if self.output is not None:
            return self._named(returned, self.output)
        mapping = isinstance(returned, Mapping)
        found = returned.get("logits", returned.get("out")) if mapping else first_tensor(returned)
        if found is None:
            raise NetworkError(self._unclear(returned))
        return found

    def _named(self, returned: Any, name: str) -> Tensor:
        if isinstance(returned, Tensor):
            raise NetworkError(f"{self.name} returns its scores as they are; leave out output={name!r}")
        try:
            if isinstance(returned, Mapping):
                return returned[name]
            if isinstance(returned, (tuple, list)) and name.isdecimal():
                return returned[int(name)]
            return getattr(returned, name)
        except (KeyError, AttributeError, IndexError):
            raise NetworkError(self._unclear(returned)) from None

    def _unclear(self, returned: Any) -> str:
        names = list(map(str, returned)) if isinstance(returned, Mapping) else list(getattr(returned, "_fields", ()))
        keys = f" with {', '.join(names)}" if names else ""
        return (
            f"{self.name} returns a {type(returned).__name__}{keys}; "
            "say which holds the class scores: load_network(..., output=NAME)"
        )

    def prepare(self, image: Tensor) -> Tensor:
        """A photograph (3, H, W) or (N, 3, H, W) scaled and centre-cropped as the network was trained, antialiased."""
        return fit(image, self.input_size, crop=self.crop)

    def unprepared(
        self, box: tuple[float, float, float, float], shape: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Where a box of a prepared picture lies in the photograph of ``shape`` (height, width) that it was made from.

        Boxes are (top, left, bottom, right) in pixels; see :func:`convscope.images.unfit`.
        """
        return unfit(box, shape, self.input_size, crop=self.crop)

    # ---- layers

    @cached_property
    def _outline(self) -> tuple[tuple[Run, ...], tuple[int, ...]]:
        blank = torch.full((1, 3, *self.input_size), 0.5)
        shape: list[int] = []
        with torch.no_grad(), evaluation_mode(self.module):
            runs = outline(self.module, lambda: shape.extend(self.undefended.forward(blank).shape))
        return runs, tuple(shape)

    @cached_property
    def calls(self) -> Mapping[str, int]:
        return {run.name: run.calls for run in self._outline[0]}

    @cached_property
    def _layers(self) -> tuple[LayerInfo, ...]:
        modules = dict(self.module.named_modules())
        return tuple(self._describe(run, modules[run.name]) for run in self._outline[0])

    def _describe(self, run: Run, part: nn.Module) -> LayerInfo:
        shape = run.shape[1:]
        # A layer that puts something before the pictures (windows, positions) has no maps.
        layout, grid = spatial_layout(shape, self.input_size) if run.shape[0] == 1 else ("none", None)
        channels = shape[0] if layout == "NCHW" or len(shape) == 1 else shape[-1] if shape else 0
        parameters = sum(p.numel() for p in part.parameters())
        return LayerInfo(run.name, run.kind, shape, parameters, run.calls, layout, grid, channels)

    def layers(self) -> tuple[LayerInfo, ...]:
        """Every layer that runs, in the order in which they finish; shapes for a picture of ``input_size``."""
        return self._layers

    def layer(self, name: str) -> LayerInfo:
        """The layer of that name; :class:`UnknownLayer` names the nearest ones."""
        plain = name.rpartition(":")[0] if name.rpartition(":")[2].isdecimal() and ":" in name else name
        for info in self._layers:
            if info.name in (name, plain):
                return info
        known = [info.name for info in self._layers]
        raise UnknownLayer(f"{self.name} has no layer {name!r}{nearest(name, known)} (`convscope layers` lists them)")

    def maps(self, name: str, activation: Tensor) -> Tensor:
        """(N, C, H, W) view of what layer ``name`` put out, for any layout; for pictures of any size."""
        info = self.layer(name)
        before = next(run.shape[0] for run in self._outline[0] if run.name == info.name)
        if before != 1:
            raise NetworkError(
                f"layer {name!r} puts {before} windows or positions where the pictures stand, so its units have no "
                "place in one; name a layer around it"
            )
        if info.layout != "tokens":
            return to_maps(activation, info.layout, info.grid)
        prefix = info.shape[0] - math.prod(info.grid or ())
        tokens = activation.shape[1] - prefix
        grid = info.grid if info.grid and math.prod(info.grid) == tokens else (round(math.sqrt(tokens)),) * 2
        if math.prod(grid) != tokens:
            raise NetworkError(f"the {tokens} tokens of layer {name!r} stand in no square; give square pictures")
        return to_maps(activation, "tokens", grid)

    @cached_property
    def default_layer(self) -> str:
        """The last layer with spatial extent before the network pools it away.

        That is the last one with parameters of its own and more than one position, or what follows it at the same
        resolution: ``layer4`` of a ResNet, the last ReLU of a VGG. Of token layers it is the last one whose patches
        matter: the first norm of a ViT's last block.
        """
        modules = dict(self.module.named_modules())
        spatial = [i for i, info in enumerate(self._layers) if info.spatial]
        spatial = [i for i in spatial if _alike(self._layers[i].grid, self.input_size)] or spatial
        weighty = [i for i in spatial if any(True for _ in modules[self._layers[i].name].parameters(recurse=False))]
        if not spatial:
            raise NetworkError(
                f"no layer of {self.name} has spatial extent, so there is no map to show; choose another technique"
            )
        last = weighty[-1] if weighty else spatial[-1]
        same = [i for i in spatial if i >= last and self._layers[i].grid == self._layers[last].grid]
        return self._last_heard(self._layers[same[-1]]).name

    def _last_heard(self, last: LayerInfo) -> LayerInfo:
        """Where tokens are, the last layer like this one whose patches still reach the scores.

        Behind the last attention of a ViT only its class token does, and every patch has a gradient of zero.
        """
        like = [i for i in self._layers if (i.grid, i.channels) == (last.grid, last.channels)][-48:]  # some blocks
        if all(i.layout != "tokens" for i in like):
            return last
        with torch.inference_mode(False), torch.enable_grad():
            blank = torch.full((1, 3, *self.input_size), 0.5)
            seen = observe(self.undefended, blank, [OUTPUT, *(i.name for i in like)], leaves=[like[0].name])
            slopes = gradient(self.check_logits(seen[OUTPUT]).amax(1), [seen[i.name] for i in like])
        heard = [i for i, slope in zip(like, slopes, strict=True) if self.maps(i.name, slope).any()]
        return heard[-1] if heard else last

    @cached_property
    def first_layer(self) -> str:
        """The first layer with weights and more than one position, with the norm and rectifier behind it.

        That is the last layer of its resolution before the next layer of weights: ``relu`` of a ResNet.
        """
        modules = dict(self.module.named_modules())
        leaves = [info for info in self._layers if not any(True for _ in modules[info.name].children())]
        weighty = [any(p.ndim > 1 for p in modules[info.name].parameters()) for info in leaves]
        start = next((i for i, info in enumerate(leaves) if weighty[i] and info.spatial), None)
        if start is None:
            return self.default_layer
        found = leaves[start]
        for info, heavy in zip(leaves[start + 1 :], weighty[start + 1 :], strict=True):
            if heavy or info.grid != found.grid or info.channels != found.channels:
                break
            found = info
        return found.name

    @cached_property
    def code_layer(self) -> str:
        """The layer just before the classifier, behind its rectifier: what it puts out is a picture's code.

        That is the last layer without parts that finishes before the last one with weights: ``avgpool`` of a ResNet,
        the dropout or rectifier before a VGG's last linear layer.
        """
        modules = dict(self.module.named_modules())
        leaves = [info for info in self._layers if not any(True for _ in modules[info.name].children())]
        weighty = [i for i, info in enumerate(leaves) if any(p.ndim > 1 for p in modules[info.name].parameters())]
        if not weighty or not weighty[-1]:
            raise NetworkError(f"{self.name} has no layer before a classifier; name the layer whose codes are wanted")
        return leaves[weighty[-1] - 1].name

    @cached_property
    def convolution_layers(self) -> tuple[str, ...]:
        """Every convolution's channels once: the convolution, or the norm and rectifier behind it.

        That is the last layer of the same resolution and channels before the next layer of weights; of a rectifier
        that runs several times, ``relu:0`` is the first run.
        """
        return tuple(self.convolutions)

    @cached_property
    def convolutions(self) -> Mapping[str, str]:
        """Each of :attr:`convolution_layers` with the name of its convolution."""
        blank = torch.full((1, 3, *self.input_size), 0.5)
        with torch.no_grad(), evaluation_mode(self.module):
            runs = sequence(self.module, lambda: self.forward(blank))
        modules = dict(self.module.named_modules())
        runs = tuple(run for run in runs if not any(True for _ in modules[run.name].children()))
        found: dict[str, str] = {}
        for place in _convolutions(runs, modules):
            found.setdefault(self._behind_it(runs[place:]), runs[place].name)
        return found

    def _behind_it(self, runs: Sequence[Run]) -> str:
        modules = dict(self.module.named_modules())
        found = runs[0]
        for run in runs[1:]:
            if any(p.ndim > 1 for p in modules[run.name].parameters()) or run.shape != found.shape:
                break
            found = run
        return found.name if self.calls[found.name] == found.calls else f"{found.name}:{found.calls - 1}"

    def codes(self, name: str, activation: Tensor) -> Tensor:
        """(N, C): what layer ``name`` put out, averaged over positions where it has any."""
        return self.maps(name, activation).flatten(2).mean(2)

    @cached_property
    def receptive_fields(self) -> Mapping[str, ReceptiveField]:
        """Layer name to its receptive field, for pictures of ``input_size``; exact, by one traced pass."""
        blank = self.undefended.normalise(torch.full((1, 3, *self.input_size), 0.5))
        names = [info.name for info in self._layers]
        fields = {}
        with torch.no_grad(), evaluation_mode(self.module):
            for info, output, tracer in _traced(self, blank, names):
                layout = None if info.layout == "none" else info.layout
                found = tracer.field(output, layout=layout, grid=info.grid)
                if found is not None:
                    fields[info.name] = found
        return fields

    # ---- classes

    @cached_property
    def classes(self) -> int:
        """How many scores the network gives."""
        shape = self._outline[1]
        self.check_logits(torch.empty(shape, device="meta"))
        return shape[1]

    def label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"class {index}"

    def class_of(self, layer: str, channel: int) -> str | None:
        """The label of the class that a channel stands for, where no weights lie behind its layer; None elsewhere."""
        info, modules = self.layer(layer), dict(self.module.named_modules())
        names = [each.name for each in self._layers]
        behind = (modules[name] for name in names[names.index(info.name) + 1 :])
        if not self.labels or info.channels != self.classes:
            return None
        return None if any(True for part in behind for _ in part.parameters(recurse=False)) else self.label(channel)

    def target(self, target: int | str) -> int:
        """The index of a class given by index, label, or an unambiguous part of a label.

        Raises :class:`UnknownTarget`, which names the nearest labels or the ones that the part fits.
        """
        text = str(target).strip()
        if isinstance(target, int) or text.removeprefix("-").isdecimal():
            index = int(text)
            if not 0 <= index < self.classes:
                raise UnknownTarget(f"{self.name} has classes 0 to {self.classes - 1}, not {index}")
            return index
        wanted = _plain(text)
        names = [_plain(label) for label in self.labels]
        for fits in (lambda n: n == wanted, lambda n: wanted in n.split(), lambda n: wanted in n):
            found = [i for i, name in enumerate(names) if fits(name)] if wanted else []
            if len(found) == 1:
                return found[0]
            if len(found) > 1:
                raise UnknownTarget(f"{target!r} fits {_listed(self.labels, found)}; say which")
        if not self.labels:
            raise UnknownTarget(
                f"{self.name} has no labels, so {target!r} cannot be found; give an index, or --labels FILE"
            )
        raise UnknownTarget(f"{self.name} knows no {target!r}{nearest(text, self.labels)}")

    def targets(self, target: int | str | Sequence[int | str] | Tensor | None, logits: Tensor) -> Tensor:
        """(N,) class indices: the given ones, one for all or one a picture, or the predicted ones for None."""
        if target is None:
            return logits.argmax(1)
        if isinstance(target, Tensor):
            target = target.flatten().tolist()
        if isinstance(target, (int, str)):
            target = [target]
        found = [self.target(t) for t in target]
        if len(found) not in (1, len(logits)):
            raise UnknownTarget(f"{len(found)} targets for {len(logits)} pictures; give one, or one a picture")
        return torch.tensor(found, device=logits.device).expand(len(logits))


def _convolutions(runs: Sequence[Run], modules: Mapping[str, nn.Module]) -> list[int]:
    """Places of the runs of convolutions: of layers whose weights have two sides of a window."""
    weights = [getattr(modules[run.name], "weight", None) for run in runs]
    return [i for i, w in enumerate(weights) if isinstance(w, Tensor) and w.ndim == 4 and len(runs[i].shape) == 4]


def laid_out(images: Tensor) -> Tensor:
    """The same pictures with their colours next to each other on a CPU, whose passes then take 4 to 30 % less time."""
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
    return device.type == "cpu" and any(check() for check in checks if check is not None)


def _traced(network: Network, blank: Tensor, names: Sequence[str]) -> list[tuple[LayerInfo, Tensor, Tracer]]:
    normalised = _AsIs(network)
    with Tracer(blank) as tracer:
        seen = observe(normalised, blank, [*names, OUTPUT])
    return [(network.layer(name), seen[name], tracer) for name in names]


class _AsIs:
    """The network behind its normalisation: the traced picture must be the very tensor that enters the module."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.module, self.name, self.calls, self.views = network.module, network.name, network.calls, 1

    def forward(self, images: Tensor) -> Tensor:
        return self._network._pick(self.module(images))


def _plain(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").replace("-", " ").replace(",", " ").split())


def _listed(labels: Sequence[str], found: Sequence[int], most: int = 5) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(f"{labels[i]!r} ({i})" for i in found[:most]) + more
