"""How quick the explorer is: paint, interaction, prediction of a dropped picture, a map of 10^5, many readers, memory;
and how long a report takes.

    python benchmarks/explorer.py             # some minutes; Chromium for what is measured in a browser
    python benchmarks/explorer.py --quick     # a tenth of the requests, and a map of 10^4

The server runs in a process of its own on the built-in network, with an empty cache. Paint and interaction are taken
in headless Chromium: first contentful paint of the unit page, and from a key to the next unit's heading, on units that
have been looked at before. The map is that of an index of 10^5 small made-up pictures, scanned by a small network
first; the mouse moves it, and the time from frame to frame is that of the browser, without a graphics card.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch

import convscope
from convscope.reporting import photographs

RESULTS = Path(__file__).parent / "results" / "explorer.json"
PORT = 8799
ADDRESS = f"http://127.0.0.1:{PORT}"
MAP_PORT = 8798
SIDE, CLASSES = 16, 10  # pixels of a made-up picture, and kinds of them
READERS, JOBS, REQUESTS, POINTS = 50, 4, 1000, 100_000
MOVES = 60  # of the mouse over the map
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
SMALL = f"""
import torch
from torch import nn


def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, {CLASSES}))
"""


class Tones:
    """Pictures of noise about a colour for each class, as a dataset of torch is."""

    def __init__(self, count: int) -> None:
        self.classes = [f"tone {number}" for number in range(CLASSES)]
        self.targets = [number % CLASSES for number in range(count)]
        self.colours = torch.rand(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(place))
        level = torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(-1 - place)) * 0.1
        label = self.targets[place]
        return (self.colours[label] + level + 0.05 * noise).clamp(0, 1), label


def started(cache: str, *index: str, port: int = PORT) -> subprocess.Popen[bytes]:
    """The server, once it answers."""
    options = ["--no-browser", "--port", str(port), "--cache", cache]
    command = [sys.executable, "-m", "convscope.cli", "explore", *index, *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/api/network", timeout=30)
            return process
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RuntimeError("the server does not answer")


def memory(process: subprocess.Popen[bytes]) -> float:
    """Megabytes of the server's process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def dropped(client: httpx.Client) -> float:
    """Seconds from the last byte of a photograph to its prediction; the median of several, each new to the server."""
    path = dict(photographs())["cat"]
    spent = []
    for number in range(7):
        body = path.read_bytes() + b"\0" * number
        began = time.perf_counter()
        client.post("/api/pictures?title=cat", content=body).raise_for_status()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def in_a_browser() -> dict[str, float]:
    """What a person waits for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        found = _of_units(browser.new_page(base_url=ADDRESS))
        browser.close()
    return found


def of_a_map(points: int) -> dict[str, Any]:
    """A map of an index that is made for it."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        index = _scanned(points, Path(folder))
        scanned = time.perf_counter() - began
        process = started(f"{folder}/cache", str(index), port=MAP_PORT)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                found = _of_a_map(browser.new_page(base_url=f"http://127.0.0.1:{MAP_PORT}"))
                browser.close()
        finally:
            process.terminate()
            process.wait(20)
    return {"points": points, "scan_s": scanned, **found}


def _scanned(points: int, folder: Path) -> Path:
    """An index of so many made-up pictures."""
    (folder / "small.py").write_text(SMALL)
    pictures = Tones(points)
    loaded = {"network": f"{folder / 'small.py'}:made", "labels": pictures.classes, "input_size": SIDE}
    network = convscope.load_network(**loaded)
    return convscope.scan(network, pictures, folder / "tones.index", gradients=0, chunk=4096, loaded=loaded).path


def _of_units(page: Any) -> dict[str, float]:
    """Milliseconds to the first paint, and from a key to the next unit."""
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    paints = []
    for _ in range(5):
        page.goto("/units/relu2_2/5")
        page.get_by_role("heading", name="What excites it most").wait_for()
        paints.append(page.wait_for_function(paint).json_value())
    for key in ("ArrowRight", "ArrowLeft") * 2:  # both units are known then
        page.keyboard.press(key)
        page.wait_for_timeout(400)
    script = """(key) => new Promise((done) => {
        const [began, before] = [performance.now(), document.title];
        const moved = () => document.title !== before;
        const look = () => moved() ? done(performance.now() - began) : requestAnimationFrame(look);
        dispatchEvent(new KeyboardEvent('keydown', { key }));
        look();
    })"""
    moves = [page.evaluate(script, key) for key in ("ArrowRight", "ArrowLeft") * 4]
    return {"first_paint_ms": statistics.median(paints), "interaction_ms": statistics.median(moves)}


