"""``convscope scan`` as a user meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from convscope import cli, open_index
from convscope.conftest import colour_pictures


def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["convscope", *map(str, arguments)])
    capsys.readouterr()
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, capsys.readouterr().err


def test_a_scan_and_what_goes_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], colour_spec: dict[str, Any]
) -> None:
    folder = colour_pictures(tmp_path / "photos", each=3)
    (folder / "red" / "02.png").write_bytes(b"damaged")
    (tmp_path / "labels.json").write_text(json.dumps(colour_spec["labels"]))
    monkeypatch.chdir(tmp_path)
    network = ["--network", colour_spec["network"], "--weights", colour_spec["weights"], "--labels", "labels.json"]
    options = [*network, "--input-size", "32", "--chunk", "4"]
    status, said = ran(monkeypatch, capsys, "scan", "photos", "-o", "photos.index", *options)
    assert status == 0, said
    assert "wrote photos.index: 8 pictures, and 1 that could not be read" in said
    monkeypatch.chdir("/")  # the index leads to its pictures and its network from anywhere
    index = open_index(tmp_path / "photos.index")
    assert index.network.labels == ("blue", "green", "red")
    assert index.image(int(index.ids[0])).shape == (3, 40, 48)
    assert index.pictures(["path"])["path"].to_pylist()[0] == str(folder / "blue" / "00.png")
    monkeypatch.chdir(tmp_path)
    status, said = ran(monkeypatch, capsys, "scan", "photos", "-o", "photos.index", "--patches", "4", *options)
    assert (status, said.count("\n")) == (1, 1)
    assert "photos.index was made otherwise (patches 9 -> 4); scan as before, or to another place" in said
    status, said = ran(monkeypatch, capsys, "scan", "nothing", "-o", "n.index", *options)
    assert status == 1
    assert "there is no such file or folder" in said
    status, said = ran(monkeypatch, capsys, "scan", "photos", "-o", "n.index", "--layer", "9", *options)
    assert status == 1
    assert "no layer '9'" in said
    assert not (tmp_path / "n.index").exists()
