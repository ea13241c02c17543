"""Style transfer: a step against the bare passes, and the time to a loss against a plain fp32 Gatys, in one run.

    python benchmarks/style.py                                  # VGG-19 (random weights) and the built-in network
    python benchmarks/style.py --weights squeezenet1_0=FILE     # SqueezeNet with real weights, too
    python benchmarks/style.py --quick
    python benchmarks/style.py --memory 2048                    # the peak of a run in tiles, in a process of its own

**Step**: seconds of a step of ``style`` and of ``texture`` over those of the bare floor: one forward pass to the
deepest layer used and one ``autograd.grad`` for the picture from random cotangents at these layers, frozen weights, the
same precision; and over the same passes with colours next to each other in memory, as ``optimize`` has them. The last
ratio is over the passes with the peer's losses below: Gram matrices are work of their own, half as much as the passes
of a light network. ``style`` is without the term for colours that is no paper's, ``style, with colours`` with it, as it
is by default. Rounds are interleaved; the median counts.

**Time to a loss**: the peer is the published algorithm as one writes it down: float32, ``torch.optim.LBFGS`` on the
pixels, started with the photograph, same network, layers, targets and weights. Its loss after ``--evaluations`` passes
is the goal. The peer's picture is measured every ten passes and convscope's every five steps, clipped, in float32, by
the peer's own loss, off the clock; the time is that of the first picture at the goal. convscope runs with its defaults
but for the colours, which the peer's loss lacks, in float32, and in bfloat16 where the machine multiplies such numbers.

On a CPU time is that of the process on one thread (others at work on the machine do not count), on a GPU wall-clock.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _plain import plainly
from torch import Tensor

import convscope
from convscope.hooks import observe
from convscope.network import Network, Precision, fast_in_bfloat16
from convscope.optimize import optimize
from convscope.regularizers import Colours, Regularizer
from convscope.techniques.synthesize._gram import Aim, Region, grams_of
from convscope.techniques.synthesize._layers import stages
from convscope.techniques.synthesize._lbfgs import LBFGS
from convscope.techniques.synthesize._style import Plan, Pyramid, levels, scaled
from convscope.techniques.synthesize._tiles import Cover, maps_of
from convscope.techniques.synthesize.style import COARSER

BETA = 20.0
COARSE = 60  # steps at each size before the last, the default of style
COLOURS = 5.0  # in shares of BETA, the default of style


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def pictures(side: int) -> tuple[Tensor, Tensor]:
    """A photograph and something like a painting, both free and installed with scikit-image."""
    from skimage import data

    found = [torch.from_numpy(a).permute(2, 0, 1)[None].float() / 255 for a in (data.chelsea(), data.coffee())]
    return tuple(scaled(p, (side * 3 // 4, side)) for p in found)  # type: ignore[return-value]


def aim_of(network: Network, content: Tensor, painting: Tensor, size: tuple[int, int]) -> Aim:
    """The default of ``style`` at a size."""
    found = stages(network)
    cover, kept = Cover(found), found[-2]
    seen = scaled(painting, (round(painting.shape[2] * size[0] / content.shape[2]), size[1]))
    grams = grams_of(network, seen, found, cover, centred=False)
    beta = dict.fromkeys(found, BETA / len(found))
    return Aim(network, maps_of(network, scaled(content, size), [kept], cover), [Region(grams)], {kept: 1.0}, beta)


# ---- a step


def floor(network: Network, images: Tensor, layers: list[str], cotangents: dict[str, Tensor]) -> None:
    """The bare passes: hooks that keep the layers, then the gradient of the picture alone."""
    images = images.clone().requires_grad_()
    kept: dict[str, Tensor] = {}
    modules = dict(network.module.named_modules())

    class Done(Exception):
        pass

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
            kept[name] = output
            if len(kept) == len(layers):
                raise Done

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        with plainly():
            network.forward(images)
    except Done:
        pass
    finally:
        for handle in handles:
            handle.remove()
    torch.autograd.grad([kept[name] for name in layers], images, [cotangents[name] for name in layers])


def step_ratios(network: Network, side: int, rounds: int) -> dict[str, float]:
    """Seconds of the floor, and what a step takes of it."""
    content, painting = (p.to(network.device) for p in pictures(side))
    aim = aim_of(network, content, painting, (content.shape[2], content.shape[3]))
    layers = stages(network)
    with torch.no_grad():
        seen = observe(network, content, layers)
        cotangents = {
            name: torch.randn_like(value, memory_format=torch.contiguous_format) for name, value in seen.items()
        }
        last = content.contiguous(memory_format=torch.channels_last)
        lasts = {name: value.contiguous(memory_format=torch.channels_last) for name, value in cotangents.items()}
    textures = replace(aim, content={}, alpha={})
    found = []

    colours = Colours(BETA * COLOURS, scaled(painting, (content.shape[2], content.shape[3])), coarser=COARSER)

    def steps_of(wanted: Aim, *regularizers: Regularizer) -> Iterator[Any]:
        plan = Plan(network, [], lambda size: wanted, 0, "lbfgs", 1.0, Cover(layers), lambda size: [])
        return optimize(
            network, wanted.objective(), plan.moved(content), steps=10**6, optimizer=LBFGS, rate=1.0,
            regularizers=regularizers,
        )  # fmt: skip

    runs = {"style": steps_of(aim), "style, with colours": steps_of(aim, colours), "texture": steps_of(textures)}
    loss = gatys(network, content, painting)

    def with_losses() -> None:
        at = content.clone().requires_grad_()
        torch.autograd.grad(loss(at), at)

    for _ in range(rounds + 12):  # the memory of L-BFGS fills up first
        base = [timed(lambda: floor(network, content, layers, cotangents)) for _ in range(2)]
        same = timed(lambda: floor(network, last, layers, lasts))
        steps = {name: timed(lambda run=run: next(run)) for name, run in runs.items()}
        found.append({"floor": statistics.mean(base), "same order": same, "losses": timed(with_losses), **steps})
    kept = found[12:]
    base = statistics.median(row["floor"] for row in kept)
    ratios = {n: statistics.median(row[n] / row["floor"] for row in kept) for n in runs}
    ratios |= {f"{n}, channels last": statistics.median(row[n] / row["same order"] for row in kept) for n in runs}
    ratios["style, over passes and losses"] = statistics.median(row["style"] / row["losses"] for row in kept)
    return {"floor seconds": round(base, 4), **{name: round(value, 3) for name, value in ratios.items()}}


def timed(call: Callable[[], object]) -> float:
    start = clock()
    call()
    return clock() - start


# ---- time to a loss


def gatys(network: Network, content: Tensor, painting: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss, in float32, written down without convscope's objectives."""
    layers = stages(network)
    kept = layers[-2]

    def maps(image: Tensor) -> dict[str, Tensor]:
        with plainly():
            return {name: value.float() for name, value in observe(network, image, layers).items()}

    def gram(value: Tensor) -> Tensor:
        rows = value[0].flatten(1)
        return rows @ rows.T / rows.shape[1]

    with torch.no_grad():
        wanted = maps(content)[kept]
        grams = {name: gram(value) for name, value in maps(painting).items()}

    def loss(image: Tensor) -> Tensor:
        found = maps(image)
        content_loss = (found[kept] - wanted).square().sum() / wanted.square().sum()
        style_losses = [(gram(found[n]) - g).square().sum() / g.square().sum() for n, g in grams.items()]
        return content_loss + BETA / len(grams) * torch.stack(style_losses).sum()

    return loss