def _of_a_map(page: Any) -> dict[str, float]:
    """Milliseconds until the map is drawn, from frame to frame while it is dragged and zoomed, and to a thumbnail."""
    began = time.perf_counter()
    page.goto("/index")
    page.locator(".map[data-drawn]").wait_for(timeout=60_000)
    found = {"drawn_ms": 1000 * (time.perf_counter() - began)}
    page.reload()  # what the server has to compute once is computed
    began = time.perf_counter()
    page.locator(".map[data-drawn]").wait_for(timeout=60_000)
    found["drawn_again_ms"] = 1000 * (time.perf_counter() - began)
    box = page.locator(".map canvas.points").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate("""() => { window.frames_ = []; let last = performance.now();
        const tick = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(tick); };
        requestAnimationFrame(tick); }""")
    for name in ("pan", "zoom"):
        page.mouse.move(x, y)
        page.evaluate("window.frames_.length = 0")
        if name == "pan":
            page.mouse.down()
        for number in range(MOVES):
            page.mouse.move(x + 3 * number, y + 2 * number) if name == "pan" else page.mouse.wheel(0, -20)
        page.mouse.up()
        spent = sorted(page.evaluate("window.frames_.slice(2)"))
        found |= {
            f"{name}_frames": len(spent), f"{name}_frame_ms": statistics.median(spent),
            f"{name}_95_ms": spent[int(0.95 * len(spent))], f"{name}_slowest_ms": spent[-1],
        }  # fmt: skip
    return found | {"hover_ms": _hovered(page)}


def _hovered(page: Any) -> float:
    """Milliseconds from the pointer's move onto a point to the picture beside it; the median of several."""
    page.goto("/index")
    page.locator(".map[data-drawn]").wait_for()
    page.wait_for_timeout(500)
    script = """(share) => new Promise((done) => {
        const [place, tip] = [document.querySelector(".map"), document.querySelector(".tip")];
        const box = place.querySelector("canvas.points").getBoundingClientRect();
        const [image, before] = [tip.querySelector("img"), tip.querySelector("img").src];
        for (let step = 0; step < 400; step++) { // onwards until another point is met
            const began = performance.now();
            const where = { clientX: box.left + box.width * share + step, clientY: box.top + box.height / 2 };
            place.dispatchEvent(new PointerEvent("pointermove", { ...where, bubbles: true }));
            if (tip.hidden || image.src === before) continue;
            image.decode().then(() => done(performance.now() - began), () => done(null));
            return;
        }
        done(null);
    })"""
    spent = [page.evaluate(script, 0.3 + 0.03 * number) for number in range(15)]
    return statistics.median(each for each in spent if each is not None)


def crowd() -> dict[str, Any]:
    """Fifty readers while four runs are queued: errors, lost runs, and how long an answer took."""
    with httpx.Client(base_url=ADDRESS, timeout=120) as client:
        picture = client.get("/api/pictures").json()["pictures"][0]["id"]
        names = ["saliency", "gradcam", "integrated-gradients", "smoothgrad"][:JOBS]
        jobs = [client.post("/api/jobs", json={"technique": n, "pictures": [picture]}).json()["id"] for n in names]

        def read(number: int) -> tuple[int, float]:
            paths = ["/api/network", f"/api/pictures/{picture}", f"/api/pictures/{picture}.png", "/static/app.js"]
            began = time.perf_counter()
            with httpx.Client(base_url=ADDRESS, timeout=120) as own:
                bad = sum(own.get(paths[i % len(paths)]).status_code != 200 for i in range(8))
            return bad, (time.perf_counter() - began) / 8

        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(read, range(READERS)))
        states = []
        for job in jobs:
            while (told := client.get(f"/api/jobs/{job}").json())["state"] in ("queued", "running"):
                time.sleep(0.2)
            states.append(told["state"])
    return {
        "readers": READERS, "errors": sum(bad for bad, _ in found), "jobs": JOBS, "done": states.count("done"),
        "answer_ms": 1000 * statistics.median(spent for _, spent in found),
    }  # fmt: skip


def flat(process: subprocess.Popen[bytes], requests: int) -> dict[str, float]:
    """The server's memory before and after a thousand requests."""
    with httpx.Client(base_url=ADDRESS, timeout=60) as client:
        picture = client.get("/api/pictures").json()["pictures"][0]["id"]

        def ask(count: int) -> None:
            for number in range(count):
                layer = ("relu2_2", "relu3_2", "relu4_3")[number % 3]
                client.get(f"/api/pictures/{picture}/maps/{layer}/{number % 64}.png").raise_for_status()

        ask(min(200, requests))
        before = memory(process)
        ask(requests)
    return {"requests": requests, "before_mb": before, "after_mb": memory(process)}


def report() -> dict[str, float]:
    """Seconds of ``convscope report`` for one photograph, from the first import on, and the page's megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        began = time.perf_counter()
        command = [sys.executable, "-m", "convscope.cli", "report", str(dict(photographs())["cat"]), "-o", str(page)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return {"seconds": time.perf_counter() - began, "megabytes": page.stat().st_size / 1e6}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    given = parser.parse_args()
    share = 10 if given.quick else 1
    with tempfile.TemporaryDirectory() as cache:
        process = started(cache)
        try:
            with httpx.Client(base_url=ADDRESS, timeout=60) as client:
                found: dict[str, Any] = {"drop_to_prediction_ms": 1000 * dropped(client)}
            if shutil.which("chromium"):
                found |= in_a_browser()
            found |= {"crowd": crowd(), "memory": flat(process, REQUESTS // share)}
        finally:
            process.terminate()
            process.wait(20)
    if shutil.which("chromium"):
        found["map"] = of_a_map(POINTS // share)
    found["report"] = report()
    found["machine"] = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    print(json.dumps(found, indent=2))
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
