"""Scans that are stopped anywhere, by an error between any two writes or by SIGKILL, end with the same bits."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convscope.conftest import colour_pictures
from convscope.errors import ConvscopeError, ImageError, IndexUnusable, OptionError, OutputError
from convscope.hooks import Activations
from convscope.images import write_image
from convscope.index import Index, open_index
from convscope.network import Network
from convscope.scanning import scan, store
from convscope.scanning.reducers import Batch, State
from convscope.scanning.store import Store, locked
from convscope.zoo import load_network

SMALL: dict[str, Any] = {"chunk": 5, "batch": 3, "gradients": 2, "checkpoint": 0, "workers": 1}


@pytest.fixture(scope="module")
def network(colour_spec: dict[str, Any]) -> Network:
    return load_network(**colour_spec)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = colour_pictures(tmp_path_factory.mktemp("restart") / "pictures")
    (folder / "red" / "03.png").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def whole(network: Network, pictures: Path, colour_spec: dict[str, Any]) -> Index:
    """The scan that nothing stopped."""
    return scan(network, pictures, pictures.parent / "whole.index", loaded=colour_spec, **SMALL)


def assert_same(first: Index, second: Index) -> None:
    """Row by row and array by array, to the bit."""
    assert first.pictures().equals(second.pictures())
    for layer in first.code_layers:
        np.testing.assert_array_equal(first.codes(layer), second.codes(layer), strict=True)
    for layer in first.layers:
        for read in (Index.patches, Index.statistics):
            for one, other in zip(vars(read(first, layer)).values(), vars(read(second, layer)).values(), strict=True):
                np.testing.assert_array_equal(one, other, strict=True)
    for one, other in zip(vars(first.gradients()).values(), vars(second.gradients()).values(), strict=True):
        np.testing.assert_array_equal(one, other)


class Largest:
    """A reducer of one's own: the largest value of each channel of a layer."""

    name, layers, channels = "largest", ("4",), 12

    def start(self) -> State:
        return {"value": np.full(self.channels, -np.inf, np.float32), "pictures": np.zeros(1, np.int64)}

    def update(self, state: State, batch: Batch, activations: Activations) -> None:
        state["value"][:] = np.maximum(state["value"], activations["4"].amax((0, 2, 3)).float().numpy())
        state["pictures"] += len(batch.ids)

    def merge(self, first: State, second: State) -> State:
        value = np.maximum(first["value"], second["value"])
        return {"value": value, "pictures": first["pictures"] + second["pictures"]}

    def finish(self, state: State) -> State:
        return state


class Crash(BaseException):
    """The machine stops here."""


def crashing(monkeypatch: pytest.MonkeyPatch, turns: Iterator[int]) -> Callable[[], None]:
    """Stops before every n-th write, n from ``turns``; what comes back starts the count of the next attempt."""
    left = [0]

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def write(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*args, **options)

        monkeypatch.setattr(owner, name, write)

    from lancedb.table import LanceTable

    for owner, name in ((LanceTable, "add"), (Store, "_save"), (Store, "_write"), (LanceTable, "optimize")):
        counted(owner, name)
    counted(store, "atomic_write")

    def start() -> None:
        left[0] = next(turns)

    return start


