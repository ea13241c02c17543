"""Networks of which it is known what they look at: do methods find the planted cause? (Yang & Kim 2019)

Every picture is an object, a shape with its own texture, laid on a background of another texture, each of a few
classes. Three small networks learn the same pictures, and only what they are asked for differs: the class of the
object, that of the background, or both as a pair. So it is known, not guessed, where the evidence is: a right map
lies on the object for the first network, beside it for the second, and on both for the third (arXiv:1907.09701,
section 3, where photographs are composed likewise).

For each network the score is the share of a map's positive part that lies on the object; a map without any knowledge
has the share that the object has of the picture. A method finds the cause if the object network's share is above that
and the background network's below it. That the first is above the second (the paper's model contrast, section 4.1) is
less: maps may lie on the border of the object for either.

Departures: shapes and textures are drawn instead of cut from photographs, so that nothing is downloaded and the
networks train in seconds; the classes of object and background are independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import progress
from convscope.backward import gradient
from convscope.errors import ConvscopeError, OptionError
from convscope.evaluate.cost import passes
from convscope.evaluate.measures import Column
from convscope.evaluate.methods import CONTROLS, Given, Maps, all_methods, methods_of
from convscope.evaluate.sample import answers, positive_share
from convscope.evaluate.together import CHEAP, comparison
from convscope.intervals import Interval, interval
from convscope.network import Network
from convscope.results import Comparison, Provenance
from convscope.zoo.options import seeded

Cause = Literal["object", "background", "both"]
CAUSES: tuple[Cause, ...] = ("object", "background", "both")
OBJECTS = ("plain disc", "striped square", "striped triangle", "chequered cross")
BACKGROUNDS = ("upright stripes", "lying stripes", "squares", "dots")
SIDE = 32  # pixels
STEPS = 120
MARK = "does not find the planted cause"
REACH = 7.5  # pixels from an object's centre to its border


@dataclass(frozen=True, eq=False)
class Scenes:
    """N pictures (N, 3, S, S) with their truth: classes (N,) of object and background, and masks (N, S, S)."""

    images: Tensor
    objects: Tensor
    backgrounds: Tensor
    masks: Tensor

    def labels(self, cause: Cause) -> Tensor:
        """(N,) what a network of that cause learns."""
        if cause == "both":
            return self.objects * len(BACKGROUNDS) + self.backgrounds
        return self.objects if cause == "object" else self.backgrounds


def scenes(count: int, *, seed: int = 0) -> Scenes:
    """Pictures of objects on backgrounds, classes, places, sizes, colours and phases drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *more, generator=generator)

    objects = torch.randint(len(OBJECTS), (count,), generator=generator)
    backgrounds = torch.randint(len(BACKGROUNDS), (count,), generator=generator)
    reach = uniform(0.75 * REACH, 1.15 * REACH)
    centre = uniform(REACH + 2, SIDE - REACH - 2, 2)
    masks = _shapes(objects, centre, reach)
    ground = _coloured(_textures(backgrounds, uniform(5, 7), uniform(0, 6, 2)), uniform(0, 1, 3), uniform(0, 1, 3))
    front = _coloured(_fillings(objects), uniform(0, 1, 3), uniform(0, 1, 3))
    images = torch.where(masks[:, None], front, ground)
    noise = 0.03 * torch.randn(images.shape, generator=generator)
    return Scenes((images + noise).clamp(0, 1), objects, backgrounds, masks)


def _shapes(kinds: Tensor, centre: Tensor, reach: Tensor) -> Tensor:
    """(N, S, S): true on each picture's shape."""
    places = torch.arange(float(SIDE)) + 0.5
    down, across = (places[None] - centre[:, axis, None] for axis in (0, 1))
    y, x = down[:, :, None] / reach[:, None, None], across[:, None, :] / reach[:, None, None]
    disc = x.square() + y.square() < 1
    square = (x.abs() < 0.85) & (y.abs() < 0.85)
    triangle = (y < 0.8) & (y > -1) & (x.abs() < 0.55 * (y + 1))
    cross = ((x.abs() < 0.34) & (y.abs() < 1)) | ((y.abs() < 0.34) & (x.abs() < 1))
    return torch.stack([disc, square, triangle, cross], 1)[torch.arange(len(kinds)), kinds]


