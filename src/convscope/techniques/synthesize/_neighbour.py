"""Neighbour synthesis: a texture grown pixel by pixel from a sample (Efros and Leung 1999, ICCV, sections 2 and 3).

    found = neighbour_texture(sample, (128, 128), window=11, seed=0)
    found.picture       # (3, 128, 128), every pixel of it a pixel of the sample
    found.source        # (128, 128, 2), of which row and column

For the next pixel p, every window of the sample is compared with what is known around p,

    d(q) = Σ_t G(t) |known(p + t) - sample(q + t)|² / Σ_t G(t),   t over the known pixels of p's window,

where G is a Gaussian of standard deviation window / 6.4. Among the windows with d(q) ≤ (1 + ε) min d one is drawn, and
p becomes its centre. Windows that leave the sample are no candidates. A pixel whose best d is not below ``max_error``
waits for the next round, and when a round fills nothing ``max_error`` grows by a tenth; all as in the authors'
published pseudo-code, with its constants 6.4, ε = 0.1, 0.3 and 1.1.

Departures: d is the mean over the colours, so that the constants mean the same as for the grey pictures of the paper.
Ties in the order are broken by one permutation of all pixels, where the paper draws one for each layer. A round goes
through all that is unknown, not through one layer; it differs only where a pixel has to wait.

The search is exact, and yet most windows are not summed to the end (see ``_neighbour_kernels``). Large samples are
searched by several threads, for pixels that do not see each other; the picture does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convscope import progress
from convscope.errors import OptionError
from convscope.extras import require
from convscope.images import check_images
from convscope.optimize import State
from convscope.progress import Cancelled

Order = Literal["layers", "confidence"]
EPSILON, MAX_ERROR, GROWTH = 0.1, 0.3, 1.1
SIGMA = 1 / 6.4  # of the Gaussian, in windows
AT_ONCE = 256  # pixels from one look at the clock and the keyboard to the next
WORTH_THREADS = 20_000  # candidates from which on a wave of pixels is worth several threads
NOWHERE = -1


@dataclass
class Round:
    """Where a round is: its pixels, as flat indices in their order, which it has not come to yet, how many of the
    others it has filled, and the error above which a pixel waits."""

    pixels: NDArray[np.int64]
    waiting: NDArray[np.bool_]  # by flat index
    filled: int
    max_error: float

    @classmethod
    def of(cls, pixels: NDArray[np.int64], count: int, filled: int, max_error: float) -> Round:
        """One that goes through these, of ``count`` pixels in all."""
        waiting = np.zeros(count, bool)
        waiting[pixels] = True
        return cls(pixels, waiting, filled, max_error)

    def done(self, tried: NDArray[np.int64], found: int) -> None:
        """It has come to these, and filled so many of them."""
        self.waiting[tried] = False
        self.filled += found

    def state(self, source: Tensor, known: Tensor) -> State:
        """All that is needed to go on with it."""
        left = torch.from_numpy(self.pixels[self.waiting[self.pixels]])
        return {
            "parameters": [source.clone()], "known": known.clone(), "left": left, "filled": self.filled,
            "max_error": self.max_error,
        }  # fmt: skip


@dataclass(frozen=True)
class NeighbourTexture:
    """What was grown.

    Attributes:
        picture: (3, H, W), dtype and device of the sample; where nothing is known, zero or what was given.
        source: (H, W, 2) int64 row and column in the sample that each pixel was copied from; -1 for pixels that were
            given from elsewhere, and where nothing is known.
        known: (H, W) bool; false somewhere only where the run was stopped.
        state: where that was, to go on from: ``neighbour_texture(..., resume=state)``.
    """

    picture: Tensor
    source: Tensor
    known: Tensor
    state: State | None = None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before all pixels were known."""
        return not bool(self.known.all())


