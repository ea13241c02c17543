"""What is gathered from maps against numpy's own functions: compiled and not, channels first and last."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from convscope.index import BINS, EDGES
from convscope.scanning import planes


@pytest.fixture(params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setattr(planes, "_kernels", lambda: None)
    else:
        pytest.importorskip("numba")
        monkeypatch.setattr(planes, "_WORTH", 1)  # several threads also for little
    return request.param


def maps(kind: str) -> torch.Tensor:
    """(5, 70, 9, 8) with zeros, negative values, ties, a silent channel and one far outside the edges."""
    chance = torch.Generator().manual_seed(3)
    values = torch.randn(5, 70, 9, 8, generator=chance) * 10 ** torch.linspace(-5, 5, 70).view(1, -1, 1, 1)
    values[:, :40] = values[:, :40].clamp(min=0)
    values[:, 7] = 0
    values[2, 11] = values[2, 11].max()
    values = values.bfloat16() if "bfloat16" in kind else values
    values = values.double() if "double" in kind else values
    return values.contiguous(memory_format=torch.channels_last) if "last" in kind else values


@pytest.mark.parametrize("kind", ["first", "last", "bfloat16 last", "bfloat16 first", "double"])
def test_everything_is_what_numpy_says(path: str, kind: str) -> None:
    given = maps(kind)
    state = planes.empty(70, 3)
    state["grid"][:] = 9, 8
    planes.gather(given[:2], np.array([4, 6]), state)
    planes.gather(given[2:], np.array([7, 8, 11]), state)
    told, values = planes.finished(state), given.float().numpy()
    np.testing.assert_array_equal(told["maximum"], values.max((0, 2, 3)))
    np.testing.assert_allclose(told["zeros"], (values == 0).mean((0, 2, 3)))
    np.testing.assert_allclose(told["silent"], (values.max((2, 3)) <= 0).mean(0))
    wide = values.astype(np.float64)
    np.testing.assert_allclose(told["mean"], wide.mean((0, 2, 3)), rtol=1e-5, atol=1e-6 * wide.std((0, 2, 3)).max())
    np.testing.assert_allclose(told["spread"], wide.std((0, 2, 3)), rtol=1e-5)
    for channel in range(70):
        flat = values[:, channel].reshape(5, -1)
        counted = flat[[0, 3]]  # of the pictures 4 and 8
        if (counted >= 0).all():  # below zero the bins hold their upper edge, numpy's their lower one
            assert told["histogram"][channel].tolist() == np.histogram(counted, EDGES)[0].tolist()
        assert told["histogram"][channel].sum() == counted.size
        order = sorted((-flat[i].max(), id, flat[i].argmax()) for i, id in enumerate((4, 6, 7, 8, 11)))[:3]
        order = [each for each in order if each[0] != 0]
        assert told["values"][channel][: len(order)].tolist() == [-value for value, _, _ in order]
        assert told["ids"][channel].tolist() == [id for _, id, _ in order] + [-1] * (3 - len(order))
        places = told["rows"][channel] * 8 + told["columns"][channel]
        assert places[: len(order)].tolist() == [place for _, _, place in order]


def test_negative_values_have_the_bins_of_their_mirror_images() -> None:
    values = torch.tensor([3.0, 1.5, 1.0, 0.9, 2.0**-13, 0.0, 1e9]).view(1, 1, -1)
    there, mirrored = planes.histogram(values)[0], planes.histogram(-values)[0]
    assert there.tolist() == mirrored[::-1].tolist()
    assert there[BINS // 2] == 2  # zero, and what is smaller than the innermost edge
    assert there.tolist() == np.histogram(values.numpy(), EDGES)[0].tolist()


def test_merging_chunks_is_gathering_them_in_one() -> None:
    given = maps("last")
    whole, parts = planes.empty(70, 3), [planes.empty(70, 3) for _ in range(2)]
    planes.gather(given, np.arange(5), whole)
    planes.gather(given[:3], np.arange(3), parts[0])
    planes.gather(given[3:], np.arange(3, 5), parts[1])
    merged = planes.merged(*parts)
    for name in ("values", "ids", "places", "zeros", "silent", "maximum", "histogram", "seen"):
        np.testing.assert_array_equal(merged[name], whole[name])
    np.testing.assert_allclose(merged["total"], whole["total"], rtol=1e-6)
