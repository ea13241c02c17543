"""Neighbour synthesis against a search of every window for every pixel, written in loops."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from convscope import progress
from convscope.errors import ConvscopeError, ImageError, MissingExtra, OptionError
from convscope.techniques.synthesize import _neighbour, _neighbour_kernels
from convscope.techniques.synthesize._neighbour import NeighbourTexture, neighbour_fill, neighbour_texture

Pixels = dict[tuple[int, int], list[float]]


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def smooth(height: int, width: int) -> Tensor:
    """Waves of three colours, in which many windows resemble each other."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(y * a + x * b + a * b) for a, b in ((0.9, 0.2), (0.3, 1.1), (0.7, -0.5))]
    return 0.5 + 0.4 * torch.stack(waves) + 0.05 * noise(height, width)


# ---- the naive search


def square(y: int, x: int, half: int) -> list[tuple[int, int]]:
    return [(y + a, x + b) for a in range(-half, half + 1) for b in range(-half, half + 1)]


def planned(known: set[tuple[int, int]], size: tuple[int, int], half: int, order: str, keys: list[int]) -> list:
    """All unknown pixels in their order, by counting anew for each layer or pixel."""
    everywhere = [(y, x) for y in range(size[0]) for x in range(size[1])]
    there, found = set(known), []
    while len(there) < len(everywhere):
        rank = {
            p: (-sum(q in there for q in square(*p, half)), keys[p[0] * size[1] + p[1]])
            for p in everywhere
            if p not in there
        }
        if order == "layers":
            rim = [p for p in rank if any(q in there for q in square(*p, 1))]
            found += sorted(rim, key=rank.__getitem__)
        else:
            found.append(min(rank, key=rank.__getitem__))
        there.update(found)
    return found


def distance(pixels: Pixels, place: tuple[int, int], sample: list, corner: tuple[int, int], window: int) -> float:
    """d(q) of the module's docstring."""
    half, total, weights = window // 2, 0.0, 0.0
    for a in range(window):
        for b in range(window):
            seen = pixels.get((place[0] + a - half, place[1] + b - half))
            if seen is not None:
                weight = math.exp(-((a - half) ** 2 + (b - half) ** 2) / (2 * (window / 6.4) ** 2))
                other = [plane[corner[0] + a][corner[1] + b] for plane in sample]
                total += weight * sum((s - o) ** 2 for s, o in zip(seen, other, strict=True)) / 3
                weights += weight
    return total / weights if weights else math.inf


def naive(
    sample: Tensor, size: tuple[int, int], known: dict[tuple[int, int], tuple[int, int]], usable: Tensor,
    *, window: int, order: str, epsilon: float, max_error: float, seed: int,
) -> dict[tuple[int, int], tuple[int, int]]:  # fmt: skip
    """From each pixel of the picture to its place in the sample."""
    chance = _neighbour._Chance.drawn(seed, size[0] * size[1])
    keys, draws, half, planes = chance.keys.tolist(), chance.draws.tolist(), window // 2, sample.tolist()
    corners = [
        (y, x)
        for y in range(sample.shape[1] - window + 1)
        for x in range(sample.shape[2] - window + 1)
        if usable[y : y + window, x : x + window].all()
    ]
    known = dict(known)
    pixels: Pixels = {p: [plane[q[0]][q[1]] for plane in planes] for p, q in known.items()}
    while len(known) < size[0] * size[1]:
        before = len(known)
        for p in planned(set(known), size, half, order, keys):
            errors = [distance(pixels, p, planes, corner, window) for corner in corners]
            if not min(errors) < max_error:
                continue
            matches = [c for c, e in zip(corners, errors, strict=True) if e <= min(errors) * (1 + epsilon)]
            y, x = matches[int(draws[p[0] * size[1] + p[1]] * len(matches))]
            known[p] = (y + half, x + half)
            pixels[p] = [plane[y + half][x + half] for plane in planes]
        max_error *= 1.1 if len(known) == before else 1
    return known


def sources(found: NeighbourTexture) -> dict[tuple[int, int], tuple[int, int]]:
    height, width = found.source.shape[:2]
    return {(y, x): tuple(found.source[y, x].tolist()) for y in range(height) for x in range(width)}


def expected(sample: Tensor, size: tuple[int, int], patch: int = 3, **options: Any) -> dict:
    """The naive picture from a patch in the middle."""
    place = _neighbour._Chance.drawn(options["seed"], size[0] * size[1]).place.tolist()
    top, left = (int(part * (side - patch + 1)) for part, side in zip(place, sample.shape[1:], strict=True))
    down, right = (size[0] - patch) // 2, (size[1] - patch) // 2
    known = {(down + a, right + b): (top + a, left + b) for a in range(patch) for b in range(patch)}
    return naive(sample, size, known, torch.ones(sample.shape[1:], dtype=torch.bool), **options)


