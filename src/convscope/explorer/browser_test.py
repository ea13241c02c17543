"""The page in a browser: what a person does, with a quiet console, and without faults for those who do not see it.

Needs Chromium: one that is installed, or the one that CONVSCOPE_CHROMIUM names; skipped without.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convscope.explorer.conftest import png, served
from convscope.explorer.settings import Settings
from convscope.index import Index

CHROMIUM = os.environ.get("CONVSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
EXPECT = 20_000  # milliseconds, on a machine that does other things as well


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    with served(replace(settings, queue=32)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page whose console must stay silent."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address)
    context.set_default_timeout(EXPECT)
    made = context.new_page()
    said: list[str] = []
    made.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: said.append(str(error)))
    yield made
    context.close()
    assert said == []


def test_from_all_layers_to_a_unit_and_back(page: Any) -> None:
    page.goto("/")
    page.get_by_role("heading", name=re.compile("nets.py:small")).wait_for()
    page.locator("ol.layers a").nth(1).click()
    page.get_by_role("heading", name="1", exact=True).wait_for()
    assert "/layers/1" in page.url
    page.locator(".cells a").nth(2).click()
    page.get_by_role("heading", name="1 · 2").wait_for()
    page.get_by_role("heading", name="What excites it most").wait_for()
    page.go_back()
    page.get_by_role("heading", name="1", exact=True).wait_for()
    page.go_back()
    page.locator("ol.layers").wait_for()


def test_an_address_alone_brings_it_all_back(page: Any) -> None:
    page.goto("/units/3/4")
    page.get_by_role("heading", name="3 · 4").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="3 · 5").wait_for()
    assert page.url.split("?")[0].endswith("/units/3/5")
    page.reload()
    page.get_by_role("heading", name="3 · 5").wait_for()


def test_hovering_shows_where_a_unit_fires_and_what_a_pixel_is_seen_by(page: Any) -> None:
    page.goto("/layers/1")
    page.locator(".cells a").nth(3).hover()
    page.locator("img.over:visible").wait_for()
    assert page.locator("img.over").get_attribute("src").endswith("/maps/1/3.png")
    page.get_by_text("A unit sees 5 × 5 pixels").or_(page.get_by_text("Channel 3")).first.wait_for()
    page.mouse.move(0, 0)
    page.locator(".stage").hover(position={"x": 40, "y": 40})
    page.locator(".frame:visible").wait_for()


def test_a_dropped_picture_is_opened_and_its_prediction_said(page: Any, tmp_path: Path) -> None:
    page.goto("/")
    page.locator("#tray img").first.wait_for()
    path = tmp_path / "spots.png"
    path.write_bytes(png(5))
    page.locator("#open").set_input_files(path)
    page.locator("#tray a[aria-current]").wait_for()
    page.wait_for_url("**/pictures/*")
    page.locator(".ranks li").first.wait_for()
    page.get_by_text(re.compile("^spots: ")).wait_for()


HANDED_OVER = """({ event, name, bytes }) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    const how = { bubbles: true, cancelable: true };
    const made = event === "paste" ? new ClipboardEvent(event, { ...how, clipboardData: data })
        : new DragEvent(event, { ...how, dataTransfer: data });
    document.body.dispatchEvent(made);
}"""


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_that_is_pasted_or_dropped_is_opened(page: Any, event: str) -> None:
    page.goto("/")
    page.locator("#tray img").first.wait_for()
    page.evaluate(HANDED_OVER, {"event": event, "name": f"{event}.png", "bytes": list(png(20 + len(event)))})
    page.wait_for_url("**/pictures/*")
    page.get_by_text(re.compile(f"^{event}: ")).wait_for()


def test_a_photograph_is_taken_by_the_camera_and_the_camera_is_let_go(page: Any) -> None:
    page.goto("/")
    page.locator("#tray img").first.wait_for()
    page.get_by_role("button", name="Take a photograph").click()
    page.get_by_role("button", name="Take it").click()
    page.wait_for_url("**/pictures/*")
    page.get_by_text(re.compile("^photograph: ")).wait_for()
    assert page.locator("dialog.camera").count() == 0


def test_what_is_no_picture_is_said_in_a_sentence(browser: Any, address: str, tmp_path: Path) -> None:
    context = browser.new_context(base_url=address)
    context.set_default_timeout(EXPECT)
    made = context.new_page()  # whose console may tell of the refusal
    made.goto("/")
    made.locator("#tray img").first.wait_for()
    (tmp_path / "notes.png").write_bytes(b"not a picture")
    made.locator("#open").set_input_files(tmp_path / "notes.png")
    made.locator("#said.shown").wait_for()
    assert "JPEG, PNG" in made.locator("#said").inner_text()
    context.close()


def test_painting_and_epsilon_change_the_answer(page: Any) -> None:
    page.goto("/pictures")
    canvas = page.locator("canvas")
    canvas.wait_for()
    page.locator(".ranks li").first.wait_for()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    page.get_by_text(re.compile("Answered in")).wait_for()
    assert _moved(page)
    assert "cover=" in page.url
    page.reload()  # the address holds the cover, too
    page.get_by_text(re.compile("Answered in")).wait_for()
    assert _moved(page)
    page.get_by_text("The lines that repeat it").first.click()
    assert "for top, left in [[" in page.locator(".tools code").last.inner_text()
    page.get_by_role("button", name="Uncover").click()
    page.get_by_text("the right one stays as it was").wait_for()
    slider = page.get_by_label("Move against its class")
    slider.focus()
    assert not _moved(page)
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.get_by_text(re.compile("Answered in")).wait_for()
    assert _moved(page)


def _moved(page: Any) -> bool:
    """Whether any probability differs from what it was, by more than the rounding of another pass."""
    widths = (
        "[...document.querySelectorAll('.track')].map((t) => [...t.children].map((e) => parseFloat(e.style.width)))"
    )
    return any(abs(before - after) > 1e-4 for before, after in page.evaluate(widths))


def test_a_form_runs_its_technique_and_shows_how_to_repeat_it(page: Any) -> None:
    page.goto("/techniques/saliency")
    page.get_by_label("target").fill("cat")
    page.get_by_label("target").blur()
    assert "target=cat" in page.url
    page.get_by_role("button", name="Run").click()
    page.locator(".result figure").first.wait_for()
    assert "--target cat" in page.locator(".lines code").first.inner_text()
    page.reload()
    assert page.get_by_label("target").input_value() == "cat"


def test_an_optimisation_is_watched_and_stopped(page: Any) -> None:
    page.goto("/techniques/visualize?target=ant&steps=20000&size=32")
    page.get_by_role("button", name="Run").click()
    page.locator(".frames:visible").wait_for()
    page.get_by_role("button", name="Halt").click()
    page.get_by_text(re.compile("Halted after")).wait_for()
    page.get_by_role("button", name="Go on", exact=True).click()
    page.get_by_role("button", name="Halt").click()
    page.get_by_text(re.compile("Halted after")).wait_for()
    before = int(re.findall(r"\d+", page.get_by_text(re.compile("Halted after")).inner_text())[0])
    page.get_by_label("tv", exact=True).fill("0.01")
    page.get_by_role("button", name="Go on with the options as they are now").click()
    page.get_by_role("button", name="Halt").click()
    page.wait_for_function("(n) => Number(document.body.innerText.match(/Halted after (\\d+)/)?.[1]) > n", arg=before)
    page.get_by_role("button", name="Go on", exact=True).click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name=re.compile("Go on from here")).wait_for()


def test_keys_and_the_box_to_go_anywhere(page: Any) -> None:
    page.goto("/")
    page.locator("ol.layers").wait_for()
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    page.keyboard.type("3:7")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="3 · 7").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("dog fish")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="dog fish").wait_for()


def test_a_guess_is_made_by_key_and_scored_at_the_end(page: Any) -> None:
    page.goto("/predict")
    page.locator("#limit").fill("2")
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("1 of 2").wait_for()
    page.keyboard.press("1")
    page.get_by_text("2 of 2").wait_for()
    page.locator(".answers button").nth(1).click()
    page.locator(".scores li").first.wait_for()
    assert page.get_by_text("Save the answers as CSV").get_attribute("href").endswith("/answers.csv")


@pytest.fixture
def map_page(
    browser: Any, colour_index: Index, colour_spec: dict[str, object], tmp_path: Path
) -> Iterator[Any]:  # fmt: skip
    """The map of the small index, whose console must stay silent."""
    with served(Settings(loaded=colour_spec, index=colour_index.path, cache=tmp_path)) as where:
        context = browser.new_context(viewport={"width": 1280, "height": 1300}, base_url=where)
        context.set_default_timeout(EXPECT)
        made, said = context.new_page(), []
        made.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        made.on("pageerror", lambda error: said.append(str(error)))
        made.goto("/index")
        _drawn(made)
        yield made
        context.close()
    assert said == []


def test_the_map_its_table_and_its_grid_choose_the_same_pictures(map_page: Any, colour_index: Index) -> None:
    made = map_page
    _lasso(made)
    made.get_by_role("heading", name=f"{len(colour_index)} pictures").wait_for()
    row = made.locator("aside tbody tr").first
    name, count = row.locator("td").all_inner_texts()
    row.get_by_role("button").click()
    made.get_by_role("heading", name=f"{count} pictures", exact=True).wait_for()
    lines = _saved(made)
    assert lines[0] == "id,path,label,predicted,probability"
    assert [line.split(",")[3] for line in lines[1:]] == [name] * int(count)
    made.locator(".grid-of a").first.click()
    made.get_by_role("heading", name="Nearest to it").wait_for()
    assert "at=" in made.url
    assert _serious(made) == []
    made.reload()
    made.get_by_role("heading", name="Nearest to it").wait_for()
    made.get_by_role("button", name="Look into it").click()
    made.wait_for_url("**/pictures/*")
    made.locator(".ranks li").first.wait_for()


def test_the_address_of_a_map_holds_its_lassos_its_class_and_its_view(map_page: Any, browser: Any) -> None:
    made = map_page
    _lasso(made, right=0.5)
    made.get_by_text("Save the selection as CSV").wait_for()
    half = _saved(made)
    assert 1 < len(half) - 1 < 24
    _lasso(made, left=0.5, shift=True)
    made.get_by_role("heading", name="24 pictures").wait_for()
    made.locator("aside tbody tr button").first.click()
    made.get_by_text("Those taken for").wait_for()
    made.locator("[role=application]").focus()
    made.keyboard.press("+")
    made.wait_for_url("**view=*")
    assert "lasso=" in made.url
    assert "*" in made.url
    assert "only=" in made.url
    chosen, address = _saved(made), made.url

    other = made.context.new_page()  # as a colleague opens it
    other.goto(address)
    _drawn(other)
    other.get_by_text("Those taken for").wait_for()
    assert _saved(other) == chosen
    assert other.url == address
    other.close()

    made.go_back()
    made.get_by_role("heading", name="24 pictures").wait_for()
    made.go_back()
    made.get_by_role("heading", name=f"{len(half) - 1} pictures", exact=True).wait_for()
    assert _saved(made) == half
    made.locator("[role=application]").focus()
    made.keyboard.press("Escape")
    made.get_by_text("Point at a picture").wait_for()
    made.go_back()
    made.reload()
    made.get_by_role("heading", name=f"{len(half) - 1} pictures", exact=True).wait_for()
    assert _saved(made) == half


def test_the_keys_choose_a_picture_on_the_map_and_the_pointer_shows_one(map_page: Any) -> None:
    made = map_page
    made.locator("[role=application]").focus()
    for _ in range(12):  # towards a picture, until one is near the middle
        made.keyboard.press("ArrowRight")
        made.wait_for_timeout(150)
        if made.locator(".tip:visible").count():
            break
    shown = made.locator(".tip img").get_attribute("src")
    made.keyboard.press("Enter")
    made.get_by_role("heading", name="Nearest to it").wait_for()
    assert made.locator("img.chosen").get_attribute("src") == shown


PLANE = """async ([x, y, ring]) => {
    const { Plane, packed, simplified } = await import("/static/plane.js");
    const canvas = document.createElement("canvas");
    const plane = new Plane(canvas, Float32Array.from(x), Float32Array.from(y));
    plane.colours.fill(packed("#ff8000"));
    plane.draw({ left: 0, top: 1, unit: 1 / 200 }, 200, 200, 9, "#000000");
    const drawn = canvas.getContext("2d").getImageData(0, 0, 200, 200).data;
    const places = x.map((_, i) => [Math.round(x[i] * 200), Math.round((1 - y[i]) * 200)]);
    const coarse = () => {
        plane.draw({ left: 0, top: 1, unit: 1 / 200 }, 200, 200, 9, "#000000", { ratio: 1, step: 2 });
        return places.map(([c, r]) => plane.pick(c + 3, r));
    };
    return {
        colours: places.map(([c, r]) => [...drawn.slice(4 * (200 * r + c), 4 * (200 * r + c) + 4)]),
        picked: places.map(([c, r]) => plane.pick(c + 3, r)), none: plane.pick(199, 199, 3), some: coarse(),
        within: [...plane.within(ring, new Uint8Array(x.length))],
        line: simplified([[0, 0], [1, 0.001], [2, 0], [2, 1], [2, 2]], 0.01),
    };
}"""


def test_points_are_where_they_belong_and_found_again_and_a_ring_holds_what_it_surrounds(page: Any) -> None:
    page.goto("/")
    x, y = [0.1, 0.5, 0.9, 0.25], [0.2, 0.5, 0.8, 0.75]
    hooked = [[0, 0], [0.6, 0], [0.6, 0.6], [0.4, 0.6], [0.4, 0.3], [0, 0.3]]  # holds the first two, around a corner
    found = page.evaluate(PLANE, [x, y, hooked])
    for colour in found["colours"]:
        assert colour == pytest.approx([0.78 * 255, 0.78 * 128, 0, 255], abs=2)
    assert found["picked"] == [0, 1, 2, 3]
    assert found["none"] == -1
    assert found["some"] == [0, -1, 2, -1]  # while they move
    assert found["within"] == [1, 1, 0, 0]
    assert found["line"] == [[0, 0], [2, 0], [2, 2]]


def _drawn(page: Any) -> None:
    page.locator(".map[data-drawn]").wait_for()
    page.wait_for_function("Bokeh.documents.at(-1).is_idle")  # and laid out


def _saved(page: Any) -> list[str]:
    """The lines of the table of the selection."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save the selection as CSV").click()
    return Path(waiting.value.path()).read_text().splitlines()