def neighbour_texture(
    sample: Tensor,
    size: tuple[int, int],
    *,
    window: int = 11,
    patch: int = 3,
    start: tuple[Tensor, Tensor] | None = None,
    order: Order = "layers",
    epsilon: float = EPSILON,
    max_error: float = MAX_ERROR,
    seed: int = 0,
    resume: State | None = None,
) -> NeighbourTexture:
    """A picture of any size with the texture of the sample.

    Args:
        sample: (3, h, w) in [0, 1].
        size: (H, W) of the picture.
        window: side of the square that is compared, odd, in pixels: about the size of the largest regular feature.
            Smaller ones forget structure, larger ones copy whole pieces of the sample.
        patch: side of the piece, from a random place of the sample, that is laid in the middle to begin with.
        start: pixels to begin with instead: a picture (3, H, W) and where it is known, (H, W) bool.
        order: ``layers``: rings around what is known, in each first the pixels with most known ones in their window
            (the paper's); ``confidence``: always the pixel with most known ones in its window. Ties at random.
        epsilon: windows within (1 + epsilon) of the best are drawn from; 0 takes the best ones only.
        max_error: mean squared error above which a pixel waits.
        seed: of the patch's place, of the ties and of the draws.
        resume: the ``state`` of one that was stopped; the picture ends as if it had never been stopped.

    Returns:
        The picture. An interrupt after the first pixels ends it early, with what is there.

    Raises:
        OptionError: options out of range, a sample smaller than the window, nothing to begin with.
        ImageError: what is no picture in [0, 1].
        MissingExtra: numba is not installed.
    """
    _check(window, epsilon, max_error, order)
    sample = _checked(sample, "sample", window)
    chance = _Chance.drawn(seed, size[0] * size[1])
    if start is None:
        picture, source = _seeded(sample, size, patch, chance)
    else:
        picture, source = _given(sample, size, *start)
    usable = torch.ones(sample.shape[1:], dtype=torch.bool)
    taken_up = None
    if resume is not None:
        picture, source, taken_up = _restored(sample, picture[0], resume)
    return _Growth(sample, usable, picture, source, window, epsilon).grown(chance, order, max_error, taken_up)


def neighbour_fill(
    picture: Tensor,
    hole: Tensor,
    *,
    window: int = 11,
    order: Order = "layers",
    epsilon: float = EPSILON,
    max_error: float = MAX_ERROR,
    seed: int = 0,
) -> NeighbourTexture:
    """The picture with its hole filled from the rest of it; the rest stays as it is.

    Args:
        picture: (3, H, W) in [0, 1].
        hole: (H, W) bool, true where pixels are to be made.
        window, order, epsilon, max_error, seed: as in :func:`neighbour_texture`. Windows that meet the hole are no
            candidates.

    Returns:
        As :func:`neighbour_texture`; pixels outside the hole are their own source.

    Raises:
        OptionError: also where the hole is of another size, empty, or leaves no whole window.
        MissingExtra: numba is not installed.
    """
    _check(window, epsilon, max_error, order)
    picture = _checked(picture, "picture", window)
    hole = hole.to("cpu", torch.bool)
    _check_hole(hole, picture, window)
    height, width = hole.shape
    itself = torch.arange(height * width).view(height, width)
    source = itself.masked_fill(hole, NOWHERE)
    growth = _Growth(picture, ~hole, (picture, ~hole), source, window, epsilon)
    return growth.grown(_Chance.drawn(seed, height * width), order, max_error)


# ---- chance


@dataclass(frozen=True)
class _Chance:
    """All that is drawn, before anything is grown.

    Attributes:
        place: (2,) in [0, 1), of the patch in the sample. keys: (H·W,) a permutation that breaks ties.
        draws: (H·W,) float64 in [0, 1), with which each pixel picks among its matches.
    """

    place: Tensor
    keys: Tensor
    draws: Tensor

    @classmethod
    def drawn(cls, seed: int, pixels: int) -> _Chance:
        generator = torch.Generator().manual_seed(seed)
        place = torch.rand(2, generator=generator, dtype=torch.float64)
        keys = torch.randperm(pixels, generator=generator)
        return cls(place, keys, torch.rand(pixels, generator=generator, dtype=torch.float64))


# ---- what to begin with

Begun = tuple[Tensor, Tensor]  # (3, H, W) picture, (H, W) where it is known


def _seeded(sample: Tensor, size: tuple[int, int], patch: int, chance: _Chance) -> tuple[Begun, Tensor]:
    """The patch in the middle, and the (H, W) flat indices of its source."""
    height, width = sample.shape[1:]
    if not 1 <= patch <= min(height, width, *size):
        raise OptionError(
            f"the patch of {patch} pixels must fit into the sample of {width} x {height} and the picture of "
            f"{size[1]} x {size[0]} pixels; make it smaller, or the picture larger"
        )
    room = torch.tensor([height - patch + 1, width - patch + 1])
    top, left = (chance.place * room).long().tolist()
    down, right = (size[0] - patch) // 2, (size[1] - patch) // 2
    source = torch.full(size, NOWHERE)
    pixels = torch.arange(height * width).view(height, width)
    source[down : down + patch, right : right + patch] = pixels[top : top + patch, left : left + patch]
    known = source >= 0
    return (_copied(sample, source, sample.new_zeros(3, *size)), known), source


def _given(sample: Tensor, size: tuple[int, int], picture: Tensor, known: Tensor) -> tuple[Begun, Tensor]:
    known = known.to("cpu", torch.bool)
    if picture.shape != (3, *size) or known.shape != tuple(size):
        raise OptionError(
            f"the start has a picture of shape {tuple(picture.shape)} and known pixels of shape {tuple(known.shape)}; "
            f"for this size they are (3, {size[0]}, {size[1]}) and ({size[0]}, {size[1]})"
        )
    if not known.any():
        raise OptionError("no pixel of the start is known; give at least one, or leave the start out")
    return (check_images(picture)[0].to(sample), known), torch.full(size, NOWHERE)


