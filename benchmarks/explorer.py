"""How quick the explorer is: paint, interaction, prediction of a dropped picture, many readers, memory.

    python benchmarks/explorer.py             # about two minutes; needs Chromium for the first two numbers

The server runs in a process of its own on the built-in network, with an empty cache. Paint and interaction are taken
in headless Chromium: first contentful paint of the unit page, and from a key to the next unit's heading, on units that
have been looked at before.
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

from convscope.reporting import photographs

RESULTS = Path(__file__).parent / "results" / "explorer.json"
PORT = 8799
ADDRESS = f"http://127.0.0.1:{PORT}"
READERS, JOBS, REQUESTS = 50, 4, 1000
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]


def started(cache: str) -> subprocess.Popen[bytes]:
    """The server, once it answers."""
    command = [sys.executable, "-m", "convscope.cli", "explore", "--no-browser", "--port", str(PORT), "--cache", cache]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            httpx.get(f"{ADDRESS}/api/network", timeout=30)
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
    """Milliseconds to the first paint, and from a key to the next unit."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(base_url=ADDRESS)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        paints = []
        for _ in range(5):
            page.goto("/units/relu2_2/5")
            page.get_by_role("heading", name="What excites it most").wait_for()
            paints.append(page.evaluate(paint))
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
        browser.close()
    return {"first_paint_ms": statistics.median(paints), "interaction_ms": statistics.median(moves)}


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


def flat(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """The server's memory before and after a thousand requests."""
    with httpx.Client(base_url=ADDRESS, timeout=60) as client:
        picture = client.get("/api/pictures").json()["pictures"][0]["id"]

        def ask(count: int) -> None:
            for number in range(count):
                layer = ("relu2_2", "relu3_2", "relu4_3")[number % 3]
                client.get(f"/api/pictures/{picture}/maps/{layer}/{number % 64}.png").raise_for_status()

        ask(200)
        before = memory(process)
        ask(REQUESTS)
    return {"requests": REQUESTS, "before_mb": before, "after_mb": memory(process)}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as cache:
        process = started(cache)
        try:
            with httpx.Client(base_url=ADDRESS, timeout=60) as client:
                found: dict[str, Any] = {"drop_to_prediction_ms": 1000 * dropped(client)}
            if shutil.which("chromium"):
                found |= in_a_browser()
            found |= {"crowd": crowd(), "memory": flat(process)}
        finally:
            process.terminate()
            process.wait(20)
    found["machine"] = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    print(json.dumps(found, indent=2))
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