def peer_run(loss: Callable[[Tensor], Tensor], content: Tensor, evaluations: int) -> list[tuple[float, float]]:
    """(seconds, best loss so far of the clipped picture) of torch's L-BFGS on the pixels."""
    image = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=evaluations, max_eval=evaluations, history_size=20,
                                  tolerance_grad=0.0, tolerance_change=0.0)  # fmt: skip
    trace: list[tuple[float, float]] = []
    spent, start = 0.0, clock()

    def closure() -> Tensor:
        nonlocal spent, start
        spent += clock() - start
        if len(trace) % 10 == 0:
            with torch.no_grad():
                at = float(loss(image.clamp(0, 1)))
            trace.append((spent, at))
        else:
            trace.append((spent, float("inf")))
        start = clock()
        optimizer.zero_grad()
        found = loss(image)
        found.backward()
        return found

    optimizer.step(closure)
    spent += clock() - start
    with torch.no_grad():
        trace.append((spent, float(loss(image.clamp(0, 1)))))
    return [(seconds, value) for seconds, value in trace if value < float("inf")]


def own_run(
    network: Network, loss: Callable[[Tensor], Tensor], content: Tensor, painting: Tensor, goal: float, steps: int
) -> tuple[float, float, int]:
    """Seconds until the clipped picture is at the goal, the loss there, and the steps; targets included."""
    size = (content.shape[2], content.shape[3])
    spent, start = 0.0, clock()
    sizes = levels(size, None)
    plan = Plan(network, sizes[:-1], lambda at: aim_of(network, content, painting, at), COARSE, "lbfgs", 1.0,
                Cover(stages(network)), lambda at: [])  # fmt: skip
    coarse = Pyramid(plan, content)
    before = sum(1 for _ in coarse.steps())
    value = float("inf")
    for number, step in enumerate(
        Pyramid(replace(plan, sizes=sizes[-1:], steps=steps), coarse.images).steps(), before + 1
    ):
        if (number - before) % 5 == 0:
            spent += clock() - start
            with torch.no_grad():
                value = float(loss(step.images.clamp(0, 1)))
            start = clock()
            if value <= goal:
                break
    spent += clock() - start
    return spent, value, number


