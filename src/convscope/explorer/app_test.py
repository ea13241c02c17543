"""What the explorer answers, against the toolkit called directly; and what it refuses."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from convscope.backward import GUIDED, gradient
from convscope.explorer.conftest import png
from convscope.hooks import observe
from convscope.images import read_image, to_uint8

LAYER = "1"


def test_every_address_is_the_page_and_its_policy_is_strict(client: TestClient) -> None:
    for address in ("/", "/layers/relu2_2", "/units/a/3", "/pictures/x", "/techniques/gradcam", "/index", "/jobs/1"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert '<script type="module" src="/static/app.js">' in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_scripts_and_styles_are_served_and_nothing_else(client: TestClient) -> None:
    for name in ("app.js", "dom.js", "pages/unit.js", "app.css"):
        assert client.get(f"/static/{name}").status_code == 200
    assert ".figures" in client.get("/fragments.css").text
    for name in ("../app.py", "..%2fapp.py", "%2e%2e/desk.py", "pages/../../app.py", "/etc/passwd"):
        assert client.get(f"/static/{name}").status_code == 404


def test_the_network_is_described_as_it_is(client: TestClient, desk: Any) -> None:
    about = client.get("/api/network").json()
    assert about["labels"] == ["ant", "bee", "cat", "dog_fish"]
    assert [layer["name"] for layer in about["layers"]] == [info.name for info in desk.network.layers()]
    assert about["layers"][0]["shape"] == [8, 12, 16]
    assert about["parameters"] == sum(p.numel() for p in desk.network.module.parameters())


def test_a_picture_gets_the_networks_own_prediction_and_one_name(client: TestClient, desk: Any) -> None:
    found = client.post("/api/pictures?title=noise", content=png()).json()
    image = desk.network.prepare(read_image(png()))
    saved = torch.from_numpy(to_uint8(image)).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        shares = desk.network(saved[None])[0].softmax(0)
    for entry in found["prediction"]:
        assert entry["probability"] == pytest.approx(float(shares[entry["index"]]), abs=1e-5)
    assert [e["index"] for e in found["prediction"]] == shares.argsort(descending=True).tolist()
    assert client.post("/api/pictures?title=again", content=png()).json()["id"] == found["id"]
    served = Image.open(io.BytesIO(client.get(f"/api/pictures/{found['id']}.png").content))
    np.testing.assert_array_equal(np.asarray(served), to_uint8(image))
    listed = client.get("/api/pictures").json()["pictures"]
    assert [each["id"] for each in listed].count(found["id"]) == 1


def bomb() -> bytes:
    """A PNG whose header says 60,000 x 60,000 pixels, in a few bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello", ""),
        (png()[:200], ""),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", ""),
        (b"GIF89a" + b"\0" * 40, ""),
        (bomb(), "pixels"),
    ],
    ids=["empty", "text", "cut off", "svg", "mislabelled", "bomb"],
)
def test_what_is_no_picture_gets_one_sentence(client: TestClient, content: bytes, said: str) -> None:
    answer = client.post("/api/pictures", content=content)
    assert answer.status_code == 422
    sentence = answer.json()["detail"]
    assert said in sentence
    assert "\n" not in sentence
    assert client.get("/api/network").status_code == 200


def test_a_body_that_is_too_long_is_refused(client: TestClient) -> None:
    assert client.post("/api/pictures", content=b"x" * 300_001).status_code == 413
    chunks = (b"x" * 100_000 for _ in range(5))
    assert client.post("/api/pictures", content=chunks).status_code == 413


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "a" * 32, "%00", "x.png", "A" * 32])
def test_no_name_leads_to_a_file_of_this_machine(client: TestClient, name: str) -> None:
    for address in (f"/api/pictures/{name}", f"/api/pictures/{name}.png", f"/api/results/{name}/result.html"):
        assert client.get(address).status_code in (404, 422)
    assert client.get("/api/results/" + "0" * 64 + "/..%2f..%2fresult.html").status_code == 404


def test_maps_and_their_sheet_are_those_of_the_layer(client: TestClient, desk: Any, picture: str) -> None:
    about = client.get(f"/api/pictures/{picture}/maps/{LAYER}").json()
    with torch.no_grad():
        maps = observe(desk.network, desk.pictures.image(picture)[None], [LAYER])[LAYER][0]
    assert about["maxima"] == pytest.approx(maps.flatten(1).amax(1).tolist(), abs=1e-6)
    assert about["zeros"] == pytest.approx((maps == 0).flatten(1).float().mean(1).tolist())
    sheet = Image.open(io.BytesIO(client.get(f"/api/pictures/{picture}/maps/{LAYER}/sheet.png").content))
    assert sheet.size == (about["columns"] * about["width"], about["rows"] * about["height"]) == (8 * 16, 12)
    assert client.get(f"/api/pictures/{picture}/maps/{LAYER}?page=1").status_code == 422
    over = Image.open(io.BytesIO(client.get(f"/api/pictures/{picture}/maps/{LAYER}/3.png").content))
    assert over.size == (32, 24)