@pytest.mark.slow
def test_stopped_between_any_two_writes(
    network: Network, pictures: Path, whole: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = crashing(monkeypatch, cycle([1, 2, 3, 4, 5, 6, 7]))
    crashes = 0
    while True:
        start()
        try:
            found = scan(network, pictures, tmp_path / "i.index", reducers=[Largest()], **SMALL)
            break
        except Crash:
            crashes += 1
            if crashes == 9:  # a reader meets an index that is not finished
                with pytest.raises(IndexUnusable, match="the same scan again finishes it"):
                    open_index(tmp_path / "i.index")
    assert crashes > 9
    assert_same(found, whole)
    assert found.gathered("largest")["pictures"] == len(whole)
    assert len(list((tmp_path / "i.index").glob("state-*"))) == 1
    assert len(list((tmp_path / "i.index").glob("pictures.lance/data/*"))) == 1


KILLED = """
import json, os, random, signal, sys, time
import numpy as np
import torch
torch.set_num_threads(1)
import lancedb
from convscope.scanning import planes, scan
from convscope.zoo import load_network
spec, pictures, output, options, seed = json.loads(sys.argv[1])
network = load_network(**spec)
network.convolution_layers, network.code_layer
for kind in (torch.float32, torch.bfloat16):  # compiled before the children need it; no threads, which a fork loses
    maps = torch.ones(1, 8, 4, 4, dtype=kind).contiguous(memory_format=torch.channels_last)
    planes.gather(maps, np.zeros(1, np.int64), planes.empty(8, 2))
chance, kills, longest = random.Random(seed), 0, 0.1
while True:
    child = os.fork()
    if child == 0:
        try:
            scan(network, pictures, output, loaded=spec, **options)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    longest *= 1.25  # so that it ends on any machine
    end = time.monotonic() + chance.uniform(0, longest)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            print(json.dumps({"kills": kills, "status": status}))
            sys.exit(status != 0)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys, "getrefcount") or sys.platform == "win32", reason="kills by SIGKILL, and forks")
def test_killed_again_and_again(colour_spec: dict[str, Any], pictures: Path, whole: Index, tmp_path: Path) -> None:
    told = json.dumps([colour_spec, str(pictures), str(tmp_path / "k.index"), SMALL, 5])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, told], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1])["kills"] >= 5
    assert_same(open_index(tmp_path / "k.index"), whole)
    assert len(list((tmp_path / "k.index").glob("pictures.lance/data/*"))) == 1  # nothing is left lying about


# ---- growing


def test_new_pictures_are_added_without_reading_the_old(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = colour_pictures(tmp_path / "pictures", each=2)
    (folder / "red" / "zz.png").write_bytes(b"damaged")
    before = scan(network, folder, tmp_path / "g.index", **SMALL)
    assert len(before) == 6
    write_image(torch.zeros(3, 40, 48), folder / "red" / "zz.png")  # mended, it is still a picture that was there
    write_image(torch.full((3, 40, 48), 0.5), folder / "blue" / "aa.png")  # in front of the others
    (folder / "violet").mkdir()
    write_image(torch.full((3, 40, 48), 0.25), folder / "violet" / "00.png")
    from convscope import scanning

    read: list[str] = []
    loader = scanning.Loader.__call__
    monkeypatch.setattr(scanning.Loader, "__call__", lambda self, entry: read.append(entry.path) or loader(self, entry))
    after = scan(network, folder, tmp_path / "g.index", **SMALL)
    assert sorted(read) == ["blue/aa.png", "violet/00.png"]
    assert len(after) == 8
    np.testing.assert_array_equal(after.codes()[:6], before.codes())  # a reader of the old state goes on reading it
    rows = after.pictures(["id", "label", "label_index"], "id >= 7").to_pylist()
    assert [(row["label"], row["label_index"]) for row in rows] == [("blue", 0), ("violet", -1)]
    assert after.statistics("1").histogram.sum() == before.statistics("1").histogram.sum() * 3 // 2  # 0, 4, then 8
    assert set(after.patches("4").ids.ravel()) >= {7, 8}
    assert len(after.pictures(["path"], "error is not null")) == 1


def test_nothing_new_changes_nothing(network: Network, pictures: Path, whole: Index) -> None:
    before = (whole.path / "scan.json").read_text()
    assert_same(scan(network, pictures, whole.path, loaded=dict(whole.provenance["loaded"]), **SMALL), whole)
    assert (whole.path / "scan.json").read_text() == before


def test_what_would_not_fit_is_refused_with_the_difference(network: Network, pictures: Path, whole: Index) -> None:
    before = (whole.path / "scan.json").read_text()
    with pytest.raises(IndexUnusable, match=r"chunk 5 -> 6; patches|patches 9 -> 4; .*chunk 5 -> 6"):
        scan(network, pictures, whole.path, **{**SMALL, "patches": 4, "chunk": 6})
    with pytest.raises(IndexUnusable, match="layers 4 -> 3"):
        scan(network, pictures, whole.path, layers=["1", "3"], **SMALL)
    other = load_network(network, weights="random")
    with pytest.raises(IndexUnusable, match=r"digest sha256:.* -> sha256:"):
        scan(other, pictures, whole.path, **SMALL)
    with pytest.raises(IndexUnusable, match="location"):
        scan(network, colour_pictures(pictures.parent / "others", each=1), whole.path, **SMALL)
    with pytest.raises(IndexUnusable, match="was scanned with colours"):
        open_index(whole.path, network=other)
    assert (whole.path / "scan.json").read_text() == before


# ---- bad input


def test_no_pictures_and_no_readable_ones(network: Network, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"empty holds no pictures"):
        scan(network, tmp_path / "empty", tmp_path / "e.index")
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "bad" / name).write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"none of the 2 pictures can be read; the first, a.png: .*not a picture"):
        scan(network, tmp_path / "bad", tmp_path / "e.index", **SMALL)
    assert not (tmp_path / "e.index").exists()
    with pytest.raises(ImageError, match="there is no such file or folder"):
        scan(network, tmp_path / "nowhere", tmp_path / "e.index")
    with pytest.raises(OptionError, match="not from int"):
        scan(network, 3, tmp_path / "e.index")


def test_places_that_are_no_index(network: Network, pictures: Path, whole: Index, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds other things than an index"):
        scan(network, pictures, pictures)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        scan(network, pictures, tmp_path / "file")
    with pytest.raises(IndexUnusable, match="is no index; `convscope scan"):
        open_index(tmp_path)
    manifest = json.loads((whole.path / "scan.json").read_text())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "scan.json").write_text(json.dumps(manifest | {"format": 99}))
    for use in (open_index, lambda path: scan(network, pictures, path)):
        with pytest.raises(IndexUnusable, match=r"has format 99 .* reads format 1"):
            use(tmp_path / "old")
    (tmp_path / "old" / "scan.json").write_text("{")
    with pytest.raises(IndexUnusable, match="cannot be read"):
        open_index(tmp_path / "old")


def test_two_writers(network: Network, pictures: Path, whole: Index) -> None:
    with locked(whole.path), pytest.raises(IndexUnusable, match="another scan is writing"):
        scan(network, pictures, whole.path, **SMALL)


@pytest.mark.parametrize("place", ["rows", "states", "manifest"])
def test_a_full_disk_keeps_what_was_scanned(
    network: Network, pictures: Path, whole: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from lancedb.table import LanceTable

    owner, name = {"rows": (LanceTable, "add"), "states": (Store, "_save"), "manifest": (Store, "_write")}[place]
    real, calls = getattr(owner, name), [0]

    def full(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        with pytest.raises(OutputError, match=r"No space left on device.*what was scanned before is kept"):
            scan(network, pictures, tmp_path / "f.index", **SMALL)
    kept = json.loads((tmp_path / "f.index" / "scan.json").read_text())["checkpoint"]["pictures"]
    assert kept == {"rows": 15, "states": 15, "manifest": 10}[place]
    assert_same(scan(network, pictures, tmp_path / "f.index", **SMALL), whole)


def test_a_reducer_of_ones_own(network: Network, pictures: Path, whole: Index, tmp_path: Path) -> None:
    found = scan(network, pictures, tmp_path / "r.index", reducers=[Largest()], **SMALL)
    assert_same(found, whole)
    np.testing.assert_array_equal(found.gathered("largest")["value"], found.statistics("4").maximum)
    assert found.gathered("largest")["pictures"] == len(found)
    with pytest.raises(OptionError, match="no reducer 'smallest'; it was scanned with largest"):
        found.gathered("smallest")
    with pytest.raises(IndexUnusable, match="reducers largest -> nothing"):
        scan(network, pictures, tmp_path / "r.index", **SMALL)
    wrong = Largest()
    wrong.channels = 5
    with pytest.raises(OptionError, match="the reducer 'largest' fails at 4"):
        scan(network, pictures, tmp_path / "w.index", reducers=[wrong], **SMALL)
    with pytest.raises(OptionError, match="names of their own"):
        scan(network, pictures, tmp_path / "r.index", reducers=[Largest(), Largest()], **SMALL)


def test_auto_is_bfloat16_where_the_processor_is_fast_at_it(
    network: Network, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("convscope.network.fast_in_bfloat16", lambda _, fast=fast: fast)
        found = scan(replace(network, precision="auto"), pictures / "red", tmp_path / precision, **SMALL)
        assert found.provenance["precision"] == precision


def test_the_network_is_as_it_was(network: Network, pictures: Path, tmp_path: Path) -> None:
    network.module.train()
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    with pytest.raises(ConvscopeError):
        scan(network, pictures, tmp_path / "n.index", layers=["nothing"])
    scan(network, pictures, tmp_path / "n.index", **SMALL)
    assert network.module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.module.state_dict().items())
    assert all(not part._forward_hooks for part in network.module.modules())
    assert all(parameter.grad is None for parameter in network.module.parameters())
    network.module.eval()


def test_a_network_handed_over_in_python_is_asked_for_again(pictures: Path, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    given = load_network(module, input_size=24)
    scan(given, pictures, tmp_path / "m.index", **SMALL)
    with pytest.raises(IndexUnusable, match="handed over in Python"):
        _ = open_index(tmp_path / "m.index").network
    assert open_index(tmp_path / "m.index", network=module).network.module is module
