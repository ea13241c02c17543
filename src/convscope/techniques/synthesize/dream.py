"""DeepDream: what a layer sees in a photograph, amplified until it is there (Mordvintsev, Olah & Tyka 2015).

The layer's gradient is set to its activation, so that whatever it has noticed grows: the objective is the layer's
energy, half the sum of squares. Each step moves the picture by ``rate`` along the gradient over its mean absolute
value, on a copy that is rolled by up to ``jitter`` pixels, and clips it to what a picture can hold.

A dream is made from coarse to fine. The photograph is scaled down ``octaves - 1`` times by ``octave_scale``; from the
smallest on, the steps run at each size, and what they have added, the detail, is scaled up and added to the photograph
at the next:

    detail = 0;  at each octave:  start = base + enlarged(detail);  dream(start);  detail = start - base

Guided by a second picture, each position grows towards the feature vector of that picture which fits it best: with f_i
the layer's vectors and g_j the guide's, the gradient at i is the g_j with the largest <f_i, g_j>.

Departures: photographs are scaled by an antialiased filter, not by a spline of first order, and black and white are
those of the picture, which is what the authors' clipping comes to. With several layers the logarithms of the energies
are added, so that each counts in shares of its own size. Objectives are means over units, so that the curve can be
compared between octaves; the pictures do not depend on that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from convscope import progress
from convscope.batching import batched
from convscope.errors import OptionError
from convscope.hooks import observe
from convscope.images import resize
from convscope.network import Network
from convscope.objectives import Objective, energy
from convscope.objectives import channel as channel_mean
from convscope.optimize import State, Step, optimize
from convscope.parameterizations import Pixels
from convscope.registry import Picture, Seed, pictures_of, technique
from convscope.regularizers import MeanOne
from convscope.results import Synthesis
from convscope.techniques.synthesize._layers import stages
from convscope.techniques.synthesize._run import Every, Resume, Run, Sitting, Steps, at_most, eight_bit
from convscope.transforms import Roll

SMALLEST = 24  # pixels of the shorter side below which there are no octaves: the network sees nothing there
AT_ONCE = 4096  # positions that look for their fitting feature in the guide at once, to bound memory


@technique(
    family="synthesize",
    order=3,
    keeps_size=True,
    paper='Mordvintsev, Olah & Tyka 2015, "Inceptionism" and "DeepDream - a code example"',
    see="The layer's own vocabulary, written over the photograph: strokes in shallow layers, eyes and animals deeper.",
    caution=(
        "It shows what the layer can see anywhere, not what it saw here: with enough steps every photograph ends in "
        "the same things, those that the training pictures were full of."
    ),
    quick={"octaves": 2, "steps": 2, "jitter": 4},
)
def dream(
    network: Network,
    images: Tensor,
    *,
    layer: Annotated[
        str | Sequence[str] | None,
        Field(description="layer whose activations grow, or several; one rather deep is chosen and said if left out"),
    ] = None,
    channel: Annotated[int | None, Field(ge=0, description="only this channel of the layer, by its mean")] = None,
    guide: Annotated[Picture, Field(description="a picture whose features are to appear, where they fit best")] = None,
    octaves: Annotated[int, Field(ge=1, description="sizes at which it is dreamt, the photograph's own the last")] = 4,
    octave_scale: Annotated[float, Field(gt=1, description="how much larger each octave is than the one before")] = 1.4,
    steps: Annotated[Steps, Field(ge=1, description="steps at each octave, one pass forward and back each")] = 10,
    rate: Annotated[float, Field(gt=0, description="how far a step moves a pixel on average, of 255")] = 1.5,
    jitter: Annotated[
        int, Field(ge=0, description="pixels by which the picture is rolled at most, anew each step")
    ] = 32,
    frames: Annotated[int, Field(ge=1, description="pictures of a film into the dream; the last is the result")] = 1,
    zoom: Annotated[float, Field(ge=1, description="how much each of these is enlarged to begin the next")] = 1.05,
    size: Annotated[int, Field(ge=1, description="longer side of the picture at most, in pixels")] = 512,
    every: Every = 0,
    seed: Seed = 0,
    resume: Resume = None,
) -> Synthesis:
    """What a layer sees in a photograph, amplified until it is there: DeepDream, with octaves, guide and zoom.

    Args:
        network: any network that takes pictures of several sizes.
        images: (3, H, W) or (N, 3, H, W) in [0, 1]; made smaller where the longer side is above ``size``. Memory grows
            with the pixels of the picture and nothing else.
        layer: one name or several.
        channel: of the one layer; its mean is maximised instead of the energy.
        guide: file or tensor; scaled to the network's input along its longer side.
        octaves: those whose shorter side would have less than 24 pixels are left out, and a note says so.
        octave_scale, steps, rate, jitter: as above.
        frames, zoom: each frame is a whole dream that begins with the one before, enlarged about its centre.
        size: of the longer side.
        every: of how many steps, over all octaves, a picture is kept.
        seed: of the jitter.
        resume: a state, for the same options and photographs.

    Returns:
        ``values`` (N, 3, H, W) in [0, 1], the dreams; ``originals`` the photographs. ``trace`` is half the mean square
        of the layer (of several the sum of its logarithms, of a channel the mean, with a guide the mean product) and
        begins anew at each octave. Each summary holds ``layers``, ``channel`` and ``octaves``, their sizes.

    Raises:
        UnknownLayer; OptionError for a channel of several layers, or every with several frames; NetworkError where the
        network does not take the size of an octave; ImageError for a guide that cannot be read.
    """
    names = [layer] if isinstance(layer, str) else list(dict.fromkeys(layer or [_default(network)]))
    for name in names:
        network.layer(name)
    if every and frames > 1:
        raise OptionError("a film keeps each of its frames when it is finished; leave out every, or frames")
    images = at_most(images, size)
    sizes = octave_sizes((images.shape[-2], images.shape[-1]), octaves, octave_scale)
    objective = _objective(network, names, channel, _guide(network, guide))
    plan = _Plan(network, objective, sizes, steps, rate / 255, jitter, frames, zoom, seed)
    sitting = Sitting(resume, every=every)

    def some(part: slice) -> Run:
        part_of = images[part].to(network.device)
        dreams: list[_Dream] = []

        def steps_from(begun: State | None) -> Iterator[Step]:
            dreams.append(_Dream(plan, part_of, begun))
            return dreams[-1].steps()

        run = sitting.run(steps_from, total=frames * len(sizes) * steps)
        if frames > 1 and dreams:
            run.frames = dreams[-1].film
        return run

    run = sitting.through(batched(some, len(images), network.max_batch))
    done = len(run.images)
    if len(sizes) < octaves:
        run.notes.append(f"{len(sizes)} of {octaves} octaves: the picture is too small for more")
    what = f"{', '.join(names)}{'' if channel is None else f', channel {channel}'}"
    about = {"layers": names, "channel": channel, "octaves": [f"{w}x{h}" for h, w in sizes]}
    return Synthesis(
        **run.fields(), notes=run.notes, layer=names[-1], originals=images[:done], titles=[what] * done,
        quantity=objective.description, summaries=[about] * done,
    )  # fmt: skip


# ---- what grows


def _default(network: Network) -> str:
    found = stages(network)
    return found[max(0, len(found) - 2)]


def _objective(network: Network, names: Sequence[str], only: int | None, guide: Tensor | None) -> Objective:
    if only is not None and (len(names) > 1 or guide is not None):
        raise OptionError("a channel is one of a single layer, without a guide; give one layer, or leave out channel")
    if only is not None:
        return channel_mean(network, names[0], only)
    if guide is not None:
        with torch.no_grad():
            seen = observe(network, guide.to(network.device), names)
        parts = [guided(network, name, network.maps(name, seen[name])[0].flatten(1)) for name in names]
        return functools.reduce(lambda a, b: a + b, parts)
    if len(names) == 1:
        return mean_energy(names[0])
    return functools.reduce(lambda a, b: a + b, [_logarithm(mean_energy(name)) for name in names])


def mean_energy(layer: str) -> Objective:
    """The layer's energy over its number of units: half the mean of squares."""
    whole = energy(layer)
    return Objective(whole.layers, lambda a: whole(a) / a[layer][0].numel(), f"mean energy of {layer}")


