"""Inversion of a representation: a picture that gives the same features (Mahendran & Vedaldi 2015).

What a layer has kept of a photograph is what can be had back from its output alone. The picture x, from noise on, is

    argmin ||F(x) - F0||^2 / ||F0||^2  +  norm / (H W) sum |2 (x - 1/2)|^alpha
                                       +  tv / (3 H W rho^beta) sum (dx^2 + dy^2)^(beta / 2)

(section 2, with the balance of section 2.2), where dx and dy are the differences of neighbouring pixels. The paper
writes this for pictures of mean zero in [-128, 128], divided by the Euclidean length sigma of an average photograph.
In [0, 1] its grey is 1/2, its bound B is 1/2 and sigma^2 is 3 H W rho^2 with rho = 0.27, which follows from its
constants. ``tv`` is then its own lambda, 0.5, 5 or 50 with beta = 2, and its 2.16e8 with alpha = 6 is ``norm`` = 0.12.

Departures: by default the picture's Fourier coefficients are moved, in decorrelated colours (Olah et al. 2017), and by
L-BFGS, since the objective is the same at every step. At every layer that was tried that ended nearer to the features
than descent on pixels, which hardly moves the coarse structure of a picture, and mostly nearer to the photograph. Such
a picture cannot leave [0, 1], so ``norm`` is 0.03 there; ``tv`` is 0.5 at every depth, where the published one rises
with it. ``--optimizer sgd`` is the published descent on pixels, with ``norm`` 0.12: momentum 0.9 and a rate of
0.004 sigma^2 that falls to a tenth after a quarter of the steps and to a hundredth after three quarters, with the
momentum begun anew. Pixels are free while they are optimised and clipped at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.network import Network
from convscope.objectives import features
from convscope.optimize import Optimiser, optimize
from convscope.parameterizations import Fourier, Parameterization, Pixels
from convscope.registry import Layer, Seed, technique
from convscope.regularizers import AlphaNorm, Penalty, TotalVariation
from convscope.results import Pictures, Synthesis
from convscope.techniques.synthesize._layers import codes, stages
from convscope.techniques.synthesize._lbfgs import LBFGS
from convscope.techniques.synthesize._run import Every, Resume, Run, Sitting, Steps, targets_of

SPREAD = 0.27  # rho: how far the pixels of an average photograph are from mid-grey
RATE = 0.004  # of the published descent, in shares of sigma^2
MOMENTUM = 0.9
Way = Literal["lbfgs", "adam", "sgd"]


@technique(
    family="synthesize",
    order=4,
    paper="Mahendran & Vedaldi 2015, arXiv:1412.0035, sections 2 and 5",
    see="What is still there: shallow layers keep the photograph, deeper ones its parts, not where exactly they are.",
    caution=(
        "It is one of many pictures with these features, and smooth because the priors are: what is missing was "
        "perhaps only not found, and colours that the layer does not see come from the start."
    ),
    quick={"steps": 2},
    example={"steps": 60},
)
def invert(
    network: Network,
    images: Tensor,
    *,
    layer: Layer = None,
    layers: Annotated[
        Sequence[str] | str | None,
        Field(description="layers of a strip from shallow to deep; by default one a resolution, the code, the scores"),
    ] = None,
    steps: Steps = 200,
    optimizer: Annotated[Way, Field(description="lbfgs; adam; sgd, the published descent with momentum")] = "lbfgs",
    parameters: Annotated[
        Literal["fourier", "pixels"] | None, Field(description="what is moved; pixels for sgd, else fourier")
    ] = None,
    tv: Annotated[float, Field(ge=0, description="weight of the total variation: more is smoother")] = 0.5,
    beta: Annotated[
        float, Field(gt=0, description="its exponent: 2 spreads edges, 1 leaves them and has spikes")
    ] = 2.0,
    norm: Annotated[
        float | None,
        Field(ge=0, description="weight of the norm that keeps pixels in range; 0.12 for pixels, else 0.03"),
    ] = None,
    alpha: Annotated[float, Field(gt=0, description="its exponent")] = 6.0,
    every: Every = 0,
    seed: Seed = 0,
    resume: Resume = None,
) -> Synthesis | Pictures:
    """Pictures whose features match those of a photograph: what each layer has kept of it.

    Args:
        network: any network.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        layer: one layer: the result is its picture.
        layers: several, or left out: the result is a strip, the photograph first.
        steps: of each layer; 400 are published.
        optimizer: ``lbfgs``, ``adam`` at 0.05, ``sgd`` as above.
        parameters: Fourier coefficients or pixels.
        tv, beta, norm, alpha: the priors, as above.
        every: of one layer, of how many steps a picture is kept.
        seed: of the noise to begin with, faint in Fourier coefficients, as strong as a photograph in pixels; all
            pictures and layers begin alike.
        resume: a state, for the same options and pictures.

    Returns:
        Of one layer ``values`` (N, 3, H, W) in [0, 1] with ``trace``, minus the first term above; of several ``values``
        (N, layers, 3, H, W) in [0, 1]. Each summary holds ``errors``, for each layer ``features``,
        ||F(x) - F0|| / ||F0|| of the clipped picture, ``pixels``, its root mean squared difference from the photograph,
        of the range [0, 1], and ``objective``, what was minimised.

    Raises:
        UnknownLayer; OptionError for a layer that is silent, or every with several layers.
    """
    if layer is not None and layers is not None:
        raise OptionError("give a layer for one picture or layers for a strip, not both")
    moved = parameters or ("pixels" if optimizer == "sgd" else "fourier")
    weight = norm if norm is not None else 0.12 if moved == "pixels" else 0.03
    task = _Task(network, optimizer, moved == "pixels", steps, seed, tv, beta, weight, alpha)
    if layer is not None:
        return _single(task, images, layer, Sitting(resume, every=every))
    if every:
        raise OptionError("every belongs to the inversion of one layer; name it with layer")
    names = [layers] if isinstance(layers, str) else list(layers or [*stages(network), *codes(network)])
    return _strip(task, images, list(dict.fromkeys(names)), Sitting(resume))


@dataclass(frozen=True)
class _Task:
    """What is the same for every layer and picture."""

    network: Network
    way: Way
    free: bool  # pixels, which may leave [0, 1] on the way
    steps: int
    seed: int
    tv: float
    beta: float
    norm: float
    alpha: float

    def run(self, image: Tensor, layer: str, sitting: Sitting) -> Run:
        """The inversion of one picture (1, 3, H, W)."""
        self.network.layer(layer)
        targets = targets_of(self.network, image, [layer], lambda _, output: output)
        if not bool(targets[layer].any()):
            raise OptionError(f"layer {layer!r} is zero everywhere for this picture, so nothing is left to invert")
        size = (image.shape[-2], image.shape[-1])
        return sitting.run(
            lambda begun: optimize(
                self.network, features(targets), self.begun(size), steps=self.steps, optimizer=self.optimiser(),
                rate=self.rate(size), regularizers=self.priors(size), seed=self.seed, resume=begun,
            ),
            total=self.steps,
        )  # fmt: skip

    @cached_property
    def _exact(self) -> Network:
        """The network that errors are measured with: in float32, whatever the picture was made in."""
        return replace(self.network, precision="float32")

    def errors(self, run: Run, image: Tensor, layer: str) -> dict[str, Any]:
        """How far the picture's features and pixels are off."""
        with torch.no_grad():
            found, target = (observe(self._exact, x.to(self.network.device), [layer])[layer].double()
                             for x in (run.images, image))  # fmt: skip
        away = (found - target).norm() / target.norm().clamp(min=1e-12)
        pixels = (run.images.double() - image.cpu().double()).square().mean().sqrt()
        return {"layer": layer, "features": float(away), "pixels": float(pixels), "objective": -float(run.trace[-1, 0])}

    def begun(self, size: tuple[int, int]) -> Parameterization:
        """Noise to begin with."""
        if self.free:
            return Pixels(noise(size, self.seed).to(self.network.device), bounds=None)
        return Fourier(1, size, seed=self.seed).to(self.network.device)

    def priors(self, size: tuple[int, int]) -> list[Penalty]:
        """In the units of the module's formula."""
        area = size[0] * size[1]
        variation = TotalVariation(self.tv / (3 * area * SPREAD**self.beta), self.beta)
        bound = [AlphaNorm(self.norm * 2**self.alpha / area, self.alpha)] if self.norm else []
        return [variation, *bound]

    def rate(self, size: tuple[int, int]) -> float:
        """Of the optimiser."""
        return {"lbfgs": 1.0, "adam": 0.05, "sgd": RATE * 3 * size[0] * size[1] * SPREAD**2}[self.way]

    def optimiser(self) -> Optimiser:
        """The published descent knows how many steps there will be; L-BFGS begins at faint noise and leaves it fast."""
        if self.way == "lbfgs":
            return partial(LBFGS, memory=20, first=0.1, most=1.0)
        return partial(Descent, steps=self.steps) if self.way == "sgd" else self.way


