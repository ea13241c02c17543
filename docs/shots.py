"""Pictures of the explorer for its page, taken in Chromium: a unit of the built-in network, a map of made-up shapes."""

from __future__ import annotations

import io
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from convscope.example import example
from convscope.explorer.app import create_app
from convscope.explorer.settings import Settings

UNIT, MAP = "explorer-unit", "explorer-map"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def served(**settings: Any) -> Iterator[str]:
    """An explorer on a free port."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        port = place.getsockname()[1]
        app = create_app(Settings(port=port, **settings))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([place],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(15)


def taken() -> Iterator[tuple[str, Image.Image]]:
    """The name of each picture, and the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        cache = Path(folder) / "cache"
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with served(cache=cache) as address:
            yield UNIT, _unit(browser.new_page(base_url=address, viewport={"width": 1280, "height": 1000}))
        index = example(folder)
        with served(loaded={"network": index.network}, index=index.path, cache=cache) as address:
            yield MAP, _map(browser.new_page(base_url=address, viewport={"width": 1280, "height": 1180}))
        browser.close()


def _unit(page: Any) -> Image.Image:
    page.goto("/units/relu3_2/9")
    page.locator(".run.small .result img").first.wait_for(timeout=300_000)
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    return _shot(page)


def _map(page: Any) -> Image.Image:
    """With a lasso around one kind of them."""
    page.goto("/index")
    page.locator(".map[data-drawn]").wait_for()
    page.locator(".bk-tool-icon-lasso-select").first.click()
    box = page.locator(".map canvas.points").bounding_box()
    corners = [(0.02, 0.3), (0.05, 0.15), (0.2, 0.08), (0.4, 0.12), (0.52, 0.2), (0.53, 0.35), (0.46, 0.5), (0.2, 0.46)]
    for place, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if not place:
            page.mouse.down()
    page.mouse.up()
    page.get_by_text("Save the selection").wait_for()
    page.wait_for_timeout(1500)
    return _shot(page)


def _shot(page: Any) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
