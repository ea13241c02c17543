"""Fast stylisation against optimisation, and frames per second of film, in one run.

    python benchmarks/stylize.py                 # 512 px, the shipped style
    python benchmarks/stylize.py --quick

``style`` is ``convscope.style`` as it comes, on the same network, in the same precision, on the same machine: 60 steps
at 256 pixels and 60 at 512; seconds are those of the processor on a CPU. Frames per second are of the clock.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch import Tensor

import convscope
from convscope import films
from convscope.images import resize, to_uint8
from convscope.techniques.synthesize._art import swirls


def photograph(size: int) -> Tensor:
    """(1, 3, size, size) of scikit-image's coffee."""
    image = torch.from_numpy(np.ascontiguousarray(skimage.data.coffee())).permute(2, 0, 1)[None, :, :, 100:500] / 255
    return resize(image, (size, size))


def seconds(call: Callable[[], object]) -> float:
    """Of one call: of the processor on a CPU, so that others at work do not count; of the clock on a GPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def compared(name: str, size: int, repeats: int) -> dict[str, float]:
    """Seconds of both, and how many times faster the pass is."""
    network, image, painting = convscope.load_network("builtin"), photograph(size), swirls(size)
    convscope.stylize(image, style=name)
    convscope.style(network, image, style=painting, size=size, steps=2)
    found = []
    for _ in range(repeats):
        slow = seconds(lambda: convscope.style(network, image, style=painting, size=size))
        fast = statistics.median(seconds(lambda: convscope.stylize(image, style=name)) for _ in range(5))
        found.append((slow, fast))
    slow, fast = (statistics.median(each) for each in zip(*found, strict=True))
    return {"style, s": slow, "stylize, s": fast, "times faster": statistics.median(s / f for s, f in found)}


def film(name: str, size: int, frames: int) -> dict[str, float]:
    """Frames per second of a film, read, painted at its own size and written."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        with av.open(str(source), "w") as written:
            stream = written.add_stream("libx264", rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            for number in range(frames):
                picture = to_uint8(photograph(size).roll(8 * number, 3))[0]
                written.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            written.mux(stream.encode())
        made = films.changed(source, target, lambda frame: convscope.stylize(frame, style=name, scale=1).values[0])
    return {"frames": made.frames, "frames a second": made.rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 px and few repeats")
    parser.add_argument("--style", default="starry-night")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "stylize.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size, repeats = (256, 1) if options.quick else (512, 1)
    found = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "size": size,
        **compared(options.style, size, repeats),
        **({"film": {str(side): film(options.style, side, 4 if options.quick else 12) for side in (256, size)}}
           if find_spec("av") else {}),
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    if not options.quick:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