class Descent(torch.optim.SGD):
    """Momentum 0.9; the rate falls to a tenth after a quarter of the steps and to a hundredth after three quarters.

    Where it falls the momentum begins anew, as in the authors' code.
    """

    def __init__(self, parameters: Any, rate: float, *, steps: int) -> None:
        super().__init__(parameters, lr=rate, momentum=MOMENTUM)
        for group in self.param_groups:
            group.update(full=rate, done=0, steps=steps)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            share = group["done"] / group["steps"]
            rate = group["full"] * (1.0 if share < 0.25 else 0.1 if share < 0.75 else 0.01)
            if rate != group["lr"]:
                self.state.clear()
            group["lr"] = rate
            group["done"] += 1
        return super().step(closure)


def noise(size: tuple[int, int], seed: int) -> Tensor:
    """(1, 3, H, W) Gaussian around mid-grey, as far from it as a photograph."""
    drawn = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    return 0.5 + SPREAD * drawn


def _single(task: _Task, images: Tensor, layer: str, sitting: Sitting) -> Synthesis:
    runs = (task.run(image[None], layer, sitting) for image in progress.over(list(images), "pictures"))
    run = sitting.through(runs)
    done = images[: len(run.images)]
    errors = [task.errors(each, image[None], layer) for each, image in zip(run.apart(), done, strict=True)]
    return Synthesis(
        **run.fields(), notes=run.notes, layer=layer, originals=done, quantity="minus squared feature error",
        titles=[f"{layer}: {_said(error)}" for error in errors], summaries=[{"errors": [error]} for error in errors],
    )  # fmt: skip