def _textures(kinds: Tensor, period: Tensor, phase: Tensor) -> Tensor:
    """(N, S, S) in [0, 1]: each picture's pattern."""
    places = torch.arange(float(SIDE))
    down, across = ((places[None] + phase[:, axis, None]) * (2 * math.pi) / period[:, None] for axis in (0, 1))
    y, x = down.sin()[:, :, None], across.sin()[:, None, :]
    upright, lying = x.expand(-1, SIDE, -1), y.expand(-1, -1, SIDE)
    patterns = torch.stack([upright, lying, 3 * x * y, 4 * (x + y - 1.2)], 1)
    return torch.sigmoid(4 * patterns[torch.arange(len(kinds)), kinds])


def _fillings(kinds: Tensor) -> Tensor:
    """(N, S, S) in [0, 1]: what each picture's object is filled with, finer than any background."""
    places = torch.arange(SIDE)
    y, x = places[:, None], places[None]
    plain = torch.ones(SIDE, SIDE)
    rising, falling, squares = (x + y) % 4 < 2, (x - y) % 4 < 2, (x // 2 + y // 2) % 2 == 0
    return torch.stack([plain, rising.float(), falling.float(), squares.float()])[kinds]


def _coloured(pattern: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(N, 3, S, S): a pattern between two colours, kept at least a third apart in brightness."""
    dark, light = 0.45 * one, 0.55 + 0.45 * other
    return dark[:, :, None, None] + (light - dark)[:, :, None, None] * pattern[:, None]


# ---- networks


def _module(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in ((16, 2), (24, 1), (32, 2), (32, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def train(cause: Cause, given: Scenes, *, steps: int = STEPS, batch: int = 48, seed: int = 0) -> Network:
    """A small network that has learned a cause, by Adam on ``steps`` batches; the same seed gives the same one."""
    labels = given.labels(cause)
    both = [f"{shape} on {texture}" for shape in OBJECTS for texture in BACKGROUNDS]
    names = {"object": OBJECTS, "background": BACKGROUNDS, "both": tuple(both)}[cause]
    with seeded(seed):
        module = _module(len(names))
    generator = torch.Generator().manual_seed(seed)
    weights = list(module.parameters())
    optimizer = torch.optim.Adam(weights, 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    network = Network(module, labels=names, name=f"{cause} network", input_size=(SIDE, SIDE), max_batch=256)
    for _ in progress.over(steps, "training steps"):
        part = torch.randint(len(labels), (batch,), generator=generator)
        module.train()
        loss = F.cross_entropy(module(given.images[part]), labels[part])
        for weight, slope in zip(weights, gradient(loss, weights), strict=True):
            weight.grad = slope
        optimizer.step()
        schedule.step()
    module.eval()
    optimizer.zero_grad()
    return network


def accuracy(network: Network, cause: Cause, given: Scenes) -> float:
    """Share of the pictures that the network classifies rightly."""
    _, predicted = answers(network, len(given.images), lambda part: given.images[part])
    return float((predicted == given.labels(cause)).double().mean())


# ---- the benchmark


def planted(
    methods: str | Sequence[Given] | None = None,
    *,
    pictures: int = 64,
    training: int = 1200,
    steps: int = STEPS,
    seed: int = 0,
) -> Comparison:
    """Whether methods find the cause that was planted: the share of their maps on the object, for three networks.

    Args:
        methods: as :func:`convscope.evaluate.evaluate` takes them.
        pictures: that are explained, not seen in training.
        training: pictures that the networks learn from, in ``steps`` batches.
        seed: of pictures, weights and batches.

    Returns:
        ``values`` (methods, 4): the mean share on the object for the network that looks at the object, for that of the
        background, the difference of the two, and for the network of both. ``marks`` are the methods that do not find
        the cause. The summary says how well each network does its task, without which nothing follows.

    Raises:
        OptionError: a method that is unknown or works on none of the networks.
    """
    with torch.inference_mode(False), torch.enable_grad():
        learned, shown = scenes(training, seed=seed), scenes(pictures, seed=seed + 1)
        networks = {cause: train(cause, learned, steps=steps, seed=seed) for cause in CAUSES}
        judged, notes = _able(networks["object"], shown, methods)
        shares = {
            m.name: {c: _shares(m, networks[c], c, shown) for c in CAUSES} for m in progress.over(judged, "methods")
        }
    right = {cause: accuracy(networks[cause], cause, shown) for cause in CAUSES}
    return _result(judged, shares, shown, right, notes, seed)


def _able(network: Network, shown: Scenes, given: str | Sequence[Given] | None) -> tuple[list[Maps], list[str]]:
    found: list[Maps] = []
    notes = []
    one = shown.images[:1]
    for method in all_methods() if given is None else methods_of(given):
        try:
            cost = passes(network, one, partial(method, network, one, [0]), most=math.inf if given else CHEAP)
        except ConvscopeError as error:
            notes.append(f"{method.name} is left out: {error}")
            continue
        if not math.isinf(cost):
            found.append(method)
    if not found:
        raise OptionError(f"no method works on the planted networks; {'; '.join(notes)}")
    return [*found, *CONTROLS], notes


def _shares(method: Maps, network: Network, cause: Cause, shown: Scenes) -> list[float]:
    maps = method(network, shown.images, shown.labels(cause).tolist())
    return [positive_share(heat, mask) for heat, mask in zip(maps, shown.masks, strict=True)]


def finds(shares: Mapping[str, Interval], area: float) -> str:
    """Whether a method finds the cause, from its shares on an object of that area, in a word.

    ``yes`` if the intervals lie above the area for the object network and below it for the background network;
    ``partly`` if the share is above it for the first and, of the same pictures, smaller for the second; else ``no``.
    """
    if shares["object"].low > area > shares["background"].high:
        return "yes"
    return "partly" if shares["difference"].low > 0 and shares["object"].low > area else "no"


def _less(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(ones, others, strict=True)]


def _result(
    judged: Sequence[Maps], shares: Mapping[str, Mapping[Cause, Sequence[float]]], shown: Scenes,
    right: Mapping[Cause, float], notes: Sequence[str], seed: int,
) -> Comparison:  # fmt: skip
    area = float(shown.masks.double().mean())
    columns = [
        Column("object", "object network", 1, area), Column("background", "background network", -1, area),
        Column("difference", "object less background", 1, 0.0), Column("both", "network of both", 0, area),
    ]  # fmt: skip
    raw = {name: {**of, "difference": _less(of["object"], of["background"])} for name, of in shares.items()}
    ends = {name: {c.key: interval(of[c.key], seed=seed) for c in columns} for name, of in raw.items()}
    found = {name: finds(of, area) for name, of in ends.items()}
    summary = {
        "object_area": area, "accuracy": dict(right), "pictures": len(shown.images),
        "methods": [{"name": m.name, "control": m.control, "finds_the_cause": found[m.name], "shares": raw[m.name]}
                    for m in judged],
    }  # fmt: skip
    known = ", ".join(f"{cause} {share:.0%}".replace("%", " %") for cause, share in right.items())
    about = f"share of each map on the object, which covers {area:.2f} of a picture; right answers: {known}"
    return comparison(
        [m.name for m in judged], columns, {name: list(of.values()) for name, of in ends.items()}, summaries=[summary],
        notes=[about, *notes],
        marks=[found[m.name] == "no" and not m.control for m in judged], controls=[m.control for m in judged],
        verdicts=[found[m.name] for m in judged], verdict="finds the cause", mark=MARK,
        provenance=Provenance(
            technique="evaluate", options={"planted": True}, network="planted networks",
            weights=f"trained, seed {seed}", layer=None, seed=seed, precision="float32", device="cpu",
        ),
    )  # fmt: skip