def _restored(sample: Tensor, begun: Tensor, state: State) -> tuple[Begun, Tensor, Round]:
    """What was grown when the state was taken; OptionError for the state of another run."""
    (source,) = state["parameters"]
    places = sample.shape[1] * sample.shape[2]
    if "left" not in state or source.shape != begun.shape[1:] or int(source.max()) >= places:
        raise OptionError(
            "the saved state belongs to another run; give the same sample and the options of then, or leave out "
            "--resume"
        )
    taken_up = Round.of(_array(state["left"]), source.numel(), state["filled"], state["max_error"])
    return (_copied(sample, source, begun), state["known"]), source, taken_up


def _copied(sample: Tensor, source: Tensor, picture: Tensor) -> Tensor:
    """(3, H, W): the sample's pixels where a source is known, else those of the picture."""
    source = source.to(sample.device)
    return torch.where(source >= 0, sample.flatten(1)[:, source.clamp(min=0)], picture)


# ---- growing


class _Growth:
    """Sample and picture as the kernels take them, and the rounds."""

    def __init__(
        self, sample: Tensor, usable: Tensor, begun: Begun, source: Tensor, window: int, epsilon: float
    ) -> None:
        self._kernels = _kernels()
        self._sample, self._begun, self._half, self._epsilon = sample, begun[0], window // 2, epsilon
        colours = 1 if _grey(sample) and _grey(begun[0]) else 3
        self._window = self._weighted(window, colours)
        self._source = self._laid_out(_array(sample[:colours].float()), _array(usable), window)
        values = np.ascontiguousarray(_array(begun[0][:colours].float()).transpose(1, 2, 0))
        self._canvas = self._kernels.Canvas(values, _array(begun[1]).copy(), _array(source).copy())

    def _weighted(self, window: int, colours: int) -> Any:
        """Taps from the heaviest to the lightest, so that hopeless candidates show early; the centre is never known."""
        half = window // 2
        down, right = (axis.ravel() for axis in np.mgrid[-half : half + 1, -half : half + 1])
        distance = down**2 + right**2
        order = np.argsort(distance, kind="stable")[1:]
        weights = np.exp(-distance / (2 * (SIGMA * window) ** 2)) / colours
        taps = np.stack([down, right], 1).astype(np.int64)
        return self._kernels.Window(taps[order], weights[order].astype(np.float32), half)

    def _laid_out(self, sample: NDArray[np.float32], usable: NDArray[np.bool_], window: int) -> Any:
        """The sample in one line, padded so that a block may read past its end, and the corners that are barred."""
        height, width = usable.shape
        block = self._kernels.BLOCK
        whole = np.lib.stride_tricks.sliding_window_view(usable, (window, window)).all((2, 3))
        corners = np.zeros((whole.shape[0], width), bool)
        corners[:, : whole.shape[1]] = whole
        blocks = -(-corners.size // block)
        barred = np.full(blocks * block, np.inf, np.float32)
        barred[: corners.size][corners.ravel()] = 0
        stride = len(barred) + window * width
        values = np.zeros((len(sample), stride), np.float32)
        values[:, : height * width] = sample.reshape(len(sample), -1)
        return self._kernels.Source(values.ravel(), barred, width, stride)

    def grown(
        self, chance: _Chance, order: Order, max_error: float, taken_up: Round | None = None
    ) -> NeighbourTexture:  # fmt: skip
        """Rounds until all is known, or until it is stopped."""
        keys, draws = _array(chance.keys), _array(chance.draws)
        now, started = taken_up, taken_up is not None
        try:
            with progress.counting("pixels", int((~self._canvas.known).sum())) as counter:
                while not self._canvas.known.all():
                    now = now or Round.of(self._planned(order, keys), self._canvas.known.size, 0, max_error)
                    for found in self._filled(now, draws):
                        started = True
                        counter.turn(found)
                        counter.done()
                        if progress.stepped():
                            raise Cancelled
                    max_error, now = now.max_error * (1 if now.filled else GROWTH), None
        except (KeyboardInterrupt, Cancelled):
            if not started:
                raise
            now = now or Round.of(self._planned(order, keys), self._canvas.known.size, 0, max_error)
        return self._finished(now)

    def _planned(self, order: Order, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """All unknown pixels, in the order in which they are filled if none has to wait."""
        known = self._canvas.known
        if order == "layers":
            steps = self._kernels.layers(known)
            around = self._kernels.earlier(steps, self._half)
            return np.lexsort((keys, -around.ravel(), steps.ravel()))[known.sum() :]
        around = self._kernels.earlier((~known).astype(np.int64), self._half)
        confidence = (around + 1) * known.size - 1 - keys.reshape(known.shape)
        return self._kernels.most_confident(np.where(known, -1, confidence), int((~known).sum()), self._half)

    def _filled(self, now: Round, draws: NDArray[np.float64]) -> Iterator[int]:
        """Fill the round's pixels in order, a few at a time; how many were filled each time."""
        parts = self._parts(now.pixels, draws, now.max_error)
        while True:
            with progress.undisturbed() as interrupt:
                tried, found = next(parts, (None, 0))
                if tried is None:
                    return
                now.done(tried, found)
            yield found
            interrupt.release()

    def _parts(
        self, pixels: NDArray[np.int64], draws: NDArray[np.float64], max_error: float
    ) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Pixels that were tried, and how many of them were filled."""
        fill = partial(
            self._kernels.fill, canvas=self._canvas, window=self._window, source=self._source, chances=draws,
            epsilon=float(self._epsilon), max_error=float(max_error),
        )  # fmt: skip
        threads = torch.get_num_threads()
        if threads > 1 and len(self._source.barred) >= WORTH_THREADS:
            yield from self._side_by_side(pixels, fill, threads)
        else:
            for begin in range(0, len(pixels), AT_ONCE):
                part = pixels[begin : begin + AT_ONCE]
                yield part, fill(part)

    def _side_by_side(
        self, pixels: NDArray[np.int64], fill: Callable[[NDArray[np.int64]], int], threads: int
    ) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Wave by wave, each shared out over the threads."""
        if not len(pixels):
            return
        waves = self._kernels.waves(pixels, self._canvas.known.shape, self._half)
        by_wave = np.argsort(waves, kind="stable")
        ends = np.cumsum(np.bincount(waves)[1:])
        with ThreadPoolExecutor(threads) as pool:
            for wave in np.split(pixels[by_wave], ends[:-1]):
                yield wave, sum(pool.map(fill, np.array_split(wave, min(threads, len(wave)))))

    def _finished(self, now: Round | None) -> NeighbourTexture:
        source = torch.from_numpy(self._canvas.source)
        width = self._sample.shape[2]
        places = torch.stack([source // width, source % width], -1)
        places[source < 0] = NOWHERE
        known = torch.from_numpy(self._canvas.known)
        state = None if now is None or bool(known.all()) else now.state(source, known)
        return NeighbourTexture(_copied(self._sample, source, self._begun), places, known, state)


def _kernels() -> ModuleType:
    require("numba", "texture")
    from convscope.techniques.synthesize import _neighbour_kernels

    return _neighbour_kernels


def _array(values: Tensor) -> NDArray[Any]:
    return values.cpu().numpy()


def _grey(picture: Tensor) -> bool:
    """Whether all three colours are equal everywhere, so that comparing one of them is enough."""
    return bool((picture == picture[:1]).all())


# ---- checks


def _check(window: int, epsilon: float, max_error: float, order: str) -> None:
    if window < 3 or window % 2 == 0:
        raise OptionError(f"a window of {window} pixels has no centre with neighbours; use an odd one from 3, as 11")
    if not 0 <= epsilon <= 100:
        raise OptionError(f"epsilon is {epsilon}; it is a share of the smallest error, from 0 to 100, as 0.1")
    if not 1e-6 <= max_error < float("inf"):
        raise OptionError(f"max_error is {max_error}; it is a mean squared error from 1e-6 on, as 0.3")
    if order not in ("layers", "confidence"):
        raise OptionError(f"there is no order {order!r}; use layers or confidence")


def _checked(picture: Tensor, name: str, window: int) -> Tensor:
    """(3, H, W), if a window fits into it."""
    pictures = check_images(picture)
    height, width = pictures.shape[2:]
    if len(pictures) != 1:
        raise OptionError(f"there are {len(pictures)} pictures; the {name} is one of them, pictures[i]")
    if min(height, width) < window:
        fits = (min(height, width) - 1) // 2 * 2 + 1
        remedy = f"use a window of at most {fits}, or a larger {name}" if fits >= 3 else f"use a larger {name}"
        raise OptionError(f"the {name} of {width} x {height} pixels holds no window of {window}; {remedy}")
    return pictures[0]


def _check_hole(hole: Tensor, picture: Tensor, window: int) -> None:
    if hole.shape != picture.shape[1:]:
        raise OptionError(f"the hole has shape {tuple(hole.shape)}; for this picture it is {tuple(picture.shape[1:])}")
    if not hole.any():
        raise OptionError("the hole is empty; mark at least one pixel of it")
    covered = torch.nn.functional.max_pool2d(hole[None].float(), window, 1)
    if bool(covered.all()):
        raise OptionError(
            f"the hole leaves no whole window of {window} pixels to copy from; use a smaller window or a smaller hole"
        )