def _logarithm(objective: Objective) -> Objective:
    return Objective(
        objective.layers, lambda a: objective(a).clamp(min=1e-12).log(), f"logarithm of {objective.description}"
    )


def guided(network: Network, layer: str, features: Tensor) -> Objective:
    """The mean over positions i of max over j of <f_i, g_j>, for a guide's vectors g (C, positions of the guide).

    Which j is the best is found without a graph, so that the gradient at i is g_j, over the number of positions.
    """
    wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))

    def score(activations: Mapping[str, Tensor]) -> Tensor:
        maps = network.maps(layer, activations[layer]).flatten(2).to(wide)
        best = torch.cat(
            [torch.einsum("ncp,cj->npj", part, wide).argmax(2) for part in maps.detach().split(AT_ONCE, 2)], 1
        )
        return torch.einsum("ncp,cnp->np", maps, wide[:, best]).mean(1)

    return Objective(frozenset({layer}), score, f"features of the guide in {layer}")


def _guide(network: Network, given: Any) -> Tensor | None:
    """(1, 3, h, w), the longer side that of the network's input."""
    found = pictures_of(given)
    if len(found) > 1:
        raise OptionError("there is one guide; give a single picture")
    return at_most(found[0][None], max(network.input_size)) if found else None


# ---- from coarse to fine