def time_to_loss(network: Network, side: int, evaluations: int) -> dict[str, Any]:
    """The peer's loss after so many evaluations, and how long each takes to get there."""
    exact = replace(network, precision="float32")
    content, painting = (p.to(network.device) for p in pictures(side))
    loss = gatys(exact, content, painting)
    peer = peer_run(loss, content, evaluations)
    goal = min(value for _, value in peer)
    needed = next(seconds for seconds, value in peer if value <= goal)
    found: dict[str, Any] = {"goal": goal, "peer seconds": round(needed, 2), "peer evaluations": evaluations}
    for name in precisions(network):
        seconds, value, steps = own_run(
            replace(network, precision=name), loss, content, painting, goal, 4 * evaluations
        )
        found[name] = {"seconds": round(seconds, 2), "loss": value, "steps": steps, "reached": value <= goal,
                       "times shorter": round(needed / seconds, 2)}  # fmt: skip
    return found


def precisions(network: Network) -> list[Precision]:
    """Those that are worth measuring on this machine."""
    return ["bfloat16", "float32"] if fast_in_bfloat16(network.device) else ["float32"]


CHILD = """
import resource, sys, time
import torch
torch.set_num_threads(int(sys.argv[2]))
sys.path.insert(0, sys.argv[3])
import convscope
from style import pictures
content, painting = pictures(int(sys.argv[1]))
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
steps = int(sys.argv[4])
network, size = convscope.load_network("builtin"), int(sys.argv[1])
made = convscope.style(network, content, style=painting[0], size=size, steps=steps)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
height, width = made.values.shape[2:]
print(height, width, loaded, peak, time.perf_counter() - start, len(made.trace), *made.notes)
"""


def memory(side: int, steps: int) -> dict[str, Any]:
    """Peak of the resident memory of a process that paints one picture; enough steps for L-BFGS to fill its own."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(side),
        str(torch.get_num_threads()),
        str(Path(__file__).parent),
        str(steps),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(maxsplit=6)
    height, width, loaded, peak, seconds, done, *notes = said
    return {"height": int(height), "width": int(width), "steps at each size": steps, "steps": int(done),
            "GB before": round(int(loaded) / 2**20, 2), "GB at the peak": round(int(peak) / 2**20, 2),
            "seconds": round(float(seconds), 1), "notes": "".join(notes).strip()}  # fmt: skip


def networks(weights: dict[str, str], quick: bool) -> dict[str, Network]:
    found = {"builtin": convscope.load_network("builtin")}
    for name, file in weights.items():
        found[f"{name}, {Path(file).name}"] = convscope.load_network(f"torchvision:{name}", weights=file)
    if not quick:
        found["vgg19, random weights"] = convscope.load_network("torchvision:vgg19", weights="random")
    for network in found.values():
        network.module.requires_grad_(False)
    return found


def measured(network: Network, side: int, rounds: int, evaluations: int) -> dict[str, Any]:
    """All of one network at one size."""
    found: dict[str, Any] = {
        f"step, {precision}": step_ratios(replace(network, precision=precision), side, rounds)
        for precision in precisions(network)
    }
    return {**found, "time to loss": time_to_loss(network, side, evaluations)} if evaluations else found


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pictures and few rounds, to see that it runs")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of the networks to measure")
    parser.add_argument(
        "--evaluations", type=int, default=100, help="passes of the peer that set the goal; 0: only steps"
    )
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument(
        "--memory", type=int, metavar="SIDE", help="only measure the memory of one picture of this size"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "style.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    found: dict[str, Any]
    if options.memory:
        found = memory(options.memory, 12)
        print(json.dumps(found, indent=2))
        target = options.output.with_name("style-memory.json")
        target.write_text(json.dumps({"torch": torch.__version__, "found": found}, indent=2) + "\n")
        return
    sizes, evaluations, rounds = (options.sizes, options.evaluations, 5) if not options.quick else ([64], 10, 2)
    found = {}
    settings = {"evaluations": evaluations, "rounds": rounds, "threads": torch.get_num_threads(),
                "machine": platform.machine(), "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}  # fmt: skip
    loaded = networks(dict(w.split("=", 1) for w in options.weights), options.quick)
    for side in sizes:
        for name, network in loaded.items():
            if not any(part in name for part in options.only):
                continue
            found.setdefault(name, {})[str(side)] = measured(network, side, rounds, evaluations)
            print(name, side, json.dumps(found[name][str(side)]), flush=True)
            if not options.quick:
                options.output.parent.mkdir(exist_ok=True)
                options.output.write_text(json.dumps({"settings": settings, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