def _lasso(page: Any, left: float = 0.0, right: float = 1.0, *, shift: bool = False) -> None:
    """Around everything between two shares of the width, with the mouse."""
    tool = "Bokeh.documents.at(-1).roots()[0].toolbar.tools.find((tool) => tool.type === 'LassoSelectTool')"
    if not page.evaluate(f"{tool}.active"):
        page.locator(".bk-tool-icon-lasso-select").first.click()
    box = page.locator(".map canvas.points").bounding_box()
    start, end = box["x"] + 2 + left * (box["width"] - 4), box["x"] + 2 + right * (box["width"] - 4)
    top, bottom = box["y"] + 2, box["y"] + box["height"] - 2
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(start, top)
    page.mouse.down()
    for x, y in ((end, top), (end, bottom), (start, bottom), (start, top)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")


def _serious(page: Any) -> list[tuple[str, str]]:
    """Serious faults for those who do not see or point; none where axe is not installed."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    found = axe.run(page).response["violations"]
    return [(f["id"], f["nodes"][0]["html"][:120]) for f in found if f["impact"] in ("serious", "critical")]


ADDRESSES = [
    "/",
    "/layers/1",
    "/units/1/2",
    "/pictures",
    "/classes",
    "/techniques",
    "/techniques/gradcam",
    "/jobs",
    "/predict",
]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_free_of_serious_faults_for_those_who_do_not_see_or_point(
    browser: Any, address: str, theme: str
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address, color_scheme=theme)
    made = context.new_page()
    for where in ADDRESSES:
        made.goto(where)
        made.locator("main h1").first.wait_for(timeout=EXPECT)
        assert _serious(made) == [], where
    context.close()


@pytest.mark.parametrize("width", [360, 1920])
def test_nothing_leaves_the_screen(browser: Any, address: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, base_url=address)
    made = context.new_page()
    for where in ADDRESSES:
        made.goto(where)
        made.locator("main h1").first.wait_for(timeout=EXPECT)
        assert made.evaluate("document.documentElement.scrollWidth") <= width, where
        links = "[...document.querySelectorAll('#nav a')].map((link) => link.getBoundingClientRect().right)"
        assert max(made.evaluate(links)) <= width, where
    context.close()