def test_fields_are_the_receptive_fields(client: TestClient, desk: Any) -> None:
    found = client.get(f"/api/layers/{LAYER}/fields").json()["fields"]
    field = desk.network.receptive_fields[LAYER]
    for row, (top, bottom) in enumerate(found["rows"]):
        for column, (left, right) in enumerate(found["columns"]):
            assert field.box(row, column) == (top, left, bottom, right)


def test_a_units_strongest_places_are_found(client: TestClient, desk: Any, picture: str) -> None:
    unit = client.get(f"/api/layers/{LAYER}/units/2").json()
    by_hand = {}
    for name in desk.pictures.titles:
        with torch.no_grad():
            maps = observe(desk.network, desk.pictures.image(name)[None], [LAYER])[LAYER][0, 2]
        by_hand[name] = float(maps.max())
        found = [patch for patch in unit["patches"] if patch["picture"] == name]
        if found:
            assert float(maps[found[0]["row"], found[0]["column"]]) == pytest.approx(by_hand[name], abs=1e-5)
    strongest = sorted(by_hand.values(), reverse=True)[: len(unit["patches"])]
    assert [patch["value"] for patch in unit["patches"]] == pytest.approx(strongest, abs=1e-5)
    assert picture in by_hand
    statistics, maps = unit["statistics"], []
    for name in desk.pictures.titles:
        with torch.no_grad():
            maps.append(observe(desk.network, desk.pictures.image(name)[None], [LAYER])[LAYER][0, 2])
    every = torch.stack(maps)
    assert statistics["maximum"] == pytest.approx(float(every.max()), abs=1e-5)
    assert statistics["zeros"] == pytest.approx(float((every == 0).float().mean()))
    counts, _ = torch.histogram(every, torch.tensor(statistics["edges"]))
    assert (
        torch.tensor(statistics["histogram"]) - counts
    ).abs().sum() <= 4  # a value at an edge may fall to either side
    assert client.get("/api/layers/0/filters/1.png").headers["content-type"] == "image/png"
    assert client.get(f"/api/layers/{LAYER}/units/8").status_code == 404
    assert client.get("/api/layers/nothing/units/0").status_code == 404


def test_a_cover_changes_the_answer_as_a_full_pass_does(client: TestClient, desk: Any, picture: str) -> None:
    boxes = [[0, 0, 6, 6], [12, 18, 6, 6]]
    told = client.post(f"/api/pictures/{picture}/changes", json={"boxes": boxes, "fill": "grey"}).json()
    covered = desk.pictures.image(picture).clone()
    for top, left, height, width in boxes:
        covered[:, top : top + height, left : left + width] = 0.5
    with torch.no_grad():
        after = desk.network(covered[None])[0].softmax(0)
    for entry in told["classes"]:
        assert entry["after"] == pytest.approx(float(after[entry["index"]]), abs=1e-5)


def test_epsilon_moves_the_picture_that_far_and_lowers_its_class(client: TestClient, desk: Any, picture: str) -> None:
    told = client.post(f"/api/pictures/{picture}/changes", json={"epsilon": 4 / 255}).json()
    assert told["classes"][0]["after"] < told["classes"][0]["before"]
    moved = read_image(base64.b64decode(told["picture"].partition(",")[2]))
    difference = (moved - desk.pictures.image(picture)).abs()
    assert float(difference.max()) == pytest.approx(4 / 255, abs=0.6 / 255)


def test_a_texture_of_a_shipped_style_and_no_other(client: TestClient, picture: str) -> None:
    style = client.get("/api/network").json()["styles"][0]
    told = client.post(f"/api/pictures/{picture}/changes", json={"style": style, "strength": 0.5})
    assert told.json()["picture"].startswith("data:image/png;base64,")
    assert client.post(f"/api/pictures/{picture}/changes", json={"style": "/etc/passwd"}).status_code == 422


@pytest.mark.parametrize(
    "wanted",
    [
        {"boxes": [[0, 0, 6]]}, {"boxes": [[0, 0, 6, 6], [0, 0, 3, 3]]}, {"boxes": [[20, 0, 6, 6]]},
        {"boxes": [[-1, 0, 6, 6]]}, {"epsilon": 2}, {"fill": "pink"}, {"boxes": [[0, 0, 6, 6]] * 500},
    ],
)  # fmt: skip
def test_impossible_changes_are_refused(client: TestClient, picture: str, wanted: dict[str, Any]) -> None:
    assert client.post(f"/api/pictures/{picture}/changes", json=wanted).status_code == 422