def _strip(task: _Task, images: Tensor, names: Sequence[str], sitting: Sitting) -> Pictures:
    for name in names:
        task.network.layer(name)
    found: list[tuple[Run, dict[str, Any]]] = []

    def runs() -> Iterator[Run]:
        for name in progress.over(names, "layers"):
            for image in progress.over(list(images), "pictures"):
                run = task.run(image[None], name, sitting)
                found.append((run, task.errors(run, image[None], name)))
                yield run

    whole = sitting.through(runs())
    rows = len(images) if len(found) >= len(images) else len(found)  # stopped in the first layer: the pictures so far
    columns = [found[begin : begin + rows] for begin in range(0, len(found) - rows + 1, len(images))]
    return replace(_drawn(images[:rows], columns), notes=whole.notes, state=whole.state)


def _drawn(images: Tensor, columns: Sequence[Sequence[tuple[Run, dict[str, Any]]]]) -> Pictures:
    values = torch.stack([torch.cat([run.images for run, _ in column]) for column in columns], 1)
    errors = [[column[n][1] for column in columns] for n in range(len(images))]
    return Pictures(
        values=values, tiles=torch.cat([images[:, None].cpu(), values], 1), columns=min(len(columns) + 1, 9),
        tile_titles=[title for each in errors for title in ("photograph", *map(_under, each))],
        summaries=[{"errors": e} for e in errors],
        quantity="under each picture how far its features and pixels are off",
    )  # fmt: skip


def _under(error: dict[str, Any]) -> str:
    return f"{error['layer']}\n{_said(error)}".replace(", ", "\n")


def _said(error: dict[str, Any]) -> str:
    return f"features {error['features']:.1%}, pixels {error['pixels']:.2f}"