@pytest.mark.parametrize("order", ["layers", "confidence"])
@pytest.mark.parametrize(("sample", "epsilon"), [(smooth(16, 19), 0.1), (smooth(17, 16), 0.8), (noise(16, 16), 0.1)])
def test_equals_a_naive_full_search(sample: Tensor, epsilon: float, order: Any) -> None:
    options: dict[str, Any] = {"window": 5, "seed": 3, "order": order, "epsilon": epsilon, "max_error": 0.3}
    assert sources(neighbour_texture(sample, (9, 11), **options)) == expected(sample, (9, 11), **options)


def test_pixels_that_fit_nowhere_wait_as_in_the_naive_search() -> None:
    options: dict[str, Any] = {"window": 3, "seed": 1, "order": "layers", "epsilon": 0.1, "max_error": 0.01}
    sample = noise(12, 12)
    found = sources(neighbour_texture(sample, (10, 8), **options))
    assert found == expected(sample, (10, 8), **options)
    assert found != sources(neighbour_texture(sample, (10, 8), **{**options, "max_error": 0.3}))


def test_a_grey_sample_is_compared_in_one_colour_with_the_same_result() -> None:
    sample = smooth(16, 16)[:1].expand(3, -1, -1)
    options: dict[str, Any] = {"window": 5, "seed": 0, "order": "layers", "epsilon": 0.3, "max_error": 0.3}
    assert sources(neighbour_texture(sample, (8, 9), **options)) == expected(sample, (8, 9), **options)