def test_without_an_index_its_pages_say_so(client: TestClient) -> None:
    assert client.get("/api/index").json() == {"index": None}
    for address in ("/api/index/points", "/api/index/pictures/0", "/api/index/pictures/0.webp"):
        assert "convscope explore PHOTOS.index" in client.get(address).json()["detail"]


def test_no_file_of_the_explorer_is_larger_than_a_page_can_load_at_once() -> None:
    static = Path(__file__).parent / "static"
    assert sum(path.stat().st_size for path in static.rglob("*") if path.is_file()) < 120_000


def test_what_excites_a_unit_is_its_guided_gradient_within_what_it_sees(
    client: TestClient, desk: Any, picture: str
) -> None:
    patch = client.get(f"/api/layers/{LAYER}/units/2").json()["patches"][0]
    top, left, bottom, right = patch["box"]
    where = {"row": patch["row"], "column": patch["column"], "picture": patch["picture"]}
    address = f"/api/layers/{LAYER}/units/2/seen.png"
    drawn = Image.open(io.BytesIO(client.get(address, params=where).content))
    assert drawn.size == (right - left, bottom - top)
    pixels = desk.pictures.image(patch["picture"])[None].clone().requires_grad_()
    score = observe(desk.network, pixels, [LAYER])[LAYER][:, 2, patch["row"], patch["column"]]
    expected = gradient(score, pixels, GUIDED)[0, :, top:bottom, left:right].numpy()
    found = (np.asarray(drawn).astype(float).transpose(2, 0, 1) - 127.5) / 127.5
    bound = np.quantile(np.abs(expected), 0.995)
    np.testing.assert_allclose(found, np.clip(expected / bound, -1, 1), atol=0.006)
    assert client.get(address, params={**where, "row": 99}).status_code == 422
    assert client.get(address).status_code == 422
    assert client.get(address, params={"place": 0}).status_code == 404


def run(lines: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the last of some lines of Python gives, in a folder with the picture that they name."""
    (folder / "noise.png").write_bytes(png())
    monkeypatch.chdir(folder)
    *before, last = lines.split("\n")
    names: dict[str, Any] = {}
    exec("\n".join(before), names)  # the page's own lines
    if " = " in last:
        exec(last, names)
        return names[last.partition(" = ")[0]]
    return eval(last, names)


def test_the_lines_of_a_layer_and_of_a_unit_give_their_maps(
    client: TestClient, picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = client.get(f"/api/pictures/{picture}/maps/{LAYER}").json()
    unit = client.get(f"/api/layers/{LAYER}/units/2?picture={picture}").json()
    assert about["command"].startswith("convscope activations noise.png --layer 1 --network ")
    maps = run(about["python"], tmp_path, monkeypatch)
    assert maps.amax((0, 2, 3)).tolist() == pytest.approx(about["maxima"], abs=0.01)
    fired = run(unit["python"], tmp_path, monkeypatch)
    torch.testing.assert_close(fired, maps[0, 2])


@pytest.mark.parametrize(
    "wanted",
    [
        {"epsilon": 6 / 255},
        {"boxes": [[0, 0, 12, 12], [12, 12, 12, 12]], "fill": "black"},
        {"boxes": [[4, 8, 12, 12]], "fill": "mean", "epsilon": 2 / 255},
        {"style": "starry_night", "strength": 0.4, "boxes": [[4, 8, 12, 12]], "fill": "grey"},
    ],
)
def test_the_lines_of_a_change_give_its_answer(
    client: TestClient, picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    if "style" in wanted:
        wanted["style"] = client.get("/api/network").json()["styles"][0]
    told = client.post(f"/api/pictures/{picture}/changes", json=wanted).json()
    assert told["command"].startswith("# save the changed picture, then\nconvscope classify changed.png --network ")
    shares = {entry["index"]: entry["after"] for entry in told["classes"]}
    code = told["python"].replace("topk(5)", "topk(4)")  # of four classes
    found = run(code, tmp_path, monkeypatch)
    for value, index in zip(found.values[0].tolist(), found.indices[0].tolist(), strict=True):
        assert value == pytest.approx(shares[index], abs=2e-3)
    plain = client.get(f"/api/pictures/{picture}").json()
    assert plain["command"].startswith("convscope classify noise.png --network ")
    assert "save the changed" not in plain["command"]
