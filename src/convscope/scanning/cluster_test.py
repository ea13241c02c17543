"""A local Ray cluster against one process, row by row and to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from convscope.conftest import colour_pictures
from convscope.scanning import Engine, cluster, scan
from convscope.scanning.restart_test import SMALL, Largest, assert_same
from convscope.zoo import load_network


@pytest.fixture
def local() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_the_cluster_gives_the_index_of_one_machine(local: Any, colour_spec: dict[str, Any], tmp_path: Path) -> None:
    folder = colour_pictures(tmp_path / "pictures")
    (folder / "blue" / "02.png").write_bytes(b"damaged")
    threads, network = torch.get_num_threads(), load_network(**colour_spec)
    torch.set_num_threads(1)
    try:
        alone, spread = (
            scan(network, folder, tmp_path / engine, engine=engine, loaded=colour_spec, reducers=[Largest()], **SMALL)
            for engine in get_args(Engine)
        )
    finally:
        torch.set_num_threads(threads)
    assert len(spread) == 23
    assert_same(alone, spread)
    np.testing.assert_array_equal(alone.gathered("largest")["value"], spread.gathered("largest")["value"])


class Machines:
    """What Ray says of a cluster."""

    def __init__(self, **resources: float) -> None:
        self.cluster_resources = lambda: resources


def test_an_actor_has_a_gpu_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster._count(Machines(CPU=64, GPU=8)) == (8, {"num_gpus": 1, "num_cpus": 8})
    assert cluster._count(Machines(CPU=2, GPU=4)) == (4, {"num_gpus": 1, "num_cpus": 1})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert cluster._count(Machines(CPU=18)) == (4, {"num_cpus": 4})
    assert cluster._count(Machines(CPU=2)) == (1, {"num_cpus": 2})
