"""Class images and feature visualisation: the picture that excites a class, a channel or a neuron most.

Gradient ascent on the pixels alone ends in a pattern that excites the network and looks like noise. What makes a
picture of it are priors, and each preset but the first is the published set of one paper:

=========  ==========================================================================================================
simonyan   pixels from the mean colour, plain ascent, L2 (Simonyan 2013, section 2)
yosinski   pixels from noise around the mean; decay, blur, clipping of small pixels and of small contributions, in this
           order after each step (Yosinski et al. 2015, section 3.1; the third of the four combinations of its table)
lucid      Fourier coefficients in decorrelated colours, jitter, scale, rotation (Olah et al. 2017)
crops      the coefficients of lucid under the crops of maco: neither paper's, and the clearest of the five here
maco       the phases of a picture whose magnitudes are those of photographs, random crops, noise (Fel et al. 2023)
=========  ==========================================================================================================

Departures: rates of the first two are of the gradient over its mean size, since a published rate fits one network
only; for the same reason Simonyan's L2 term acts as what its gradient is, a pull of each pixel towards the mean colour
by a share of its distance (``decay``; ``l2`` is the term itself), and since the paper gives no numbers, those are ours.
Crops of ``maco`` are as large, against the network's input, as in
the paper, and the picture is twice that input by default, where the paper's is six to nine times as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from convscope.batching import batched
from convscope.errors import ConvscopeError, NetworkError, OptionError
from convscope.images import fit
from convscope.network import Network
from convscope.objectives import (
    Objective,
    class_score,
    each_its_own,
    parse_objective,
    within,
)
from convscope.objectives import (
    direction as along,
)
from convscope.objectives import (
    diversity as unlike,
)
from convscope.optimize import Optimiser, optimize
from convscope.parameterizations import Fourier, Parameterization, Phase, Pixels, drawn
from convscope.parameterizations import start as started
from convscope.registry import Layer, Picture, Seed, Target, pictures_of, technique
from convscope.regularizers import (
    L2,
    Blur,
    CentreBias,
    ClipSmallContribution,
    ClipSmallNorm,
    Decay,
    MeanOne,
    Regularizer,
    TotalVariation,
)
from convscope.results import Synthesis
from convscope.techniques.synthesize._run import Every, Resume, Run, Sitting, Steps, seen_again
from convscope.transforms import Crops, Jitter, Noise, Pad, Rotate, Scale, Transform

Preset = Literal["crops", "maco", "lucid", "yosinski", "simonyan"]
Numbers = Literal["pixels", "fourier", "phase"]
SHOWN = 6  # classes that are shown when nothing is asked for
Share = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Recipe:
    """Everything that a preset says; each field is an option of the command, where None leaves it to the preset.

    ``size`` counts in network inputs. ``l2``, ``tv``: weights. ``decay`` to ``clip_contribution``: Yosinski's four.
    ``centre``: whether the gradient is weighted towards the centre. ``pad`` to ``noise``: random views.
    """

    parameters: Numbers
    optimizer: Optimiser
    rate: float
    steps: int
    size: float = 1.0
    start: str = "noise"
    l2: float = 0.0
    tv: float = 0.0
    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 4
    clip_norm: float = 0.0
    clip_contribution: float = 0.0
    centre: bool = False
    pad: int = 0
    jitter: int = 0
    scale: float = 0.0
    rotate: float = 0.0
    crops: int = 0
    noise: float = 0.0


PRESETS: dict[str, Recipe] = {
    "crops": Recipe("fourier", "adam", 0.05, 128, size=2.0, crops=4, noise=0.08),
    "simonyan": Recipe("pixels", "sgd", 4 / 255, 200, start="mean", decay=0.02),
    "yosinski": Recipe("pixels", "sgd", 4 / 255, 300, decay=0.0001, blur=1.0, blur_every=4),
    "lucid": Recipe("fourier", "adam", 0.05, 512, pad=12, jitter=12, scale=0.1, rotate=10.0),
    "maco": Recipe("phase", "adam", 1.0, 256, size=2.0, crops=6, noise=0.08),
}


@technique(
    family="synthesize",
    order=1,
    paper=(
        "Simonyan 2013, arXiv:1312.6034, section 2; Yosinski et al. 2015, arXiv:1506.06579, section 3; Olah et al. "
        "2017, doi:10.23915/distill.00007; Fel et al. 2023, arXiv:2306.06805"
    ),
    see="Parts of the thing and how they go together: what of it the network has found useful.",
    caution=(
        "It is one of many pictures that excite the unit, and the priors draw with it: what looks natural is theirs. "
        "That the network is sure of it says nothing of photographs."
    ),
    quick={"target": 0, "steps": 2, "size": 32, "crops": 1},
    example={"steps": 64, "crops": 2},
)
def visualize(
    network: Network,
    *,
    target: Annotated[
        Target, Field(description="class, or several: an index, a label or an unambiguous part of one; six if left out")
    ] = None,
    layer: Layer = None,
    unit: Annotated[
        str | int | Sequence[str | int] | None,
        Field(description="CHANNEL (its mean), CHANNEL,ROW,COLUMN (one neuron) or all, of the layer; several at will"),
    ] = None,
    direction: Annotated[
        Any, Field(description="a direction in the layer's channels: a .npy file of as many numbers")
    ] = None,
    objective: Annotated[
        str | None, Field(description="a weighted sum of classes and units, as in 'cat - 0.5*layer3:12'")
    ] = None,
    preset: Annotated[Preset, Field(description="published recipe; what is said besides changes it")] = "crops",
    start: Annotated[
        Literal["noise", "mean", "zeros"] | None,
        Field(description="picture to begin with: noise, the mean colour, black"),
    ] = None,
    photograph: Annotated[Picture, Field(description="photograph to begin with instead")] = None,
    size: Annotated[int | None, Field(ge=16, description="side of the picture in pixels")] = None,
    steps: Annotated[Steps | None, Field(description="steps, one pass forward and back each")] = None,
    rate: Annotated[float | None, Field(gt=0, description="learning rate")] = None,
    starts: Annotated[int, Field(ge=1, description="pictures of each unit, from different random starts")] = 1,
    diversity: Annotated[Share, Field(description="weight of the term that makes several starts differ")] = 0.0,
    l2: Annotated[Share | None, Field(description="weight of the squared distance from the mean colour")] = None,
    tv: Annotated[Share | None, Field(description="weight of total variation")] = None,
    decay: Annotated[Share | None, Field(lt=1, description="share by which pixels shrink at each step")] = None,
    blur: Annotated[Share | None, Field(description="blur between steps, in pixels")] = None,
    blur_every: Annotated[int | None, Field(ge=1, description="steps from blur to blur")] = None,
    clip_norm: Annotated[Share | None, Field(lt=100, description="percentile of small pixels that become zero")] = None,
    clip_contribution: Annotated[
        Share | None, Field(lt=100, description="percentile of pixels of small contribution that become zero")
    ] = None,
    centre: Annotated[bool | None, Field(description="begin in the middle of the picture and widen")] = None,
    pad: Annotated[int | None, Field(ge=0, description="grey border of the views, in pixels")] = None,
    jitter: Annotated[int | None, Field(ge=0, description="random shift of the views, in pixels")] = None,
    scale: Annotated[Share | None, Field(lt=1, description="random scaling of the views, by up to this share")] = None,
    rotate: Annotated[Share | None, Field(description="random rotation of the views, in degrees either way")] = None,
    crops: Annotated[int | None, Field(ge=0, description="random crops a step instead of one whole view")] = None,
    noise: Annotated[Share | None, Field(description="noise on the views, of the range of values")] = None,
    every: Every = 0,
    resume: Resume = None,
    seed: Seed = 0,
) -> Synthesis:
    """The picture that excites a class, a channel, a neuron or a sum of them most, by a published recipe.

    Args:
        network: any network; a classifier for classes.
        target: class index or label, or several; six classes of the network if nothing is asked for.
        layer, unit: a channel's mean, one neuron, or the whole layer's energy (``all``) instead of a class.
        direction: (C,) tensor, array or .npy file: the projection of the layer's channels on it.
        objective: a weighted sum; see :func:`convscope.objectives.parse_objective`. Also an ``Objective``.
        preset: ``crops``, ``maco``, ``lucid``, ``yosinski`` or ``simonyan``; the options below it change parts of it.
        start, photograph: what to begin with. ``maco`` has only phases to begin with, and takes neither.
        size: side in pixels, or the preset's share of the network's input.
        steps, rate: of the ascent.
        starts, diversity: several pictures of each, and the weight of their unlikeness.
        every: keep a frame every so many steps.
        resume: state of a stopped run.
        seed: of starts and views; picture i begins from ``seed + i``.

    Returns:
        ``values`` (N, 3, H, W) in [0, 1], N = units times starts. ``trace`` (steps, N) is the objective, averaged over
        views. Each summary says what the network makes of the finished 8-bit picture, where it is a classifier.

    Raises:
        UnknownTarget, UnknownLayer; OptionError for what does not go together.
    """
    said = locals()
    names, objectives = _asked(network, target, layer, unit, direction, objective)
    changes = {f.name: said[f.name] for f in fields(Recipe) if f.name != "size" and said.get(f.name) is not None}
    recipe = replace(PRESETS[preset], **changes)
    sides = _sides(network, size, recipe)
    begin = _photograph(photograph, sides, recipe)
    groups = max(1, network.max_batch // (starts * max(1, recipe.crops)))
    sitting = Sitting(resume, every=every)

    def some(part: slice) -> Run:
        wanted = [each for each in objectives[part] for _ in range(starts)]
        asked = each_its_own(wanted)
        if starts > 1 and diversity:
            asked = asked + diversity * unlike(network, layer or network.default_layer, starts)
        first = part.start * starts
        moved = _parameterization(network, recipe, len(wanted), sides, begin, seed + first)
        return sitting.run(
            lambda begun: optimize(
                network, asked, moved, steps=recipe.steps, optimizer=recipe.optimizer, rate=recipe.rate,
                regularizers=_regularizers(network, recipe), transforms=_transforms(network, recipe, sides),
                view=network.input_size if recipe.crops else sides, seed=seed, resume=begun,
                revive=True,
            ),
            total=recipe.steps,
        )  # fmt: skip

    run = sitting.through(batched(some, len(objectives), groups, "units"))
    every_name = [name for name in names for _ in range(starts)][: len(run.images)]
    return Synthesis(
        **run.fields(), layer=layer, titles=every_name, summaries=_summaries(network, every_name, run.images),
        notes=run.notes, columns=starts if starts > 1 else None,
    )  # fmt: skip


def _asked(
    network: Network, target: Any, layer: str | None, unit: Any, direction: Any, objective: Any
) -> tuple[list[str], list[Objective]]:
    """What to maximise, and how to call it."""
    said = [name for name, value in (("target", target), ("unit", unit), ("objective", objective)) if value is not None]
    if len(said) + (direction is not None) > 1:
        raise OptionError("give a target, a unit of a layer, a direction or an objective, and only one of these")
    if objective is not None:
        found = objective if isinstance(objective, Objective) else parse_objective(network, objective)
        return [found.description], [found]
    if direction is not None:
        vector, where = _vector(direction), layer or network.default_layer
        if len(vector) != network.layer(where).channels:
            channels = network.layer(where).channels
            raise OptionError(f"the direction has {len(vector)} numbers, and layer {where!r} {channels} channels")
        return [f"direction in {where}"], [along(network, where, vector)]
    if unit is not None or layer is not None:
        if unit is None:
            raise OptionError("layer needs unit: CHANNEL, CHANNEL,ROW,COLUMN or all")
        several, where = [unit] if isinstance(unit, (int, str)) else list(unit), layer or network.default_layer
        return [f"{where} {u}" for u in several], [within(network, where, u) for u in several]
    return _classes(network, target)


def _classes(network: Network, target: Any) -> tuple[list[str], list[Objective]]:
    if target is None:
        target = sorted({round(i * (network.classes - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    several = [target] if isinstance(target, (int, str)) else list(target)
    indices = [network.target(each) for each in several]
    return [network.label(i) for i in indices], [class_score(network, i) for i in indices]


def _vector(given: Any) -> Tensor:
    if isinstance(given, (str, Path)):
        try:
            given = np.load(given, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise OptionError(f"{given} is no .npy file of numbers: {str(error).splitlines()[0]}") from None
    return torch.as_tensor(given).float().flatten()


def _sides(network: Network, size: int | None, recipe: Recipe) -> tuple[int, int]:
    if size is not None:
        return size, size
    height, width = network.input_size
    return round(height * recipe.size), round(width * recipe.size)


def _photograph(given: Any, sides: tuple[int, int], recipe: Recipe) -> Tensor | None:
    found = pictures_of(given)
    if not found:
        return None
    if recipe.parameters == "phase":
        raise OptionError("preset maco moves phases only and begins from noise; choose lucid, yosinski or simonyan")
    return fit(found[0], sides)[None]


def _parameterization(
    network: Network, recipe: Recipe, count: int, sides: tuple[int, int], begin: Tensor | None, seed: int
) -> Parameterization:
    device, mean = network.device, network.mean.cpu().expand(3)
    if recipe.parameters == "phase":
        return Phase(count, sides, seed=seed).to(device)
    if recipe.parameters == "fourier" and begin is None and recipe.start == "noise":
        return Fourier(count, sides, seed=seed).to(device)
    images = started(recipe.start, count, sides, seed=seed, mean=mean) if begin is None else _near(begin, count, seed)
    if recipe.parameters == "fourier":
        return Fourier.of(images).to(device)
    return Pixels(images.to(device), centre=mean)


def _near(begin: Tensor, count: int, seed: int) -> Tensor:
    """Copies of a photograph, all but the first with a little noise, so that several starts differ."""
    copies = begin.expand(count, -1, -1, -1).clone()
    copies[1:] += 0.02 * drawn(copies.shape[1:], count, seed)[1:]
    return copies.clamp(0, 1)


def _regularizers(network: Network, recipe: Recipe) -> list[Regularizer]:
    """In the published order."""
    mean = tuple(network.mean.cpu().expand(3).tolist())
    found: list[Regularizer] = []
    found += [CentreBias(recipe.steps)] if recipe.centre else []
    found += [MeanOne()] if recipe.optimizer == "sgd" else []
    found += [L2(recipe.l2, mean)] if recipe.l2 else []
    found += [TotalVariation(recipe.tv)] if recipe.tv else []
    found += [Decay(recipe.decay)] if recipe.decay else []
    found += [Blur(recipe.blur, recipe.blur_every)] if recipe.blur else []
    found += [ClipSmallNorm(recipe.clip_norm)] if recipe.clip_norm else []
    found += [ClipSmallContribution(recipe.clip_contribution)] if recipe.clip_contribution else []
    return found


def _transforms(network: Network, recipe: Recipe, sides: tuple[int, int]) -> list[Transform]:
    """Views in lucid's order, the jitter split as there; crops against the network's input as in the MACO paper."""
    found: list[Transform] = [Pad(recipe.pad)] if recipe.pad else []
    found += [Jitter(recipe.jitter - recipe.jitter // 3)] if recipe.jitter else []
    found += [Scale(1 - recipe.scale, 1 + recipe.scale)] if recipe.scale else []
    found += [Rotate(recipe.rotate, still=0.2)] if recipe.rotate else []
    found += [Jitter(recipe.jitter // 3)] if recipe.jitter // 3 else []
    if recipe.crops:
        share = max(network.input_size[0] / sides[0], network.input_size[1] / sides[1])
        found.append(Crops(recipe.crops, min(1.0, 0.9 * share), min(1.0, 1.5 * share), 0.15, network.input_size))
    found += [Noise(recipe.noise)] if recipe.noise else []
    return found


def _summaries(network: Network, names: Sequence[str], images: Tensor) -> list[dict[str, Any]]:
    """What each was made for, and what the network says to the picture as a file holds it."""
    found: list[dict[str, Any]] = [{"target": name} for name in names]
    try:
        shown = torch.stack([fit(image, network.input_size) for image in images])
        logits = torch.cat([seen_again(network, part) for part in shown.split(network.max_batch)])
    except NetworkError:  # no classifier: there is nothing to say
        return found
    except ConvscopeError:
        raise
    for summary, probabilities in zip(found, logits.softmax(1), strict=True):
        best = int(probabilities.argmax())
        summary["predicted"] = {
            "label": network.label(best), "index": best, "probability": float(probabilities[best])
        }  # fmt: skip
    return found