def octave_sizes(size: tuple[int, int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of each octave, the smallest first; only the last may have less than 24 pixels a side."""
    found = [size]
    while len(found) < octaves:
        smaller = (round(found[-1][0] / scale), round(found[-1][1] / scale))
        if min(smaller) < SMALLEST:
            break
        found.append(smaller)
    return found[::-1]


@dataclass(frozen=True)
class _Plan:
    """What stays the same all through a dream."""

    network: Network
    objective: Objective
    sizes: Sequence[tuple[int, int]]
    steps: int
    rate: float
    jitter: int
    frames: int
    zoom: float
    seed: int


class _Dream:
    """Where a dream is: the photograph of this frame, and the detail that earlier octaves have added to it."""

    def __init__(self, plan: _Plan, images: Tensor, state: State | None) -> None:
        self.plan, self.picture = plan, images
        self.frame, self.octave = 0, 0
        self.detail: Tensor | None = None
        self.film: list[tuple[int, Tensor]] = []
        self._inner: State | None = None
        if state is not None:
            self._restore(state)

    def steps(self) -> Iterator[Step]:
        """Every step of every octave of every frame."""
        plan = self.plan
        for frame in progress.over(range(self.frame, plan.frames), "frames"):
            self.frame = frame
            for octave in progress.over(range(self.octave, len(plan.sizes)), "octaves"):
                self.octave = octave
                for step in self._octave_steps():
                    yield step
                    if step.stopped:
                        return
            assert self.detail is not None
            self.picture = (self.picture + self.detail).clamp(0, 1)
            self.film.append((self.done(plan.steps), eight_bit(self.picture)))
            self.picture = enlarged(self.picture, plan.zoom)
            self.detail, self.octave = None, 0

    def done(self, number: int) -> int:
        """Steps in all, when ``number`` of this octave are done."""
        return (self.frame * len(self.plan.sizes) + self.octave) * self.plan.steps + number

    def _octave_steps(self) -> Iterator[Step]:
        plan, size = self.plan, self.plan.sizes[self.octave]
        base = resize(self.picture, size)
        pixels = Pixels(base if self.detail is None else base + scaled(self.detail, size))
        inner, self._inner = self._inner, None
        for step in optimize(
            plan.network, plan.objective, pixels, steps=plan.steps, optimizer="sgd", rate=plan.rate,
            regularizers=(MeanOne(),), transforms=(Roll(plan.jitter),), seed=plan.seed + self.done(0), resume=inner,
        ):  # fmt: skip
            yield _Moment(
                self.done(step.number), step.score, step.penalty, step.stopped, step._loop, step, base, self._around()
            )
        self.detail = pixels.images().detach() - base

    def _around(self) -> State:
        """What of a dream an octave's own run does not know."""
        return {
            "frame": self.frame, "octave": self.octave, "picture": self.picture, "detail": self.detail,
            "film": list(self.film),
        }  # fmt: skip

    def _restore(self, state: State) -> None:
        found = state.get("picture")
        if found is None or found.shape != self.picture.shape:
            raise OptionError("the saved state belongs to another run; give the photograph and the options of then")
        device = self.picture.device
        self.picture, self.detail = found.to(device), state["detail"]
        self.detail = None if self.detail is None else self.detail.to(device)
        self.frame, self.octave, self.film = state["frame"], state["octave"], list(state["film"])
        self._inner = state


@dataclass(frozen=True)
class _Moment(Step):
    """A step of an octave, as one of the whole dream; what surrounds it is kept, since the dream goes on."""

    _step: Step
    _base: Tensor
    _around: State

    @cached_property
    def images(self) -> Tensor:
        """At full size: the photograph with the detail of this moment."""
        found, photograph = self._step.images, self._around["picture"]
        if found.shape == photograph.shape:
            return found
        size = (photograph.shape[-2], photograph.shape[-1])
        return (photograph + scaled(found - self._base, size)).clamp(0, 1)

    def state(self) -> State:
        """The state of the octave's own run, and what surrounds it."""
        around = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in self._around.items()}
        return {**self._step.state(), **around}


def scaled(detail: Tensor, size: tuple[int, int]) -> Tensor:
    """A difference of pictures at another size, not clipped."""
    return F.interpolate(detail, size, mode="bilinear", align_corners=False)


def enlarged(images: Tensor, zoom: float) -> Tensor:
    """The middle of a picture, ``zoom`` times as large, at the picture's size."""
    if zoom == 1:
        return images
    height, width = images.shape[-2:]
    theta = torch.tensor([[1 / zoom, 0.0, 0.0], [0.0, 1 / zoom, 0.0]]).to(images).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, [len(images), 3, height, width], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