@pytest.mark.parametrize("order", ["layers", "confidence"])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    sample = smooth(24, 24)
    alone = neighbour_texture(sample, (40, 36), window=7, order=order, max_error=0.004)
    monkeypatch.setattr(_neighbour, "WORTH_THREADS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = neighbour_texture(sample, (40, 36), window=7, order=order, max_error=0.004)
    assert torch.equal(alone.source, together.source)


def test_waves_keep_the_order_of_pixels_that_see_each_other() -> None:
    order = torch.randperm(12 * 14, generator=torch.Generator().manual_seed(0))[:120].tolist()
    waves = _neighbour_kernels.waves(_neighbour._array(torch.tensor(order)), (12, 14), 2).tolist()
    for later, second in enumerate(order):
        for earlier, first in enumerate(order[:later]):
            if abs(first // 14 - second // 14) <= 2 and abs(first % 14 - second % 14) <= 2:
                assert waves[earlier] < waves[later]
    assert max(waves) < 60  # else nothing is gained


# ---- what is known without a search


def test_every_pixel_is_the_one_that_its_source_says() -> None:
    sample = noise(20, 23).double()
    found = neighbour_texture(sample, (25, 31), window=7)
    assert found.picture.dtype == torch.float64
    assert not found.stopped
    assert torch.equal(found.picture, sample[:, found.source[..., 0], found.source[..., 1]])


@pytest.mark.parametrize("order", ["layers", "confidence"])
def test_a_regular_pattern_is_continued_without_a_flaw(order: Any) -> None:
    y, x = torch.meshgrid(torch.arange(24), torch.arange(26), indexing="ij")
    sample = torch.stack([x % 4 < 2, (x + y) % 3 == 0, y % 5 < 2]).float()
    picture = neighbour_texture(sample, (48, 45), window=11, patch=7, order=order).picture
    for period, axis, channel in ((4, 2, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2)):
        plane = picture[channel : channel + 1]
        size = plane.shape[axis] - period
        assert torch.equal(plane.narrow(axis, period, size), plane.narrow(axis, 0, size))
    assert len(picture[0].unique()) == len(picture[1].unique()) == len(picture[2].unique()) == 2


def test_the_seed_decides_every_pixel() -> None:
    first, again, other = (neighbour_texture(smooth(16, 16), (20, 20), window=5, seed=s).picture for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_given_pixels_stay_and_are_continued() -> None:
    y, x = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    stripes = ((x % 6) < 3).float().expand(3, -1, -1)
    known = (y < 2) | ((y > 12) & (y < 16) & (x < 9))
    found = neighbour_texture(stripes[:, :20, :20], (30, 30), window=9, start=(stripes, known))
    assert torch.equal(found.picture, stripes)
    assert torch.equal((found.source == -1).all(-1), known)


# ---- filling


def test_a_filled_hole_equals_the_naive_search_and_the_rest_stays() -> None:
    picture, hole = smooth(20, 18), torch.zeros(20, 18, dtype=torch.bool)
    hole[8:13, 6:10], hole[2, 15] = True, True
    options: dict[str, Any] = {"window": 5, "seed": 2, "order": "layers", "epsilon": 0.2, "max_error": 0.3}
    found = neighbour_fill(picture.masked_fill(hole, 0.5), hole, **options)
    known = {(y, x): (y, x) for y in range(20) for x in range(18) if not hole[y, x]}
    assert sources(found) == naive(picture, (20, 18), known, ~hole, **options)
    assert torch.equal(found.picture[:, ~hole], picture[:, ~hole])
    assert torch.equal(found.picture, picture[:, found.source[..., 0], found.source[..., 1]])


def test_a_hole_in_stripes_is_mended() -> None:
    stripes = ((torch.arange(32) % 4) < 2).float().expand(3, 32, -1)
    hole = torch.zeros(32, 32, dtype=torch.bool)
    hole[10:22, 9:20] = True
    assert torch.equal(neighbour_fill(stripes.masked_fill(hole, 0.3), hole, window=7).picture, stripes)


# ---- runs that are stopped, errors


def test_a_stopped_run_keeps_what_is_there() -> None:
    def stop(now: progress.Progress) -> None:
        if now.loops and now.loops[0].done:
            raise progress.Cancelled

    with progress.listening(stop):
        found = neighbour_texture(smooth(16, 16), (40, 40), window=5)
    assert found.stopped
    assert int(found.known.sum()) == 9 + _neighbour.AT_ONCE
    assert torch.equal((found.source >= 0).all(-1), found.known)
    whole = neighbour_texture(smooth(16, 16), (40, 40), window=5)
    assert torch.equal(found.picture[:, found.known], whole.picture[:, found.known])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_picture(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_neighbour, "AT_ONCE", 100)
    monkeypatch.setattr(_neighbour, "WORTH_THREADS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    sample, options = smooth(14, 14), {"window": 5, "seed": 3, "max_error": 0.004}  # so small that pixels wait
    with progress.counted() as steps:
        whole = neighbour_texture(sample, (20, 22), **options)  # type: ignore[arg-type]
    assert steps.done > 8
    for number in range(1, steps.done, steps.done // 4):
        with progress.counted(number):
            half = neighbour_texture(sample, (20, 22), **options)  # type: ignore[arg-type]
        assert half.stopped
        with progress.counted(2):  # stopped again soon afterwards
            more = neighbour_texture(sample, (20, 22), **options, resume=half.state)  # type: ignore[arg-type]
        state = more.state or half.state
        found = neighbour_texture(sample, (20, 22), **options, resume=state)  # type: ignore[arg-type]
        assert torch.equal(found.source, whole.source)
        assert torch.equal(found.picture, whole.picture)
    with pytest.raises(OptionError, match="another run"):
        neighbour_texture(sample, (20, 23), **options, resume=half.state)  # type: ignore[arg-type]


def test_progress_counts_pixels() -> None:
    told: list[progress.Progress] = []
    with progress.listening(told.append):
        neighbour_texture(smooth(16, 16), (30, 30), window=5)
    loops = [now.loops[0] for now in told if now.loops]
    assert loops[-1] == progress.Loop("pixels", 30 * 30 - 9, 30 * 30 - 9)


HOLE = torch.zeros(12, 12, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "kind", "remedy"),
    [
        (lambda: neighbour_texture(noise(8, 12), (20, 20)), OptionError, "use a window of at most 7"),
        (lambda: neighbour_texture(noise(2, 2), (20, 20)), OptionError, "use a larger sample"),
        (lambda: neighbour_texture(noise(12, 12), (20, 20), window=6), OptionError, "use an odd one"),
        (lambda: neighbour_texture(noise(12, 12), (20, 20), window=1), OptionError, "use an odd one"),
        (lambda: neighbour_texture(noise(12, 12), (2, 20)), OptionError, "make it smaller, or the picture larger"),
        (lambda: neighbour_texture(noise(12, 12), (20, 20), patch=13), OptionError, "make it smaller"),
        (lambda: neighbour_texture(noise(12, 12), (20, 20), epsilon=-0.1), OptionError, "from 0 to 100"),
        (lambda: neighbour_texture(noise(12, 12), (20, 20), max_error=0), OptionError, "from 1e-6 on"),
        (lambda: neighbour_texture(noise(12, 12), (20, 20), order="rows"), OptionError, "use layers or confidence"),
        (lambda: neighbour_texture(noise(12, 12) * 255, (20, 20)), ImageError, "divide by 255"),
        (lambda: neighbour_texture(torch.rand(2, 3, 12, 12), (20, 20)), OptionError, r"pictures\[i\]"),
        (lambda: neighbour_texture(noise(12, 12), (12, 12), start=(noise(12, 12), HOLE)), OptionError, "at least one"),
        (lambda: neighbour_texture(noise(12, 12), (9, 9), start=(noise(12, 12), ~HOLE)), OptionError, "they are"),
        (lambda: neighbour_fill(noise(12, 12), HOLE), OptionError, "mark at least one pixel"),
        (lambda: neighbour_fill(noise(12, 12), ~HOLE), OptionError, "smaller window or a smaller hole"),
        (lambda: neighbour_fill(noise(12, 13), HOLE), OptionError, r"it is \(12, 13\)"),
    ],
)
def test_bad_input_gets_a_sentence_with_the_remedy(call: Any, kind: type[ConvscopeError], remedy: str) -> None:
    with pytest.raises(kind, match=remedy):
        call()


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingExtra, match=r"convscope\[texture\]"):
        neighbour_texture(noise(12, 12), (20, 20))


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, cache: bool = False, **__: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: ("compiled", function)

    monkeypatch.setattr(_neighbour_kernels.numba, "njit", refuse)
    assert _neighbour_kernels.compiled(refuse) == ("compiled", refuse)
