"""A scan against the bare forward pass, its memory at a million rows, and the nearest of a hundred thousand codes.

python benchmarks/scan.py                 everything; some minutes
python benchmarks/scan.py --quick         the same of little; seconds
python benchmarks/scan.py speed           only that; also memory, nearest

speed    Pictures that are prepared already go through the network alone, in the same batches, and through the scan of
         a chunk, which gathers codes, statistics and the top 9 patches of all channels of all convolutions; in turn,
         the best of some rounds each. Beside it the scan from the files as `convscope scan` does it: decoding and the
         sample of gradients included. SqueezeNet has its published weights where they are beside the project
         (../shared/models), else random ones. bfloat16 only where the processor is fast at it.
memory   Rows as of a million pictures, with codes of 512 numbers, through merging, writing and finishing. Every 32nd
         chunk is scanned, by a network of one small convolution, from pictures that are made; the others are the same
         rows with other ids, paths and codes. Peaks are those of the whole process.
nearest  Codes from a mixture of normal distributions; one query after another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

import convscope
from convscope.index import nearest_rows
from convscope.network import Network, fast_in_bfloat16
from convscope.scanning import _about, _network, _options, _Run, chunks
from convscope.scanning.pictures import Loaded, Loader, prefetched
from convscope.scanning.store import Store, locked
from convscope.sources import Entry, open_source

RESULTS = Path(__file__).parent / "results" / "scan.json"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="speed, memory, nearest")
    parser.add_argument("--quick", action="store_true", help="of little")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    known: dict[str, Callable[[bool], Any]] = {"speed": speed, "memory": memory, "nearest": nearest}
    report = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.parts or known:
        report[name] = known[name](options.quick)
        report["machine"] = {"processors": os.cpu_count(), "torch": torch.__version__}
        options.output.write_text(json.dumps(report, indent=2) + "\n")
        print(name, json.dumps(report[name], indent=1), flush=True)
    print(f"wrote {options.output}")


# ---- speed


def squeezenet() -> Network:
    weights = SHARED / "models" / "squeezenet1_0_imagenet.safetensors"
    return convscope.load_network("torchvision:squeezenet1_0", weights=weights if weights.exists() else "random")


def speed(quick: bool) -> dict[str, Any]:
    networks = {"builtin": convscope.load_network("builtin"), "squeezenet1_0": squeezenet()}
    precisions = ["float32", *(["bfloat16"] if fast_in_bfloat16(torch.device("cpu")) else [])]
    return {
        f"{name} {precision}": ratio(convscope.load_network(network, precision=precision), 64 if quick else 512)
        for name, network in networks.items()
        for precision in precisions
    }


def ratio(network: Network, count: int) -> dict[str, Any]:
    """Pictures a second of the bare pass and of the scan, on the same prepared pictures."""
    options = _options(network, None, None, 9, 0, count, None, 96, "local")
    scanner = chunks.Scanner(network, options)
    pictures = list(islice(photographs(network), count))
    images = torch.stack([each.image for each in pictures if each.image is not None])
    with torch.inference_mode():
        forward = lambda: [network(part) for part in images.split(options.batch)]  # noqa: E731
        scan = lambda: scanner.scan(0, pictures)  # noqa: E731
        seconds = in_turn({"forward": forward, "scan": scan}, rounds=3)
    files = time.perf_counter()
    chunks.Scanner(network, replace(options, gradients=16)).scan(0, islice(photographs(network), count))
    files = time.perf_counter() - files
    return {
        "batch": options.batch, "channels": sum(network.layer(name).channels for name in options.layers),
        "threads": torch.get_num_threads(),
        "forward pictures a second": count / seconds["forward"][0],
        "scan pictures a second": count / seconds["scan"][0],
        "ratio": seconds["forward"][0] / seconds["scan"][0],
        "ratio of processor seconds": seconds["forward"][1] / seconds["scan"][1],
        "from files pictures a second": count / files,
    }  # fmt: skip


def photographs(network: Network) -> Iterator[Loaded]:
    """Of Caltech-101 where it is beside the project, else made ones."""
    shard = SHARED / "data" / "caltech101" / "test.tar"
    if shard.exists():
        source = open_source(shard)
        return prefetched(Loader(source, network, 96), source.entries(), 2, 32)
    chance = torch.Generator().manual_seed(0)
    return (made(Entry(f"{i}"), torch.rand(3, *network.input_size, generator=chance)) for i in range(10**9))


def made(entry: Entry, image: torch.Tensor) -> Loaded:
    return Loaded(entry, None, image, (200, 300), np.zeros(6, np.float32), b"x" * 1500)


def in_turn(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds by the wall and of computing, of the best round of each; one after the other in every round.

    What else the machine does changes the first, and far less the second.
    """
    best = dict.fromkeys(works, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter(), time.process_time()
            work()
            taken = time.perf_counter() - start[0], time.process_time() - start[1]
            best[name] = min(best[name][0], taken[0]), min(best[name][1], taken[1])
    return best


# ---- memory


class Wide(nn.Module):
    """A convolution to 512 channels, whose means are codes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 512, 3, stride=4), nn.ReLU()
        self.head = nn.Linear(512, 10)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.conv(pictures)).mean((2, 3)))


def memory(quick: bool) -> dict[str, Any]:
    """Peak of the process in GB, at the start and as rows come."""
    rows = 20_000 if quick else 1_000_000
    network = _network(convscope.load_network(Wide(), input_size=8, precision="float32"))
    network = convscope.load_network(network, precision="float32")
    options = _options(network, None, ["relu"], 9, 0, 512, 128, 96, "local")
    scanner = chunks.Scanner(network, options)
    images = torch.rand(options.chunk, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    peaks, start = {}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        about = _about(network, network, options, open_source(ten()), None)
        run = _Run(Store(Path(folder), about, scanner.schema), scanner, 5.0)
        before = peak()
        for first in range(0, rows, options.chunk):
            if (first // options.chunk) % 32 == 0:
                chunk = scanner.scan(first, [made(Entry(""), image) for image in images])
            run.take(renamed(chunk, first, min(options.chunk, rows - first)))
            if (first // options.chunk) % max(1, rows // options.chunk // 8) == 0:
                peaks[first] = peak()
        run.finish()
        peaks[rows] = peak()
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        began = time.perf_counter()
        index = convscope.open_index(folder)
        ids, _ = index.nearest(np.zeros(512, np.float32), 9, exact=False)
        opened = time.perf_counter() - began
    return {
        "rows": rows, "seconds": time.perf_counter() - start, "before GB": before, "peak GB by rows": peaks,
        "beyond the network GB": peaks[rows] - before, "index GB": size / 1e9, "opened and asked seconds": opened,
        "found": len(ids[0]),
    }  # fmt: skip


def renamed(chunk: chunks.Chunk, first: int, count: int) -> chunks.Chunk:
    """The first rows of a chunk as those of other pictures."""
    rows = chunk.rows.slice(0, count)
    codes = np.random.default_rng(first).standard_normal((count, 512), np.float32)
    columns = {
        "id": pa.array(np.arange(first, first + count)),
        "path": pa.array([f"{i:09d}.jpg" for i in range(first, first + count)]),
        "code_0": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), 512),
    }
    arrays = [columns.get(name, rows[name]) for name in rows.schema.names]
    return replace(chunk, rows=pa.table([array.cast(f.type) for array, f in zip(arrays, rows.schema, strict=True)],
                                        schema=rows.schema), readable=count)  # fmt: skip


def ten() -> Any:
    return torch.utils.data.TensorDataset(torch.rand(10, 3, 8, 8))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


# ---- nearest


def nearest(quick: bool) -> dict[str, Any]:
    """Milliseconds a query, the median and the worst of twenty."""
    count = 10_000 if quick else 100_000
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(100, 512)) * 2
    codes = (centres[chance.integers(0, 100, count)] + chance.normal(size=(count, 512))).astype(np.float32)
    squares = np.einsum("nc,nc->n", codes, codes)
    wanted = codes[chance.integers(0, count, 20)] + 0.1 * chance.normal(size=(20, 512)).astype(np.float32)
    taken, right = [], 0
    for code in wanted:
        start = time.perf_counter()
        places, _ = nearest_rows(codes, code[None], 10, squares)
        taken.append(1e3 * (time.perf_counter() - start))
        slow = np.argsort(np.linalg.norm(codes - code, axis=1), kind="stable")[:10]
        right += int((places[0] == slow).sum())
    return {"codes": count, "median ms": float(np.median(taken)), "worst ms": max(taken), "right of 200": right}


if __name__ == "__main__":
    main()
